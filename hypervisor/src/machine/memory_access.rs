//! A guest's access to a device that is mapped into its memory.

use super::crash::Crash;
use super::platform::{Mapped, Platform};
use crate::memory::GuestMemory;
use crate::mmio::{self, Registers, Target};
use drivers::tsc;
use vcpu::{Active, GuestView, MemoryFault, SegmentRegister, ShellError};

/// The longest instruction in bytes.
pub(super) const INSTRUCTION_MAX: usize = 15;

/// Executes the instruction that touched the device.
pub(super) fn perform(
    active: &mut impl Active,
    memory: &GuestMemory,
    platform: &mut Platform<'_>,
    device: Mapped,
    fault: MemoryFault,
) -> Result<(), Crash> {
    let mut bytes = [0; INSTRUCTION_MAX];
    let count = fetch(active, memory, &mut bytes)?;
    let bitness = active.code_bits()?;
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

/// Reads the instruction that exited; returns how many bytes could be read.
fn fetch(
    active: &impl Active,
    memory: &GuestMemory,
    bytes: &mut [u8; INSTRUCTION_MAX],
) -> Result<usize, Crash> {
    let rip = active.rip()?;
    let linear = if active.is_64_bit()? {
        rip
    } else {
        rip.wrapping_add(active.segment(SegmentRegister::Cs)?.base) & 0xffff_ffff
    };
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
