//! Control registers and IA32_EFER: what a guest may set, and what follows from it.
//!
//! Each change checks what the processor would (Intel SDM volume 3, sections 2.5, 4.4.1 and 27.3.1; AMD APM
//! volume 2, sections 3.1 and 15.5.1): what it let through would otherwise fail the next entry.

use x86_64::registers::control::{Cr0Flags, Cr4Flags, EferFlags};

/// The guest's paging configuration, for walks of its page tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paging {
    /// CR0 as the guest sees it.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4 as the guest sees it.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// Width of physical addresses in bits (MAXPHYADDR).
    pub physical_bits: u32,
}

/// What a write of CR0 depends on beside the control registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeAndTask {
    /// CS.L is set.
    pub long_code: bool,
    /// The task register holds a 16-bit TSS.
    pub task_16: bool,
}

impl Paging {
    fn pages(&self) -> bool {
        self.cr0 & Cr0Flags::PAGING.bits() != 0
    }

    fn is_long(&self) -> bool {
        self.efer & EferFlags::LONG_MODE_ACTIVE.bits() != 0
    }

    /// Whether 32-bit PAE paging is on, whose four page-directory pointers are loaded ahead.
    #[must_use]
    pub fn uses_pdptes(&self) -> bool {
        self.pages()
            && self.cr4 & Cr4Flags::PHYSICAL_ADDRESS_EXTENSION.bits() != 0
            && !self.is_long()
    }

    /// The configuration after MOV to CR0 with this value; `None` for #GP(0).
    #[must_use]
    pub fn with_cr0(&self, raw: u64, code: CodeAndTask) -> Option<Self> {
        const KNOWN: u64 = Cr0Flags::all().bits();
        let flags = Cr0Flags::from_bits_truncate(raw);
        let paging = flags.contains(Cr0Flags::PAGING);
        if raw >> 32 != 0
            || (!paging
                && ((self.is_long() && code.long_code) || self.cr4 & Cr4Flags::PCID.bits() != 0))
            || (paging && !flags.contains(Cr0Flags::PROTECTED_MODE_ENABLE))
            || (flags.contains(Cr0Flags::NOT_WRITE_THROUGH)
                && !flags.contains(Cr0Flags::CACHE_DISABLE))
        {
            return None;
        }
        let mut efer = self.efer;
        if paging && !self.pages() && efer & EferFlags::LONG_MODE_ENABLE.bits() != 0 {
            let pae = self.cr4 & Cr4Flags::PHYSICAL_ADDRESS_EXTENSION.bits() != 0;
            if !pae || code.long_code || code.task_16 {
                return None;
            }
            efer |= EferFlags::LONG_MODE_ACTIVE.bits();
        } else if !paging {
            efer &= !EferFlags::LONG_MODE_ACTIVE.bits();
        }
        Some(Self {
            cr0: raw & KNOWN | Cr0Flags::EXTENSION_TYPE.bits(),
            efer,
            ..*self
        })
    }

    /// The configuration after MOV to CR4 with this value, where the bits in `allowed` exist; `None` for #GP(0).
    #[must_use]
    pub fn with_cr4(&self, value: u64, allowed: u64) -> Option<Self> {
        let pae = Cr4Flags::PHYSICAL_ADDRESS_EXTENSION.bits();
        let pcid_rises = value & !self.cr4 & Cr4Flags::PCID.bits() != 0;
        let refused = value & !allowed != 0
            || (self.is_long() && value & pae == 0)
            || (pcid_rises && (!self.is_long() || self.cr3 & 0xfff != 0));
        (!refused).then_some(Self {
            cr4: value,
            ..*self
        })
    }

    /// The configuration after WRMSR to IA32_EFER with this value; `None` for #GP(0).
    #[must_use]
    pub fn with_efer(&self, value: u64) -> Option<Self> {
        const GUEST: u64 = EferFlags::SYSTEM_CALL_EXTENSIONS.bits()
            | EferFlags::LONG_MODE_ENABLE.bits()
            | EferFlags::NO_EXECUTE_ENABLE.bits();
        const ACTIVE: u64 = EferFlags::LONG_MODE_ACTIVE.bits();
        let toggles_lme = (value ^ self.efer) & EferFlags::LONG_MODE_ENABLE.bits() != 0;
        let refused = value & !(GUEST | ACTIVE) != 0 || (self.pages() && toggles_lme);
        (!refused).then_some(Self {
            efer: (value & GUEST) | (self.efer & ACTIVE),
            ..*self
        })
    }

    /// Whether a change from `before` to this loads the page-directory pointers (section 4.4.1).
    #[must_use]
    pub fn loads_pdptes(&self, before: &Self) -> bool {
        self.uses_pdptes() && !(before.uses_pdptes() && before == self)
    }

    /// Where in guest-physical memory the page-directory pointers are.
    #[must_use]
    pub fn pdptes_at(&self) -> u64 {
        self.cr3 & 0xffff_ffe0
    }

    /// Whether these page-directory pointers can be loaded.
    #[must_use]
    pub fn takes_pdptes(&self, entries: &[u64; 4]) -> bool {
        const PRESENT: u64 = 1;
        const RESERVED_LOW: u64 = 0x1e6;
        let reserved = RESERVED_LOW | !((1 << self.physical_bits) - 1);
        entries
            .iter()
            .all(|entry| entry & PRESENT == 0 || entry & reserved == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PE: u64 = 1;
    const PG: u64 = 1 << 31;
    const PAE: u64 = 1 << 5;
    const LME: u64 = 1 << 8;
    const LMA: u64 = 1 << 10;
    const FLAT: CodeAndTask = CodeAndTask {
        long_code: false,
        task_16: false,
    };

    fn off() -> Paging {
        Paging {
            cr0: 0x11,
            cr3: 0x1000,
            cr4: 0,
            efer: 0,
            physical_bits: 40,
        }
    }

    #[test]
    fn long_mode_begins_with_paging_and_ends_with_it() {
        let ready = off().with_cr4(PAE, PAE).unwrap().with_efer(LME).unwrap();
        assert_eq!(ready.efer, LME);
        let long = ready.with_cr0(PG | PE, FLAT).unwrap();
        assert_eq!(long.efer, LME | LMA);
        assert!(!long.uses_pdptes());
        assert_eq!(long.with_efer(0), None);
        assert_eq!(long.with_cr4(0, PAE), None);
        let long_code = CodeAndTask {
            long_code: true,
            ..FLAT
        };
        assert_eq!(long.with_cr0(PE, long_code), None);
        assert_eq!(long.with_cr0(PE, FLAT).unwrap().efer, LME);
        assert_eq!(ready.with_cr0(PG | PE, long_code), None);
        let task_16 = CodeAndTask {
            task_16: true,
            ..FLAT
        };
        assert_eq!(ready.with_cr0(PG | PE, task_16), None);
        assert_eq!(off().with_efer(LME).unwrap().with_cr0(PG | PE, FLAT), None);
    }

    #[test]
    fn impossible_values_are_refused() {
        assert_eq!(off().with_cr0(PG, FLAT), None);
        assert_eq!(off().with_cr0(1 << 32, FLAT), None);
        assert_eq!(off().with_cr0(PE | 1 << 29, FLAT), None);
        assert_eq!(off().with_cr4(1 << 13, PAE), None);
        assert_eq!(off().with_efer(1 << 12), None);
    }

    #[test]
    fn page_directory_pointers_are_loaded_when_paging_changes() {
        let pae = off().with_cr4(PAE, PAE).unwrap();
        let on = pae.with_cr0(PG | PE, FLAT).unwrap();
        assert!(on.loads_pdptes(&pae));
        assert!(!on.loads_pdptes(&on));
        assert!(on.takes_pdptes(&[0x2001, 0, 2, 0xff_ffff_f001]));
        assert!(!on.takes_pdptes(&[0x2003, 0, 0, 0]));
        assert!(!on.takes_pdptes(&[1 << 40 | 1, 0, 0, 0]));
    }
}
