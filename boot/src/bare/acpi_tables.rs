//! What the ACPI tables say: processors, interrupt controllers, PM timer, how to power off.

use super::boot_info::BootInfo;
use super::paging::AddressSpace;
use super::{BootError, DIRECT_MAP};
use ::acpi::fadt::Fadt;
use ::acpi::madt::{Madt, MadtEntry};
use ::acpi::{AcpiHandler, AcpiTables, PhysicalMapping};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ptr::NonNull;
use drivers::io_apic::Trigger;
use drivers::power::SoftOff;
use hypervisor::IsaOverride;
use hypervisor::memory::PhysicalMemory;
use log::warn;

/// The facts that the boot needs.
pub(super) struct AcpiFacts {
    /// APIC IDs of usable processors.
    pub(super) cpus: Vec<u32>,
    pub(super) io_apics: Vec<IoApicFacts>,
    pub(super) overrides: Vec<IsaOverride>,
    /// Port of the PM timer.
    pub(super) pm_timer: Option<u16>,
    pub(super) soft_off: Option<SoftOff>,
}

/// Where an I/O APIC is.
pub(super) struct IoApicFacts {
    pub(super) address: u64,
    pub(super) first_input: u32,
}

/// Maps tables through the direct map, adding pages where firmware keeps tables in reserved memory.
#[derive(Clone)]
struct Handler<'a>(Rc<RefCell<(&'a mut AddressSpace, &'a mut PhysicalMemory)>>);

impl AcpiHandler for Handler<'_> {
    unsafe fn map_physical_region<T>(
        &self,
        physical_address: usize,
        size: usize,
    ) -> PhysicalMapping<Self, T> {
        let start = physical_address as u64;
        {
            let (space, memory) = &mut *self.0.borrow_mut();
            if space
                .map_tables(start..start + size as u64, memory)
                .is_err()
            {
                panic!("no memory to map the ACPI table at {start:#x}");
            }
        }
        let Some(virt) = NonNull::new(DIRECT_MAP.pointer(start).cast::<T>()) else {
            unreachable!("the direct map does not start at zero")
        };
        // SAFETY: mapped just now or before, for good.
        unsafe { PhysicalMapping::new(physical_address, virt, size, size, self.clone()) }
    }

    fn unmap_physical_region<T>(_: &PhysicalMapping<Self, T>) {}
}

/// Reads the tables.
pub(super) fn read(
    info: &BootInfo,
    space: &mut AddressSpace,
    memory: &mut PhysicalMemory,
) -> Result<AcpiFacts, BootError> {
    let rsdp = info.rsdp.ok_or(BootError::NoAcpi)?;
    let handler = Handler(Rc::new(RefCell::new((space, memory))));
    // SAFETY: the boot loader copied the pointer from the firmware.
    let tables = unsafe { AcpiTables::from_rsdt(handler.clone(), rsdp.revision, rsdp.root_table) }?;
    let mut facts = AcpiFacts {
        cpus: Vec::new(),
        io_apics: Vec::new(),
        overrides: Vec::new(),
        pm_timer: None,
        soft_off: None,
    };
    let madt = tables.find_table::<Madt>()?;
    for entry in madt.get().entries() {
        read_madt_entry(&entry, &mut facts);
    }
    if facts.cpus.is_empty() {
        return Err(BootError::NoProcessors);
    }
    match tables.find_table::<Fadt>() {
        Ok(fadt) => {
            facts.pm_timer = fadt
                .pm_timer_block()
                .ok()
                .flatten()
                .and_then(|block| u16::try_from(block.address).ok());
            facts.soft_off = soft_off(&fadt, &tables, &handler);
        }
        Err(error) => warn!("ACPI: no usable FADT ({error:?}): no PM timer, no way to power off"),
    }
    Ok(facts)
}

fn read_madt_entry(entry: &MadtEntry<'_>, facts: &mut AcpiFacts) {
    const ENABLED: u32 = 1 << 0;
    const XAPIC_BROADCAST: u32 = 0xff;
    match entry {
        MadtEntry::LocalApic(apic)
            if apic.flags & ENABLED != 0 && u32::from(apic.apic_id) != XAPIC_BROADCAST =>
        {
            facts.cpus.push(u32::from(apic.apic_id));
        }
        MadtEntry::LocalX2Apic(apic) => {
            let id = apic.x2apic_id;
            if apic.flags & ENABLED != 0 && !facts.cpus.contains(&id) {
                facts.cpus.push(id);
            }
        }
        MadtEntry::IoApic(io_apic) => facts.io_apics.push(IoApicFacts {
            address: u64::from(io_apic.io_apic_address),
            first_input: io_apic.global_system_interrupt_base,
        }),
        MadtEntry::InterruptSourceOverride(source) => {
            // MPS INTI flags (ACPI 6.5, table 5.21): 3 is active low, and level.
            const POLARITY: u16 = 0b11;
            const TRIGGER: u16 = 0b11 << 2;
            let flags = source.flags;
            facts.overrides.push(IsaOverride {
                irq: source.irq,
                global: source.global_system_interrupt,
                trigger: Trigger {
                    active_low: flags & POLARITY == POLARITY,
                    level: flags & TRIGGER == TRIGGER,
                },
            });
        }
        _ => {}
    }
}

fn soft_off(
    fadt: &Fadt,
    tables: &AcpiTables<Handler<'_>>,
    handler: &Handler<'_>,
) -> Option<SoftOff> {
    let port = |address: u64| u16::try_from(address).ok();
    let pm1a_control = port(fadt.pm1a_control_block().ok()?.address)?;
    let pm1b_control = fadt
        .pm1b_control_block()
        .ok()
        .flatten()
        .and_then(|b| port(b.address));
    let dsdt = tables.dsdt().ok()?;
    let length = dsdt.length as usize;
    // SAFETY: address and length are those of the checked table header.
    let mapping = unsafe { handler.map_physical_region::<u8>(dsdt.address, length) };
    // SAFETY: mapped just now, `length` bytes, and firmware tables do not change.
    let bytes = unsafe { core::slice::from_raw_parts(mapping.virtual_start().as_ptr(), length) };
    let sleep_types = SoftOff::find_s5(bytes)?;
    Some(SoftOff {
        pm1a_control,
        pm1b_control,
        sleep_types,
    })
}
