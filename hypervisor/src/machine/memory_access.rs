//! A guest's access to a device that is mapped into its memory.

use super::crash::Crash;
use super::platform::{Mapped, Platform};
use crate::memory::GuestMemory;
use crate::mmio::{self, Registers, Target};
use crate::translate::{Access, translate};
use drivers::tsc;
use vmx::{Active, MemoryFault, SegmentRegister, VmcsError};

/// The longest instruction in bytes.
pub(super) const INSTRUCTION_MAX: usize = 15;

/// Executes the instruction that touched the device.
pub(super) fn perform(
    active: &mut Active<'_>,
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
    active: &Active<'_>,
    memory: &GuestMemory,
    bytes: &mut [u8; INSTRUCTION_MAX],
) -> Result<usize, Crash> {
    const PAGE: u64 = 4096;
    let paging = active.paging()?;
    let how = Access {
        write: false,
        user: active.privilege_level()? == 3,
    };
    let start = active
        .rip()?
        .wrapping_add(active.segment(SegmentRegister::Cs)?.base);
    let mut done = 0;
    while done < INSTRUCTION_MAX {
        let linear = start.wrapping_add(done as u64);
        let in_page = (PAGE - linear % PAGE) as usize;
        let part = in_page.min(INSTRUCTION_MAX - done);
        // What cannot be read was not executed: the instruction ends before.
        let Ok(physical) = translate(&paging, memory, linear, how) else {
            break;
        };
        if memory
            .read(physical, &mut bytes[done..done + part])
            .is_err()
        {
            if done == 0 {
                return Err(Crash::CodeOutside(physical));
            }
            break;
        }
        done += part;
    }
    Ok(done)
}

/// The vCPU as the instruction sees it. A VMCS that cannot be read or written is noted, and ends the
/// guest afterwards.
struct Cpu<'a, 'b> {
    active: &'a mut Active<'b>,
    failure: Option<VmcsError>,
}

impl Cpu<'_, '_> {
    fn note<T: Default>(failure: &mut Option<VmcsError>, result: Result<T, VmcsError>) -> T {
        result.unwrap_or_else(|error| {
            *failure = Some(error);
            T::default()
        })
    }
}

impl Registers for Cpu<'_, '_> {
    fn gpr(&self, encoding: u8) -> u64 {
        // RSP alone is in the VMCS, whose guest fields are readable while it is current.
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
