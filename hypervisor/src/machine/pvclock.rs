//! A paravirtual clock, for guests that cannot rely on their TSC: KVM's (Linux, Documentation/virt/kvm/x86/msr.rst).
//!
//! The guest names a page for each vCPU, where it finds how its TSC becomes nanoseconds. Guest time runs at one rate
//! and the TSC is that plus a constant, so what is written there stays true until the guest sets its TSC.

use crate::memory::{GuestMemory, OutOfBounds};
use devices::Ticks;

/// MSR_KVM_WALL_CLOCK_NEW: where to write the wall clock at guest time zero.
pub(crate) const WALL_CLOCK: u32 = 0x4b56_4d00;
/// MSR_KVM_SYSTEM_TIME_NEW: where this vCPU's clock is, and whether it is in use.
pub(crate) const SYSTEM_TIME: u32 = 0x4b56_4d01;
/// The last of this clock's MSRs.
pub(crate) const LAST: u32 = SYSTEM_TIME;

/// Bit 0 of the system time MSR: in use.
const ENABLED: u64 = 1;
/// The flag that all vCPUs' clocks agree.
const STABLE: u8 = 1;
const NANOSECONDS: u64 = 1_000_000_000;

/// What makes a difference of the TSC nanoseconds: it is shifted left, then multiplied and divided by 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scale {
    multiplier: u32,
    /// Negative to the right.
    shift: i8,
}

impl Scale {
    /// For a TSC of this frequency in Hz.
    fn new(tsc_hz: u64) -> Self {
        let hz = tsc_hz.max(1);
        let mut shift = 0_i8;
        // The multiplier, 2^(32 - shift) * 10^9 / hz, is to use all of its 32 bits.
        let multiplier = |shift: i8| {
            let one = u128::from(NANOSECONDS) << 64;
            (one / u128::from(hz)) >> (32 + i32::from(shift))
        };
        while multiplier(shift) > u128::from(u32::MAX) {
            shift += 1;
        }
        while multiplier(shift) <= u128::from(u32::MAX) / 2 && shift > -31 {
            shift -= 1;
        }
        Self {
            multiplier: multiplier(shift) as u32,
            shift,
        }
    }
}

/// The page that a guest reads its clock from (`struct pvclock_vcpu_time_info`): its first 32 bytes.
fn time_info(version: u32, tsc_hz: u64, tsc: u64, now: Ticks) -> [u8; 32] {
    let scale = Scale::new(tsc_hz);
    let nanoseconds = u128::from(now.0) * u128::from(NANOSECONDS) / u128::from(tsc_hz.max(1));
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&version.to_le_bytes());
    bytes[8..16].copy_from_slice(&tsc.to_le_bytes());
    bytes[16..24].copy_from_slice(&(nanoseconds as u64).to_le_bytes());
    bytes[24..28].copy_from_slice(&scale.multiplier.to_le_bytes());
    bytes[28] = scale.shift.to_le_bytes()[0];
    bytes[29] = STABLE;
    bytes
}

/// Writes a vCPU's clock where `msr`, a value of [`SYSTEM_TIME`], says; `tsc` is what the guest's TSC reads at `now`.
///
/// # Errors
///
/// [`OutOfBounds`] where that is no memory of the guest's.
pub(super) fn write_system_time(
    memory: &GuestMemory,
    msr: u64,
    tsc_hz: u64,
    tsc: u64,
    now: Ticks,
) -> Result<(), OutOfBounds> {
    if msr & ENABLED == 0 {
        return Ok(());
    }
    let address = msr & !ENABLED;
    // The version is odd while the rest changes, and another one afterwards.
    let before = memory.read_u32(address)?;
    let changing = before | 1;
    memory.write(address, &changing.to_le_bytes())?;
    let version = changing.wrapping_add(1);
    let info = time_info(version, tsc_hz, tsc, now);
    memory.write(address + 4, &info[4..])?;
    memory.write(address, &info[..4])
}

/// Writes the wall clock at guest time zero, in Unix seconds, to `address` (`struct pvclock_wall_clock`).
///
/// # Errors
///
/// [`OutOfBounds`] where that is no memory of the guest's.
pub(super) fn write_wall_clock(
    memory: &GuestMemory,
    address: u64,
    seconds: u64,
) -> Result<(), OutOfBounds> {
    let mut bytes = [0; 12];
    bytes[0] = 2;
    bytes[4..8].copy_from_slice(&(seconds as u32).to_le_bytes());
    memory.write(address, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::fake;
    use proptest::prelude::*;

    /// What Linux makes of the page (`__pvclock_read_cycles`).
    fn guest_reads(info: &[u8; 32], tsc: u64) -> u64 {
        let word = |at: usize| u64::from_le_bytes(info[at..at + 8].try_into().expect("8 bytes"));
        let delta = tsc.wrapping_sub(word(8));
        let multiplier = u128::from(word(24) as u32);
        let shift = i8::from_le_bytes([info[28]]);
        let shifted = if shift < 0 {
            delta >> -shift
        } else {
            delta << shift
        };
        word(16) + ((u128::from(shifted) * multiplier) >> 32) as u64
    }

    proptest! {
        #[test]
        fn the_guest_reads_nanoseconds(
            hz in 3_600_000_u64..10_000_000_000, now in 0_u64..1 << 50, passed in 0_u64..1 << 40, adjust: u64,
        ) {
            let info = time_info(2, hz, now.wrapping_add(adjust), Ticks(now));
            let read = guest_reads(&info, now.wrapping_add(adjust).wrapping_add(passed));
            let right = u128::from(now + passed) * u128::from(NANOSECONDS) / u128::from(hz);
            // A part in 2^31 of what has passed since, and what is lost by rounding.
            let slack = u128::from(passed) * u128::from(NANOSECONDS) / u128::from(hz) / (1 << 30) + 4;
            prop_assert!(u128::from(read).abs_diff(right) <= slack, "{read} for {right}");
        }
    }

    #[test]
    fn a_clock_is_written_where_the_guest_says() {
        let memory = fake::memory(0x2000);
        memory.scrub(0..0x2000);
        write_system_time(&memory, 0x1000 | ENABLED, 50_000_000, 77, Ticks(50_000_000)).unwrap();
        assert_eq!(memory.read_u32(0x1000), Ok(2));
        assert_eq!(memory.read_u64(0x1008), Ok(77));
        assert_eq!(memory.read_u64(0x1010), Ok(NANOSECONDS));
        write_system_time(&memory, 0x1000 | ENABLED, 50_000_000, 99, Ticks(50_000_000)).unwrap();
        assert_eq!(memory.read_u32(0x1000), Ok(4));
        assert!(write_system_time(&memory, 0x1ff1, 50_000_000, 0, Ticks(0)).is_err());
        // One that is not in use is not written.
        assert!(write_system_time(&memory, 0x10_0000, 50_000_000, 0, Ticks(0)).is_ok());
        write_wall_clock(&memory, 0x20, 1_000_000_000).unwrap();
        assert_eq!(memory.read_u64(0x20), Ok(1_000_000_000 << 32 | 2));
    }
}
