//! INS and OUTS, one element per exit: the instruction is left only when its count has run out, so
//! interrupts come in between as on hardware.

use super::exits::{Crash, device_width};
use crate::memory::GuestMemory;
use crate::translate::{Access, translate};
use devices::{Effects, Pc, Ticks};
use vmx::{Active, Direction, IoAccess};

const RFLAGS_DF: u64 = 1 << 10;

/// Does one element.
pub(super) fn step(
    active: &mut Active<'_>,
    access: IoAccess,
    memory: &mut GuestMemory,
    pc: &mut Pc,
    now: Ticks,
    effects: &mut impl Effects,
) -> Result<(), Crash> {
    let mask = match active.string_address_bits()? {
        16 => 0xffff,
        32 => 0xffff_ffff,
        _ => u64::MAX,
    };
    if access.is_repeated() && active.gprs().rcx & mask == 0 {
        return Ok(active.skip_instruction()?);
    }
    let count = access.width().bytes() as usize;
    let paging = active.paging()?;
    let how = Access {
        write: access.direction() == Direction::In,
        user: active.privilege_level()? == 3,
    };
    let linear = active.string_address()?;
    // An element may cross a page, so each byte is translated, all of them before the port is touched.
    let mut physical = [0; 4];
    for (index, address) in physical.iter_mut().take(count).enumerate() {
        let linear = linear.wrapping_add(index as u64);
        match translate(&paging, memory, linear, how) {
            Ok(found) if found < memory.size() => *address = found,
            Ok(found) => return Err(Crash::StringIoOutside(found)),
            Err(fault) => return Ok(active.inject_page_fault(linear, fault.code)?),
        }
    }
    let width = device_width(access.width());
    let mut bytes = [0; 4];
    match access.direction() {
        Direction::In => {
            bytes = pc.read(access.port(), width, now, effects).to_le_bytes();
            for (address, byte) in physical.iter().zip(&bytes).take(count) {
                memory
                    .write(*address, &[*byte])
                    .map_err(|_| Crash::StringIoOutside(*address))?;
            }
        }
        Direction::Out => {
            for (address, byte) in physical.iter().zip(&mut bytes).take(count) {
                let byte = core::slice::from_mut(byte);
                memory
                    .read(*address, byte)
                    .map_err(|_| Crash::StringIoOutside(*address))?;
            }
            pc.write(
                access.port(),
                width,
                u32::from_le_bytes(bytes),
                now,
                effects,
            );
        }
    }
    let delta = if active.rflags()? & RFLAGS_DF == 0 {
        count as u64
    } else {
        (count as u64).wrapping_neg()
    };
    let gprs = active.gprs_mut();
    let advance = |register: &mut u64, by: u64| {
        let moved = register.wrapping_add(by) & mask;
        // A 32-bit result clears the upper half in 64-bit mode; a 16-bit one leaves the rest alone.
        *register = if mask == 0xffff {
            *register & !mask | moved
        } else {
            moved
        };
    };
    match access.direction() {
        Direction::In => advance(&mut gprs.rdi, delta),
        Direction::Out => advance(&mut gprs.rsi, delta),
    }
    if access.is_repeated() {
        advance(&mut gprs.rcx, u64::MAX);
        if gprs.rcx & mask != 0 {
            return Ok(());
        }
    }
    Ok(active.skip_instruction()?)
}
