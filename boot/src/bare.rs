//! Everything that runs on the bare board.

mod acpi_tables;
mod boot_info;
mod heap;
mod interrupts;
mod logger;
mod nics;
mod paging;
mod panic;
mod processors;
mod stacks;

use ::acpi::AcpiError;
use alloc::vec::Vec;
use core::arch::global_asm;
use core::fmt;
use drivers::io_apic::IoApic;
use drivers::local_apic::LocalApic;
use drivers::serial::Serial;
use drivers::tsc;
use hypervisor::memory::{OutOfMemory, PhysicalMemory};
use hypervisor::{Host, Interrupts};
use log::{error, info, warn};
use spin::Mutex;
use vcpu::DirectMap;

global_asm!(include_str!("bare/entry.s"));

#[cfg_attr(target_os = "none", global_allocator)]
static HEAP: heap::LockedHeap = heap::LockedHeap::empty();

/// Bytes of heap: the hypervisor's own objects. Guests' memory and hardware tables are frames.
const HEAP_SIZE: u64 = 8 << 20;

/// Vectors of the silenced 8259s.
const PIC_VECTORS: u8 = 0xd0;

/// The linear map of physical memory.
const DIRECT_MAP: DirectMap = DirectMap::new(0xffff_8000_0000_0000);

/// The first tables map this much.
const BOOT_MAP_END: u64 = 4 << 30;

unsafe extern "C" {
    static entry_tsc: u64;
    fn continue_on_stack(top: u64, function: extern "sysv64" fn() -> !) -> !;
}

/// Why the board cannot be booted. The message is one sentence for the operator.
#[derive(Debug)]
enum BootError {
    NotMultiboot2(u32),
    BadBootInformation,
    NoMemoryMap,
    OutOfMemory(OutOfMemory),
    Mapping,
    NoAcpi,
    Acpi(AcpiError),
    NoTimer,
    NoProcessors,
    Start(hypervisor::StartError),
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMultiboot2(magic) => {
                write!(
                    f,
                    "not started by a multiboot2 boot loader (magic {magic:#x})"
                )
            }
            Self::BadBootInformation => write!(f, "the boot loader's information is malformed"),
            Self::NoMemoryMap => write!(f, "the boot loader gave no memory map"),
            Self::OutOfMemory(error) => error.fmt(f),
            Self::Mapping => write!(f, "the address space could not be built"),
            Self::NoAcpi => write!(f, "the firmware offers no ACPI tables"),
            Self::Acpi(error) => write!(f, "the ACPI tables are broken: {error:?}"),
            Self::NoTimer => write!(
                f,
                "neither the 8254 nor the PM timer counts: the TSC cannot be calibrated"
            ),
            Self::NoProcessors => write!(f, "the ACPI tables list no processors"),
            Self::Start(error) => error.fmt(f),
        }
    }
}

impl From<OutOfMemory> for BootError {
    fn from(error: OutOfMemory) -> Self {
        Self::OutOfMemory(error)
    }
}

impl From<AcpiError> for BootError {
    fn from(error: AcpiError) -> Self {
        Self::Acpi(error)
    }
}

/// What the first part of the boot leaves for the second, which runs on the final stack.
struct Found {
    memory: PhysicalMemory,
    info: boot_info::BootInfo,
    tables: paging::AddressSpace,
}

static FOUND: Mutex<Option<Found>> = Mutex::new(None);

/// The first Rust code, on the boot stack, in the boot loader's address layout.
#[unsafe(no_mangle)]
extern "sysv64" fn boot_main(magic: u32, information: u64) -> ! {
    // SAFETY: nothing else drives COM1.
    hypervisor::console::attach(unsafe { Serial::com1() });
    logger::start();
    info!("Understudy {}", env!("CARGO_PKG_VERSION"));
    match prepare(magic, information) {
        Ok(found) => {
            let top = found.tables.first_stack();
            *FOUND.lock() = Some(found);
            // SAFETY: the address space is active, so the stack is mapped and unused.
            unsafe { continue_on_stack(top, boot_on_own_stack) }
        }
        Err(reason) => give_up(&reason),
    }
}

/// Memory, heap and address space.
fn prepare(magic: u32, information: u64) -> Result<Found, BootError> {
    if magic != multiboot2::MAGIC {
        return Err(BootError::NotMultiboot2(magic));
    }
    // SAFETY: the boot loader gave this address, below 4 GiB, where the first tables map memory.
    let information = unsafe { boot_info::load(DIRECT_MAP.pointer(information)) }?;
    let heap = boot_info::find_heap(&information, paging::image(), HEAP_SIZE)?;
    // SAFETY: free RAM by the memory map, mapped by the first tables, used by nothing else.
    unsafe { HEAP.init(DIRECT_MAP.pointer(heap), HEAP_SIZE as usize) };
    let mut free = boot_info::free_memory(&information, paging::image());
    free.remove(heap..heap + HEAP_SIZE);
    let info = boot_info::BootInfo::copy(&information);
    // SAFETY: what is left is RAM that nothing uses; until the final tables are active only the part
    // below 4 GiB is mapped, and `AddressSpace::build` takes frames from there only.
    let mut memory = unsafe { PhysicalMemory::new(free, DIRECT_MAP) };
    let tables = paging::AddressSpace::build(&mut memory, &info.ram)?;
    // SAFETY: the new tables map the image, the boot stack and the heap where they are now.
    unsafe { tables.activate() };
    Ok(Found {
        memory,
        info,
        tables,
    })
}

/// The rest of the boot, on the first processor's guarded stack.
extern "sysv64" fn boot_on_own_stack() -> ! {
    let Some(found) = FOUND.lock().take() else {
        unreachable!("boot_main fills it")
    };
    match discover(found) {
        Ok(()) => processors::enter_first(),
        Err(reason) => give_up(&reason),
    }
}

fn discover(found: Found) -> Result<(), BootError> {
    let Found {
        mut memory,
        info,
        mut tables,
    } = found;
    logger::obey(&info.command_line);
    interrupts::set_up(0, tables.first_stacks());
    // SAFETY: the 8259s are the board's and nobody uses them.
    unsafe { drivers::pic::silence(PIC_VECTORS) };
    for area in &info.ram {
        info!(
            "memory: {:#012x} to {:#012x} {}",
            area.range.start, area.range.end, area.kind
        );
    }

    let board = acpi_tables::read(&info, &mut tables, &mut memory)?;
    let apic = LocalApic::physical_base();
    let apic_page = tables.map_device(apic..apic + LocalApic::BYTES, &mut memory)?;
    // SAFETY: mapped just now for good; the boot code owns the APICs.
    let local_apic = unsafe { LocalApic::new(apic_page.cast()) };
    panic::remember_apic(local_apic);
    local_apic.enable(hypervisor::vector::SPURIOUS);
    let mut io_apics = Vec::new();
    for io_apic in &board.io_apics {
        let registers = io_apic.address..io_apic.address + IoApic::BYTES;
        let page = tables.map_device(registers, &mut memory)?;
        // SAFETY: mapped just now for good; the address is from the MADT.
        io_apics.push(unsafe { IoApic::new(page.cast(), io_apic.first_input) });
    }

    // SAFETY: the boot code owns the 8254; the PM timer's port is from the FADT.
    let calibration = unsafe { tsc::calibrate(board.pm_timer) }.ok_or(BootError::NoTimer)?;
    info!("TSC: {} Hz", calibration.hz);
    if let Some(other) = calibration.pm_timer_hz
        && other.abs_diff(calibration.hz) > calibration.hz / 500
    {
        warn!("TSC: the PM timer says {other} Hz");
    }
    logger::set_frequency(calibration.hz);
    // SAFETY: the boot code owns the clock chip.
    let wall_clock = unsafe { drivers::rtc::unix_time() };
    let wall_clock_tsc = tsc::read();

    if !tsc::is_invariant() {
        warn!(
            "TSC: the processor does not promise a constant rate; deep idle states would stop guests' clocks"
        );
    }
    let cpus = processors::start_others(
        &board.cpus,
        &info.ram,
        local_apic,
        &mut tables,
        &mut memory,
        calibration.hz,
    )?;
    panic::remember_processors(&cpus);
    info!("processors: {} of {} run", cpus.len(), board.cpus.len());
    let nics = nics::find(&mut tables, &mut memory, calibration.hz)?;
    let own = paging::image();
    let host = Host {
        tsc_hz: calibration.hz,
        // SAFETY: written once, by the entry code, long ago.
        entry_tsc: unsafe { entry_tsc },
        wall_clock,
        wall_clock_tsc,
        image_bytes: own.end - own.start + HEAP_SIZE,
        memory,
        modules: info.modules,
        cpus,
        local_apic,
        interrupts: Interrupts::new(io_apics, board.overrides),
        soft_off: board.soft_off,
        nics,
    };
    hypervisor::start(host).map_err(BootError::Start)
}

/// The end of a boot that cannot go on.
fn give_up(reason: &BootError) -> ! {
    error!("cannot start: {reason}");
    panic::stop_others();
    panic::stop_here()
}
