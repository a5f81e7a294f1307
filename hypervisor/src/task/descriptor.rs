//! Segment descriptors (Intel SDM volume 3, sections 3.4.5 and 8.2.2), and segments in the VMCS's form.

use super::Stop;
use super::memory::View;
use vcpu::Segment;

/// Access rights, in the VMCS's form (Intel SDM volume 3, table 25-2).
const ACCESSED: u32 = 1 << 0;
/// Of data: writable. Of code: readable.
const WRITABLE_OR_READABLE: u32 = 1 << 1;
/// Of data: expands down. Of code: conforming.
const DOWN_OR_CONFORMING: u32 = 1 << 2;
const CODE: u32 = 1 << 3;
const NOT_SYSTEM: u32 = 1 << 4;
const PRESENT: u32 = 1 << 7;
const BIG: u32 = 1 << 14;
const GRANULAR: u32 = 1 << 15;
pub(super) const UNUSABLE: u32 = 1 << 16;
/// Of a TSS: the bit that a busy one has in its type.
const BUSY: u32 = 1 << 1;
const TYPE: u32 = 0xf;
const TYPE_LOCAL_TABLE: u32 = 2;

/// The byte of a descriptor that holds type and privilege level.
const ACCESS_BYTE: u32 = 5;

const fn privilege(level: u8) -> u32 {
    (level as u32 & 3) << 5
}

/// Eight bytes of a descriptor table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptor(u64);

impl Descriptor {
    pub(super) fn read(view: &View<'_>, at: u32) -> Result<Self, Stop> {
        let mut bytes = [0; 8];
        view.read(at, &mut bytes)?;
        Ok(Self(u64::from_le_bytes(bytes)))
    }

    /// Sets or clears the busy bit of the TSS descriptor at a linear address.
    pub(super) fn set_busy(view: &View<'_>, at: u32, busy: bool) -> Result<(), Stop> {
        let at = at.wrapping_add(ACCESS_BYTE);
        let mut byte = [0];
        view.read(at, &mut byte)?;
        byte[0] = byte[0] & !(BUSY as u8) | if busy { BUSY as u8 } else { 0 };
        view.write(at, &byte)
    }

    /// The descriptor with its accessed bit, set in memory too if it was not.
    pub(super) fn accessed(self, view: &View<'_>, at: u32) -> Result<Self, Stop> {
        if self.access() & ACCESSED == 0 {
            let byte = (self.access() | ACCESSED) as u8;
            view.write(at.wrapping_add(ACCESS_BYTE), &[byte])?;
        }
        Ok(Self(self.0 | u64::from(ACCESSED) << 40))
    }

    pub(super) const fn base(self) -> u32 {
        (self.0 >> 16) as u32 & 0xff_ffff | (self.0 >> 32) as u32 & 0xff00_0000
    }

    /// In bytes.
    pub(super) const fn limit(self) -> u32 {
        let limit = self.0 as u32 & 0xffff | (self.0 >> 32) as u32 & 0xf_0000;
        if self.access() & GRANULAR == 0 {
            limit
        } else {
            limit << 12 | 0xfff
        }
    }

    pub(super) const fn access(self) -> u32 {
        (self.0 >> 40) as u32 & 0xf0ff
    }

    pub(super) const fn segment(self, selector: u16) -> Segment {
        Segment {
            selector,
            base: self.base() as u64,
            limit: self.limit(),
            access: self.access(),
        }
    }

    /// The same, busy.
    pub(super) const fn busy(self) -> Self {
        Self(self.0 | (BUSY as u64) << 40)
    }

    pub(super) const fn is_busy(self) -> bool {
        self.access() & BUSY != 0
    }

    pub(super) const fn is_present(self) -> bool {
        self.access() & PRESENT != 0
    }

    pub(super) const fn is_local_table(self) -> bool {
        self.access() & (NOT_SYSTEM | TYPE) == TYPE_LOCAL_TABLE
    }

    const fn has(self, bits: u32) -> bool {
        self.access() & bits == bits
    }

    const fn privilege_level(self) -> u8 {
        (self.access() >> 5) as u8 & 3
    }

    /// Code that may run at this privilege level.
    pub(super) const fn is_code_for(self, level: u8) -> bool {
        self.has(NOT_SYSTEM | CODE)
            && if self.has(DOWN_OR_CONFORMING) {
                self.privilege_level() <= level
            } else {
                self.privilege_level() == level
            }
    }

    /// Writable data of exactly this privilege level.
    pub(super) const fn is_stack_for(self, level: u8) -> bool {
        self.has(NOT_SYSTEM | WRITABLE_OR_READABLE)
            && !self.has(CODE)
            && self.privilege_level() == level
    }

    /// Data or readable code that may be read at this privilege level.
    pub(super) const fn is_readable_for(self, level: u8) -> bool {
        self.has(NOT_SYSTEM)
            && (!self.has(CODE) || self.has(WRITABLE_OR_READABLE))
            && (self.has(CODE | DOWN_OR_CONFORMING) || self.privilege_level() >= level)
    }
}

/// A segment register that cannot be used. Its privilege level counts even so: SS's is that of the vCPU.
pub(super) const fn null(selector: u16, level: u8) -> Segment {
    Segment {
        selector,
        base: 0,
        limit: 0,
        access: UNUSABLE | privilege(level),
    }
}

/// A code segment that entry accepts, for a task whose own could not be loaded. None of its instructions
/// runs: the fault is raised before.
pub(super) const fn placeholder(selector: u16, level: u8) -> Segment {
    let flat = Segment::flat_code_32(selector);
    Segment {
        access: flat.access | privilege(level),
        ..flat
    }
}

/// A segment register of virtual-8086 mode (section 27.3.1.2).
pub(super) const fn virtual_8086(selector: u16) -> Segment {
    Segment {
        selector,
        base: (selector as u64) << 4,
        limit: 0xffff,
        access: PRESENT | privilege(3) | NOT_SYSTEM | WRITABLE_OR_READABLE | ACCESSED,
    }
}

/// The bits of a stack pointer that count in a stack segment.
pub(super) const fn offset_mask(segment: &Segment) -> u32 {
    if segment.access & BIG == 0 {
        0xffff
    } else {
        u32::MAX
    }
}

/// Whether `length` bytes at an offset are in a data segment.
pub(super) const fn contains(segment: &Segment, offset: u32, length: u32) -> bool {
    let Some(last) = offset.checked_add(length - 1) else {
        return false;
    };
    if segment.access & DOWN_OR_CONFORMING == 0 {
        last <= segment.limit
    } else {
        offset > segment.limit && last <= offset_mask(segment)
    }
}
