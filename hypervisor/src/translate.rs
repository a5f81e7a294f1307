//! Walking a guest's page tables (Intel SDM volume 3, chapter 4), for the few instructions whose
//! memory operand the hypervisor accesses on the guest's behalf.

use crate::memory::GuestMemory;
use vcpu::{GuestView, Paging};

const CR0_PG: u64 = 1 << 31;
const CR0_WP: u64 = 1 << 16;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const EFER_LMA: u64 = 1 << 10;
const EFER_NXE: u64 = 1 << 11;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// A page fault, with its error code (section 4.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageFault {
    pub(crate) code: u32,
}

/// How memory is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) write: bool,
    pub(crate) user: bool,
}

/// Error code: a reserved bit was set.
const RESERVED: u32 = 1 << 3;

/// The shape of one paging mode: index bits and entry size per level, root first.
struct Mode {
    levels: &'static [Level],
    root: u64,
    wide: bool,
}

struct Level {
    shift: u32,
    bits: u32,
    /// Whether an entry may map a large page here.
    large: bool,
    /// Whether entries carry permission and accessed bits (PAE's page-directory pointers do not).
    plain: bool,
}

const fn level(shift: u32, bits: u32, large: bool) -> Level {
    Level {
        shift,
        bits,
        large,
        plain: true,
    }
}

const LONG: [Level; 4] = [
    level(39, 9, false),
    level(30, 9, true),
    level(21, 9, true),
    level(12, 9, false),
];
const PAE: [Level; 3] = [
    Level {
        shift: 30,
        bits: 2,
        large: false,
        plain: false,
    },
    level(21, 9, true),
    level(12, 9, false),
];
const LEGACY_PSE: [Level; 2] = [level(22, 10, true), level(12, 10, false)];
const LEGACY: [Level; 2] = [level(22, 10, false), level(12, 10, false)];

impl Mode {
    fn of(paging: &Paging) -> Option<Self> {
        if paging.cr0 & CR0_PG == 0 {
            return None;
        }
        Some(if paging.efer & EFER_LMA != 0 {
            Self {
                levels: &LONG,
                root: paging.cr3 & ADDRESS,
                wide: true,
            }
        } else if paging.cr4 & CR4_PAE != 0 {
            Self {
                levels: &PAE,
                root: paging.cr3 & 0xffff_ffe0,
                wide: true,
            }
        } else {
            let levels = if paging.cr4 & CR4_PSE != 0 {
                &LEGACY_PSE
            } else {
                &LEGACY
            };
            Self {
                levels,
                root: paging.cr3 & 0xffff_f000,
                wide: false,
            }
        })
    }
}

/// Bits that must be zero in a present entry (tables 4-4 to 4-20). PAE's page-directory pointers were checked
/// when they were loaded, or, by AMD-V, as they were used.
fn reserved_bits(paging: &Paging, mode: &Mode, level: &Level, last: bool, leaf: bool) -> u64 {
    const HIGH: u64 = 0x7ff << 52;
    const NO_EXECUTE: u64 = 1 << 63;
    let beyond = ADDRESS & (u64::MAX << paging.physical_bits.min(63));
    let large = leaf && !last;
    if !mode.wide {
        // Bits 13 to 20 hold address bits 32 to 39.
        return if large {
            1 << 21 | (beyond >> 19) & 0x1f_e000
        } else {
            0
        };
    }
    if !level.plain {
        return 0;
    }
    let mut bits = beyond;
    if paging.efer & EFER_LMA == 0 {
        bits |= HIGH;
    }
    if paging.efer & EFER_NXE == 0 {
        bits |= NO_EXECUTE;
    }
    if large {
        bits |= ((1 << level.shift) - 1) & !0x1fff;
    } else if !last && !level.large {
        bits |= LARGE;
    }
    bits
}

impl GuestView for GuestMemory {
    fn code(&self, paging: &Paging, user: bool, linear: u64, bytes: &mut [u8]) -> usize {
        const PAGE: u64 = 4096;
        let how = Access { write: false, user };
        let mut done = 0;
        while done < bytes.len() {
            let at = linear.wrapping_add(done as u64);
            let in_page = (PAGE - at % PAGE) as usize;
            let part = in_page.min(bytes.len() - done);
            // What cannot be read was not executed: the instruction ends before.
            let Ok(physical) = translate(paging, self, at, how) else {
                break;
            };
            if self.read(physical, &mut bytes[done..done + part]).is_err() {
                break;
            }
            done += part;
        }
        done
    }

    fn page_directory_pointers(&self, physical: u64) -> Option<[u64; 4]> {
        let mut entries = [0; 4];
        for (entry, offset) in entries.iter_mut().zip([0, 8, 16, 24]) {
            *entry = self.read_u64(physical + offset).ok()?;
        }
        Some(entries)
    }
}

/// The guest-physical address of a linear one, with accessed and dirty bits set as the processor
/// would.
///
/// # Errors
///
/// [`PageFault`], to be raised in the guest.
pub(crate) fn translate(
    paging: &Paging,
    memory: &GuestMemory,
    linear: u64,
    access: Access,
) -> Result<u64, PageFault> {
    let Some(mode) = Mode::of(paging) else {
        return Ok(linear & 0xffff_ffff);
    };
    let fault = |present: bool| PageFault {
        code: u32::from(present) | (u32::from(access.write) << 1) | (u32::from(access.user) << 2),
    };
    let mut table = mode.root;
    let mut allowed = WRITABLE | USER;
    let mut visited = [None; 4];
    for (index, level) in mode.levels.iter().enumerate() {
        let slot = (linear >> level.shift) & ((1 << level.bits) - 1);
        let address = table + slot * if mode.wide { 8 } else { 4 };
        let entry = if mode.wide {
            memory.read_u64(address)
        } else {
            memory.read_u32(address).map(u64::from)
        }
        // Page tables outside the guest's memory read as nothing: not present.
        .unwrap_or(0);
        if entry & PRESENT == 0 {
            return Err(fault(false));
        }
        if level.plain {
            allowed &= entry;
            visited[index] = Some((address, entry));
        }
        let last = index + 1 == mode.levels.len();
        let leaf = last || (level.large && entry & LARGE != 0);
        if entry & reserved_bits(paging, &mode, level, last, leaf) != 0 {
            return Err(PageFault {
                code: fault(true).code | RESERVED,
            });
        }
        if !leaf {
            table = entry & ADDRESS;
            continue;
        }
        let read_only = allowed & WRITABLE == 0 && (access.user || paging.cr0 & CR0_WP != 0);
        if (access.user && allowed & USER == 0) || (access.write && read_only) {
            return Err(fault(true));
        }
        mark(memory, &visited, index, access.write);
        let offset = (1 << level.shift) - 1;
        // Bits 13 to 20 of a 4 MiB page's entry are address bits 32 to 39 (PSE-36).
        let high = if !mode.wide && !last {
            (entry & 0x1f_e000) << 19
        } else {
            0
        };
        return Ok(high | (entry & ADDRESS & !offset) | (linear & offset));
    }
    Err(fault(false))
}

fn mark(memory: &GuestMemory, visited: &[Option<(u64, u64)>; 4], leaf: usize, write: bool) {
    for (index, visit) in visited.iter().enumerate() {
        let Some((address, entry)) = visit else {
            continue;
        };
        let dirty = if write && index == leaf { DIRTY } else { 0 };
        let marked = entry | ACCESSED | dirty;
        if marked != *entry {
            // Both bits are in the first byte. The entry was just read from there.
            let _ = memory.write(*address, &[marked as u8]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::fake;

    const READ: Access = Access {
        write: false,
        user: false,
    };
    const WRITE: Access = Access {
        write: true,
        user: false,
    };
    const USER_READ: Access = Access {
        write: false,
        user: true,
    };

    fn memory() -> GuestMemory {
        let memory = fake::memory(0x10_0000);
        memory.scrub(0..u64::MAX);
        memory
    }

    fn paging(cr4: u64, efer: u64) -> Paging {
        Paging {
            cr0: CR0_PG | CR0_WP | 1,
            cr3: 0x1000,
            cr4,
            efer,
            physical_bits: 39,
        }
    }

    #[test]
    fn without_paging_addresses_are_physical() {
        let off = Paging {
            cr0: 1,
            cr3: 0,
            cr4: 0,
            efer: 0,
            physical_bits: 39,
        };
        assert_eq!(
            translate(&off, &memory(), 0x1234_5678, READ),
            Ok(0x1234_5678)
        );
    }

    #[test]
    fn two_levels_walk_and_mark() {
        let memory = memory();
        memory.write(0x1000 + 4, &0x2003_u32.to_le_bytes()).unwrap();
        memory.write(0x2000 + 8, &0x7001_u32.to_le_bytes()).unwrap();
        let linear = 0x0040_2abc;
        let mode = paging(CR4_PSE, 0);
        assert_eq!(translate(&mode, &memory, linear, READ), Ok(0x7abc));
        assert_eq!(memory.read_u32(0x1004), Ok(0x2023));
        assert_eq!(memory.read_u32(0x2008), Ok(0x7021));
        assert_eq!(
            translate(&mode, &memory, linear, WRITE),
            Err(PageFault { code: 3 })
        );
        assert_eq!(
            translate(&mode, &memory, linear, USER_READ),
            Err(PageFault { code: 5 })
        );
        assert_eq!(
            translate(&mode, &memory, 0, WRITE),
            Err(PageFault { code: 2 })
        );
        let unprotected = Paging {
            cr0: CR0_PG | 1,
            ..mode
        };
        assert_eq!(translate(&unprotected, &memory, linear, WRITE), Ok(0x7abc));
        assert_eq!(memory.read_u32(0x2008), Ok(0x7061));
    }

    #[test]
    fn large_pages_end_the_walk() {
        let memory = memory();
        memory
            .write(0x1000, &0x0080_0083_u32.to_le_bytes())
            .unwrap();
        assert_eq!(
            translate(&paging(CR4_PSE, 0), &memory, 0x12_3456, READ),
            Ok(0x92_3456)
        );
        // Without PSE the bit means nothing and the entry points to a table outside memory.
        assert_eq!(
            translate(&paging(0, 0), &memory, 0x12_3456, READ),
            Err(PageFault { code: 0 })
        );
    }

    #[test]
    fn reserved_bits_fault() {
        let memory = memory();
        for (cr4, efer, entry, reserved) in [
            (CR4_PSE, 0, 0x0020_0083_u64, true),
            (CR4_PSE, 0, 0x000f_e083, false),
            (CR4_PSE, 0, 0x0010_0083, true),
            (CR4_PAE, EFER_LMA, 1 << 38 | 1, false),
            (CR4_PAE, EFER_LMA, 1 << 39 | 1, true),
            (CR4_PAE, EFER_LMA, 1 << 52 | 1, false),
            (CR4_PAE, EFER_LMA, 1 << 63 | 1, true),
            (CR4_PAE, EFER_LMA | EFER_NXE, 1 << 63 | 1, false),
            (CR4_PAE, EFER_LMA, 0x81, true),
        ] {
            memory.write(0x1000, &entry.to_le_bytes()).unwrap();
            let found = translate(&paging(cr4, efer), &memory, 0, WRITE);
            let expected = Err(PageFault { code: 0xb });
            assert_eq!(found == expected, reserved, "{entry:#x} {found:?}");
        }
        // The second level of PAE: large pages and bits that only long mode leaves free.
        memory.write(0x1000, &0x2001_u64.to_le_bytes()).unwrap();
        for (entry, reserved) in [
            (0x0020_0083, false),
            (0x0020_2083, true),
            (1 << 52 | 0x83, true),
        ] {
            let entry: u64 = entry;
            memory.write(0x2000, &entry.to_le_bytes()).unwrap();
            let found = translate(&paging(CR4_PAE, 0), &memory, 0, WRITE);
            let expected = if reserved {
                Err(PageFault { code: 0xb })
            } else {
                Ok(0x20_0000)
            };
            assert_eq!(found, expected, "{entry:#x}");
        }
    }

    #[test]
    fn pae_and_long_mode_walk() {
        let memory = memory();
        memory
            .write(0x1000 + 3 * 8, &0x2001_u64.to_le_bytes())
            .unwrap();
        memory
            .write(0x2000 + 8, &0x0060_00e3_u64.to_le_bytes())
            .unwrap();
        assert_eq!(
            translate(&paging(CR4_PAE, 0), &memory, 0xc02a_bcde, WRITE),
            Ok(0x006a_bcde)
        );
        let memory = fake::memory(0x10_0000);
        memory.scrub(0..u64::MAX);
        for (at, value) in [
            (0x1000, 0x2007_u64),
            (0x2000, 0x3007),
            (0x3000, 0x4007),
            (0x4018, 0x9007),
        ] {
            memory.write(at, &value.to_le_bytes()).unwrap();
        }
        assert_eq!(
            translate(&paging(CR4_PAE, EFER_LMA), &memory, 0x3123, USER_READ),
            Ok(0x9123)
        );
    }
}
