//! Hardware task switches (Intel SDM volume 3, chapter 8), which VT-x leaves to the hypervisor.
//!
//! A switch has two halves, and its faults belong to different tasks. [`leave`] checks the new TSS,
//! saves the old task and reads the new one: a fault there finds the old task as it was. [`enter`]
//! loads the new task's segments: a fault there is the new task's, and is raised before its first
//! instruction. In between the caller loads CR3.

mod descriptor;
mod memory;
#[cfg(test)]
mod tests;
mod tss;

use descriptor::{Descriptor, null, placeholder, virtual_8086};
pub(crate) use memory::View;
use tss::Format;
pub(crate) use tss::{Registers, flag};
use vcpu::{Segment, SwitchSource};

/// Where CS and SS are among the segment registers ES, CS, SS, DS, FS, GS.
const CS: usize = 1;
const SS: usize = 2;

const RPL: u16 = 3;
/// The selector is into the local table.
const LOCAL: u16 = 1 << 2;

/// Exceptions that a task switch raises.
mod vector {
    pub(super) const DOUBLE_FAULT: u8 = 8;
    pub(super) const INVALID_TSS: u8 = 10;
    pub(super) const NOT_PRESENT: u8 = 11;
    pub(super) const STACK: u8 = 12;
    pub(super) const PROTECTION: u8 = 13;
    pub(super) const PAGE: u8 = 14;
}

/// An exception to be raised in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) vector: u8,
    pub(crate) code: u32,
    /// The linear address, of a page fault.
    pub(crate) linear: Option<u32>,
}

impl Fault {
    const fn new(vector: u8, code: u32) -> Self {
        Self {
            vector,
            code,
            linear: None,
        }
    }

    /// #GP(0).
    pub(crate) const PROTECTION: Self = Self::new(vector::PROTECTION, 0);

    /// What becomes of the fault if it came while an exception with this vector was being delivered
    /// (table 6-5): itself, a double fault, or `None` for the triple one.
    pub(crate) fn during(self, first: Option<u8>) -> Option<Self> {
        const DIVIDE: u8 = 0;
        let contributory =
            |vector| matches!(vector, DIVIDE | vector::INVALID_TSS..=vector::PROTECTION);
        let Some(first) = first else {
            return Some(self);
        };
        let serious = contributory(self.vector) || self.vector == vector::PAGE;
        match first {
            vector::DOUBLE_FAULT if serious => None,
            vector::PAGE if serious => Some(Self::new(vector::DOUBLE_FAULT, 0)),
            first if contributory(first) && contributory(self.vector) => {
                Some(Self::new(vector::DOUBLE_FAULT, 0))
            }
            _ => Some(self),
        }
    }
}

/// Why a task switch did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// An exception for the guest.
    Fault(Fault),
    /// A table or a stack lies outside the guest's memory, at this guest-physical address.
    Outside(u64),
}

/// The global descriptor table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    pub(crate) base: u32,
    pub(crate) limit: u32,
}

/// The switch to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Switch {
    /// Selector of the new TSS.
    pub(crate) selector: u16,
    pub(crate) source: SwitchSource,
    /// Whether an event that the program did not ask for is the cause: error codes say so (EXT).
    pub(crate) external: bool,
}

impl Switch {
    fn fault(&self, vector: u8, selector: u16) -> Stop {
        let code = u32::from(selector & !RPL) | u32::from(self.external);
        Stop::Fault(Fault::new(vector, code))
    }
}

/// The task that a switch leads to, after [`leave`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Incoming {
    /// What its TSS holds; EFLAGS.NT says whether it is nested.
    pub(crate) registers: Registers,
    /// The task register.
    pub(crate) task: Segment,
    /// Whether the TSS is a 32-bit one.
    pub(crate) wide: bool,
}

/// The first half: leaves the old task, whose registers are `old` and whose task register is
/// `old_task`. EIP must be where the old task is to go on.
///
/// # Errors
///
/// [`Stop`]; the old task goes on at what began the switch.
pub(crate) fn leave(
    view: &View<'_>,
    table: Table,
    old: &Registers,
    old_task: &Segment,
    switch: &Switch,
) -> Result<Incoming, Stop> {
    let returns = switch.source == SwitchSource::Return;
    let nests = matches!(switch.source, SwitchSource::Call | SwitchSource::Event);
    let at = |selector: u16| {
        table
            .base
            .wrapping_add(u32::from(selector & !(RPL | LOCAL)))
    };

    // The new TSS. The processor has looked at it already, but that is no reason to believe it.
    let wrong = if returns {
        vector::INVALID_TSS
    } else {
        vector::PROTECTION
    };
    let selector = switch.selector;
    if selector & LOCAL != 0 || u32::from(selector | RPL | LOCAL) > table.limit {
        return Err(switch.fault(wrong, selector));
    }
    let descriptor = Descriptor::read(view, at(selector))?;
    let format = Format::of(descriptor.access())
        .filter(|_| descriptor.is_busy() == returns)
        .ok_or(switch.fault(wrong, selector))?;
    if !descriptor.is_present() {
        return Err(switch.fault(vector::NOT_PRESENT, selector));
    }
    if descriptor.limit() < format.size() - 1 {
        return Err(switch.fault(vector::INVALID_TSS, selector));
    }
    let old_format = Format::of(old_task.access)
        .filter(|format| old_task.limit >= format.saved().end - 1)
        .ok_or(switch.fault(vector::INVALID_TSS, old_task.selector))?;

    // Everything that is going to be touched is there: from here on nothing fails.
    let new_base = descriptor.base();
    let old_base = old_task.base as u32;
    let saved = old_format.saved();
    view.check_write(old_base.wrapping_add(saved.start), saved.end - saved.start)?;
    let mut new_bytes = [0; Format::LARGEST];
    let new_bytes = &mut new_bytes[..format.size() as usize];
    view.read(new_base, new_bytes)?;
    if nests {
        view.check_write(new_base, 2)?;
    }
    if !returns {
        view.check_write(at(selector), 8)?;
    }
    if !nests {
        view.check_write(at(old_task.selector), 8)?;
    }

    let mut image = *old;
    if returns {
        image.eflags &= !flag::NESTED;
    }
    let mut old_bytes = [0; Format::LARGEST];
    let old_bytes = &mut old_bytes[saved.start as usize..saved.end as usize];
    view.read(old_base.wrapping_add(saved.start), old_bytes)?;
    old_format.save(&image, old_bytes);
    view.write(old_base.wrapping_add(saved.start), old_bytes)?;
    if !nests {
        Descriptor::set_busy(view, at(old_task.selector), false)?;
    }
    if nests {
        view.write(new_base, &old_task.selector.to_le_bytes())?;
    }
    if !returns {
        Descriptor::set_busy(view, at(selector), true)?;
    }
    // A task that returns to itself finds what was just saved.
    view.read(new_base, new_bytes)?;
    let mut registers = format.load(new_bytes);
    if nests {
        registers.eflags |= flag::NESTED;
    }
    Ok(Incoming {
        registers,
        task: descriptor.busy().segment(selector),
        wide: format == Format::Wide,
    })
}

/// The segment registers of the task that was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segments {
    /// ES, CS, SS, DS, FS, GS.
    pub(crate) data: [Segment; 6],
    pub(crate) local_table: Segment,
}

/// The second half: loads the new task's segments. What could not be loaded has its selector only.
pub(crate) fn enter(
    view: &View<'_>,
    table: Table,
    incoming: &Incoming,
    switch: &Switch,
) -> (Segments, Result<(), Stop>) {
    let registers = &incoming.registers;
    let level = registers.privilege_level();
    let mut segments = Segments {
        data: registers.selectors.map(|selector| null(selector, level)),
        local_table: null(registers.local_table, 0),
    };
    segments.data[CS] = placeholder(registers.selectors[CS], level);
    let loader = Loader {
        view,
        table,
        switch,
        level,
    };
    let result = loader.load(registers, &mut segments);
    (segments, result)
}

struct Loader<'a, 'b> {
    view: &'a View<'b>,
    table: Table,
    switch: &'a Switch,
    level: u8,
}

impl Loader<'_, '_> {
    fn load(&self, registers: &Registers, segments: &mut Segments) -> Result<(), Stop> {
        if registers.is_virtual_8086() {
            segments.data = registers.selectors.map(virtual_8086);
            return self.load_local_table(registers.local_table, segments);
        }
        self.load_local_table(registers.local_table, segments)?;
        let local = segments.local_table;
        for index in [CS, SS, 3, 0, 4, 5] {
            let selector = registers.selectors[index];
            if let Some(segment) = self.load_segment(index, selector, &local)? {
                segments.data[index] = segment;
            }
        }
        Ok(())
    }

    fn load_local_table(&self, selector: u16, segments: &mut Segments) -> Result<(), Stop> {
        if selector & !RPL == 0 {
            return Ok(());
        }
        let invalid = self.switch.fault(vector::INVALID_TSS, selector);
        if selector & LOCAL != 0 {
            return Err(invalid);
        }
        let (descriptor, _) = self.fetch(selector, &null(0, 0))?;
        if !descriptor.is_local_table() || !descriptor.is_present() {
            return Err(invalid);
        }
        segments.local_table = descriptor.segment(selector);
        Ok(())
    }

    /// The descriptor behind a selector, and its linear address.
    fn fetch(&self, selector: u16, local: &Segment) -> Result<(Descriptor, u32), Stop> {
        let (base, limit) = if selector & LOCAL == 0 {
            (self.table.base, Some(self.table.limit))
        } else {
            let there = local.access & descriptor::UNUSABLE == 0;
            (local.base as u32, there.then_some(local.limit))
        };
        if limit.is_none_or(|limit| u32::from(selector | RPL | LOCAL) > limit) {
            return Err(self.switch.fault(vector::INVALID_TSS, selector));
        }
        let at = base.wrapping_add(u32::from(selector & !(RPL | LOCAL)));
        Ok((Descriptor::read(self.view, at)?, at))
    }

    /// Loads ES, CS, SS, DS, FS or GS; `None` for a null selector where one may be.
    fn load_segment(
        &self,
        index: usize,
        selector: u16,
        local: &Segment,
    ) -> Result<Option<Segment>, Stop> {
        let invalid = self.switch.fault(vector::INVALID_TSS, selector);
        if selector & !RPL == 0 {
            return if index == CS || index == SS {
                Err(invalid)
            } else {
                Ok(None)
            };
        }
        let (found, at) = self.fetch(selector, local)?;
        let (requested, level) = ((selector & RPL) as u8, self.level);
        let (allowed, absent) = match index {
            CS => (found.is_code_for(level), vector::NOT_PRESENT),
            SS => (
                found.is_stack_for(level) && requested == level,
                vector::STACK,
            ),
            _ => (
                found.is_readable_for(level.max(requested)),
                vector::NOT_PRESENT,
            ),
        };
        if !allowed {
            return Err(invalid);
        }
        if !found.is_present() {
            return Err(self.switch.fault(absent, selector));
        }
        Ok(Some(found.accessed(self.view, at)?.segment(selector)))
    }
}

/// Pushes the error code of the event that began the switch onto the new task's stack; returns ESP.
///
/// # Errors
///
/// [`Stop`], with the new task's fault; nothing was pushed.
pub(crate) fn push(
    view: &View<'_>,
    incoming: &Incoming,
    stack: &Segment,
    code: u32,
    switch: &Switch,
) -> Result<u32, Stop> {
    let bytes = code.to_le_bytes();
    let bytes = &bytes[..if incoming.wide { 4 } else { 2 }];
    let esp = incoming.registers.gprs[tss::ESP];
    let mask = descriptor::offset_mask(stack);
    let offset = esp.wrapping_sub(bytes.len() as u32) & mask;
    if !descriptor::contains(stack, offset, bytes.len() as u32) {
        return Err(switch.fault(vector::STACK, 0));
    }
    let linear = (stack.base as u32).wrapping_add(offset);
    let user = incoming.registers.privilege_level() == 3;
    view.write_as(linear, bytes, user)?;
    Ok(esp & !mask | offset)
}
