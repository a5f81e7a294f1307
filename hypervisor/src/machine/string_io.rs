//! INS and OUTS, one element per exit: the instruction is left only when its count has run out, so
//! interrupts come in between as on hardware.
//!
//! A device that is driven by such instructions, a network card, takes many elements at once: those of
//! one page of memory, and no more than keep an exit short.

use super::crash::Crash;
use super::exits::device_width;
use crate::memory::GuestMemory;
use crate::translate::{Access, translate};
use devices::{Effects, Pc, Ticks};
use vcpu::{Active, Direction, Event, IoAccess, SegmentRegister};

const RFLAGS_TF: u64 = 1 << 8;
const RFLAGS_DF: u64 = 1 << 10;

const PAGE: u64 = 4096;
/// Most bytes that are moved at once.
const BURST: usize = 1024;

/// Does one element, or several for a device that takes them.
pub(super) fn step(
    active: &mut impl Active,
    access: IoAccess,
    memory: &GuestMemory,
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
    let size = access.width().bytes() as usize;
    let paging = active.paging()?;
    let how = Access {
        write: access.direction() == Direction::In,
        user: active.privilege_level()? == 3,
    };
    let (segment, offset) = operand(active, access)?;
    if !segment_allows(active, access, segment, offset & mask, size as u64)? {
        return Ok(active.inject(if segment == SegmentRegister::Ss {
            Event::STACK_FAULT
        } else {
            Event::GENERAL_PROTECTION
        })?);
    }
    let linear = active.string_address()?;
    // An element may cross a page, so each byte is translated, all of them before the port is touched.
    let mut physical = [0; 4];
    for (index, address) in physical.iter_mut().take(size).enumerate() {
        let linear = linear.wrapping_add(index as u64);
        match translate(&paging, memory, linear, how) {
            Ok(found) if found < memory.size() => *address = found,
            Ok(found) => return Err(Crash::StringIoOutside(found)),
            Err(fault) => return Ok(active.inject_page_fault(linear, fault.code)?),
        }
    }
    let flags = active.rflags()?;
    let mut moved = 0;
    if access.is_repeated()
        && flags & (RFLAGS_DF | RFLAGS_TF) == 0
        && pc.moves_strings(access.port())
    {
        let most = (PAGE - linear % PAGE)
            .min(memory.size() - physical[0])
            .min(mask - (offset & mask))
            .min(BURST as u64)
            / size as u64;
        let length = most.min(active.gprs().rcx & mask) * size as u64;
        if length > size as u64 && segment_allows(active, access, segment, offset & mask, length)? {
            let place = (physical[0], length as usize);
            moved = several(access, place, memory, pc, now, effects)?;
        }
    }
    if moved == 0 {
        one(access, &physical[..size], memory, pc, now, effects)?;
        moved = size;
    }
    let delta = if flags & RFLAGS_DF == 0 {
        moved as u64
    } else {
        (moved as u64).wrapping_neg()
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
        advance(&mut gprs.rcx, ((moved / size) as u64).wrapping_neg());
        if gprs.rcx & mask != 0 {
            // The next element is an instruction of its own as far as interrupts and traps go.
            return Ok(active.complete_iteration()?);
        }
    }
    Ok(active.skip_instruction()?)
}

/// Moves one element between the port and these bytes of guest memory.
fn one(
    access: IoAccess,
    physical: &[u64],
    memory: &GuestMemory,
    pc: &mut Pc,
    now: Ticks,
    effects: &mut impl Effects,
) -> Result<(), Crash> {
    let width = device_width(access.width());
    let mut bytes = [0; 4];
    match access.direction() {
        Direction::In => {
            bytes = pc.read(access.port(), width, now, effects).to_le_bytes();
            for (address, byte) in physical.iter().zip(&bytes) {
                memory
                    .write(*address, &[*byte])
                    .map_err(|_| Crash::StringIoOutside(*address))?;
            }
        }
        Direction::Out => {
            for (address, byte) in physical.iter().zip(&mut bytes) {
                let byte = core::slice::from_mut(byte);
                memory
                    .read(*address, byte)
                    .map_err(|_| Crash::StringIoOutside(*address))?;
            }
            let value = u32::from_le_bytes(bytes);
            pc.write(access.port(), width, value, now, effects);
        }
    }
    Ok(())
}

/// Moves up to `length` bytes, elements that lie one behind the other in guest memory, at once. Returns how many the
/// device moved, which may be none.
fn several(
    access: IoAccess,
    (address, length): (u64, usize),
    memory: &GuestMemory,
    pc: &mut Pc,
    now: Ticks,
    effects: &mut impl Effects,
) -> Result<usize, Crash> {
    let outside = |_| Crash::StringIoOutside(address);
    let width = device_width(access.width());
    let mut buffer = [0; BURST];
    let bytes = &mut buffer[..length];
    Ok(match access.direction() {
        Direction::In => {
            let moved = pc.read_string(access.port(), width, bytes, now, effects);
            memory.write(address, &bytes[..moved]).map_err(outside)?;
            moved
        }
        Direction::Out => {
            memory.read(address, bytes).map_err(outside)?;
            pc.write_string(access.port(), width, bytes, now)
        }
    })
}

/// Segment and offset of the memory operand.
fn operand(active: &impl Active, access: IoAccess) -> Result<(SegmentRegister, u64), Crash> {
    Ok(match access.direction() {
        Direction::In => (SegmentRegister::Es, active.gprs().rdi),
        Direction::Out => (active.string_segment()?, active.gprs().rsi),
    })
}

/// Whether the segment of the memory operand allows the access to `length` bytes. The exit comes before the processor
/// has looked (Intel SDM volume 3, section 26.1.1). 64-bit segments have no limits.
fn segment_allows(
    active: &impl Active,
    access: IoAccess,
    register: SegmentRegister,
    offset: u64,
    length: u64,
) -> Result<bool, Crash> {
    const UNUSABLE: u32 = 1 << 16;
    const CODE: u32 = 1 << 3;
    const EXPAND_DOWN: u32 = 1 << 2;
    const WRITABLE_OR_READABLE: u32 = 1 << 1;
    const BIG: u32 = 1 << 14;
    if active.is_64_bit()? {
        return Ok(true);
    }
    let writes = access.direction() == Direction::In;
    let segment = active.segment(register)?;
    let code = segment.access & CODE != 0;
    let able = segment.access & WRITABLE_OR_READABLE != 0;
    if segment.access & UNUSABLE != 0 || (writes && (code || !able)) || (code && !able) {
        return Ok(false);
    }
    let first = offset & 0xffff_ffff;
    let last = first + length - 1;
    let limit = u64::from(segment.limit);
    Ok(if !code && segment.access & EXPAND_DOWN != 0 {
        let top = if segment.access & BIG != 0 {
            0xffff_ffff
        } else {
            0xffff
        };
        first > limit && last <= top
    } else {
        last <= limit
    })
}
