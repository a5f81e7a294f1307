//! The bits of the entries.

use bitflags::bitflags;

bitflags! {
    /// What a guest may do with a page.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Permissions: u64 {
        /// Read.
        const READ = 1 << 0;
        /// Write.
        const WRITE = 1 << 1;
        /// Fetch instructions.
        const EXECUTE = 1 << 2;
        /// All of these.
        const ALL = 0b111;
    }
}

/// The entry maps a large page, in either encoding.
pub(super) const LARGE: u64 = 1 << 7;
/// Ours, as all bits from here on are (processors ignore them in either encoding): the page may be executed once it is
/// made of 4 KiB pages.
pub(super) const EXECUTABLE_WHEN_SMALL: u64 = 1 << 52;
/// The page may be written, and is protected only so that the first write is noticed.
pub(super) const WRITABLE_WHEN_NOTED: u64 = 1 << 53;

/// Whose entries they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Intel's: permissions as in [`Permissions`], the memory type in each leaf.
    Extended,
    /// AMD's: entries of ordinary page tables, walked as for user accesses.
    Nested,
}

/// Bits of AMD's entries (APM volume 2, section 5.3).
mod page {
    pub(super) const PRESENT: u64 = 1 << 0;
    pub(super) const WRITABLE: u64 = 1 << 1;
    pub(super) const USER: u64 = 1 << 2;
    pub(super) const ACCESSED: u64 = 1 << 5;
    pub(super) const DIRTY: u64 = 1 << 6;
    pub(super) const NO_EXECUTE: u64 = 1 << 63;
}

impl Encoding {
    /// A table that everything may be reached through.
    pub(super) const fn table(self, address: u64) -> u64 {
        // READ, WRITE and EXECUTE here, PRESENT, WRITABLE and USER there.
        address | 0b111
    }

    /// A leaf for a page of ordinary memory (write-back).
    pub(super) const fn leaf(self, address: u64, permissions: Permissions) -> u64 {
        const WRITE_BACK: u64 = 6 << 3;
        let bits = self.permission_bits(permissions);
        match self {
            Self::Extended => address | bits | WRITE_BACK,
            // The host's PAT has write-back as its first type.
            Self::Nested => address | bits,
        }
    }

    pub(super) const fn permission_bits(self, permissions: Permissions) -> u64 {
        match self {
            Self::Extended => permissions.bits(),
            Self::Nested => {
                let mut bits = 0;
                if permissions.contains(Permissions::READ) {
                    bits |= page::PRESENT | page::USER;
                }
                if permissions.contains(Permissions::WRITE) {
                    bits |= page::WRITABLE;
                }
                if !permissions.contains(Permissions::EXECUTE) {
                    bits |= page::NO_EXECUTE;
                }
                bits
            }
        }
    }

    pub(super) const fn is_present(self, entry: u64) -> bool {
        match self {
            Self::Extended => entry & Permissions::ALL.bits() != 0,
            Self::Nested => entry & page::PRESENT != 0,
        }
    }

    pub(super) const fn permissions(self, entry: u64) -> Permissions {
        match self {
            Self::Extended => Permissions::from_bits_truncate(entry),
            Self::Nested => {
                let mut found = Permissions::READ;
                if entry & page::WRITABLE != 0 {
                    found = found.union(Permissions::WRITE);
                }
                if entry & page::NO_EXECUTE == 0 {
                    found = found.union(Permissions::EXECUTE);
                }
                found
            }
        }
    }

    /// The bit with which an entry lets a page be written.
    pub(super) const fn writable(self) -> u64 {
        match self {
            Self::Extended => Permissions::WRITE.bits(),
            Self::Nested => page::WRITABLE,
        }
    }

    /// The bit that the processor sets in an entry of any level as it uses it.
    pub(super) const fn accessed(self) -> u64 {
        match self {
            Self::Extended => 1 << 8,
            Self::Nested => page::ACCESSED,
        }
    }

    /// The bit that the processor sets in a leaf as it writes to its page.
    pub(super) const fn dirty(self) -> u64 {
        match self {
            Self::Extended => 1 << 9,
            Self::Nested => page::DIRTY,
        }
    }
}

/// How tables are written for a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Whose entries they are.
    pub encoding: Encoding,
    /// There are leaves of 2 MiB.
    pub pages_2m: bool,
    /// There are leaves of 1 GiB.
    pub pages_1g: bool,
    /// The processor sets accessed and dirty bits.
    pub accessed_dirty: bool,
    /// The processor can log the pages whose dirty bits it sets ([`WriteLog`](crate::WriteLog)).
    pub write_log: bool,
    /// Large pages may be executable (see [`NestedTables::make_executable`](super::NestedTables::make_executable)).
    pub large_executable: bool,
}
