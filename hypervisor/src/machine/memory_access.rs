//! A guest's accesses to memory that exit: those that were not yet allowed, and those to a device that is mapped there.

use super::Machine;
use super::crash::Crash;
use super::platform::{Mapped, Platform};
use crate::memory::{GuestMemory, PhysicalMemory};
use crate::mmio::{self, Registers, Target};
use drivers::tsc;
use vcpu::{AccessKind, Active, GuestView, MemoryFault, SegmentRegister, ShellError};

/// The longest instruction in bytes.
pub(super) const INSTRUCTION_MAX: usize = 15;

/// An access to the guest's own memory that was only not yet allowed is allowed now: a fetch from a large page makes
/// it executable in small ones, and the first write to a page whose writes are tracked is noted. Returns whether it
/// was such a one.
pub(super) fn permit(
    active: &mut impl Active,
    machine: &Machine,
    frames: &spin::Mutex<PhysicalMemory>,
    fault: MemoryFault,
) -> Result<bool, Crash> {
    if !machine.memory.contains(fault.physical, 1) {
        return Ok(false);
    }
    let mut tables = machine.tables.lock();
    match fault.kind {
        AccessKind::Read => Ok(false),
        AccessKind::Write => {
            let noted = tables.note_write(fault.physical);
            if noted {
                machine.memory.mark(fault.physical);
                machine.heed_bound();
            }
            Ok(noted)
        }
        AccessKind::Fetch => {
            let allowed = tables.make_executable(fault.physical, &mut *frames.lock())?;
            if allowed {
                active.flush()?;
            }
            Ok(allowed)
        }
    }
}

/// Executes the instruction that touched the device.
pub(super) fn perform(
    active: &mut impl Active,
    memory: &GuestMemory,
    platform: &mut Platform<'_>,
    device: Mapped,
    fault: MemoryFault,
) -> Result<(), Crash> {
    let mut bytes = [0; INSTRUCTION_MAX];
    let bitness = active.code_bits()?;
    let count = fetch(active, memory, bitness, &mut bytes)?;
    let mut registers = Cpu {
        active,
        failure: None,
    };
    let mut target = Device {
        platform,
        device,
        physical: fault.physical,
    };
    let length =
        mmio::execute(&bytes[..count], bitness, &mut registers, &mut target).map_err(|what| {
            Crash::MappedAccess {
                what,
                bytes,
                address: fault.physical,
            }
        })?;
    match registers.failure {
        Some(failure) => Err(failure.into()),
        None => Ok(active.skip(u32::from(length))?),
    }
}

/// Reads the instruction that exited, in code of so many bits; returns how many bytes could be read.
fn fetch(
    active: &impl Active,
    memory: &GuestMemory,
    bitness: u32,
    bytes: &mut [u8; INSTRUCTION_MAX],
) -> Result<usize, Crash> {
    let mut linear = active.rip()?;
    // 64-bit code has no base.
    if bitness != 64 {
        linear = linear.wrapping_add(active.segment(SegmentRegister::Cs)?.base) & 0xffff_ffff;
    }
    let user = active.privilege_level()? == 3;
    match memory.code(&active.paging()?, user, linear, bytes) {
        0 => Err(Crash::CodeOutside(linear)),
        count => Ok(count),
    }
}

/// The vCPU as the instruction sees it. A register that cannot be read or written is noted, and ends the
/// guest afterwards.
struct Cpu<'a, A> {
    active: &'a mut A,
    failure: Option<ShellError>,
}

impl<A> Cpu<'_, A> {
    fn note<T: Default>(failure: &mut Option<ShellError>, result: Result<T, ShellError>) -> T {
        result.unwrap_or_else(|error| {
            *failure = Some(error);
            T::default()
        })
    }
}

impl<A: Active> Registers for Cpu<'_, A> {
    fn gpr(&self, encoding: u8) -> u64 {
        // RSP alone is kept by the processor, which can read it while the vCPU is active.
        self.active.gpr(encoding).unwrap_or(0)
    }

    fn set_gpr(&mut self, encoding: u8, value: u64) {
        let result = self.active.set_gpr(encoding, value);
        Self::note(&mut self.failure, result);
    }

    fn rflags(&self) -> u64 {
        self.active.rflags().unwrap_or(0)
    }

    fn set_rflags(&mut self, value: u64) {
        let result = self.active.set_rflags(value);
        Self::note(&mut self.failure, result);
    }
}

struct Device<'a, 'b> {
    platform: &'a mut Platform<'b>,
    device: Mapped,
    physical: u64,
}

impl Target for Device<'_, '_> {
    fn read(&mut self, size: u32) -> u64 {
        self.platform
            .mapped_read(self.device, self.physical, size, tsc::read())
    }

    fn write(&mut self, size: u32, value: u64) {
        self.platform
            .mapped_write(self.device, self.physical, size, value, tsc::read());
    }
}
