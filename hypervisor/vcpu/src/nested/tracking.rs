//! Which pages of its memory a guest has written.
//!
//! The processor logs them, where it can: a page's address as it sets the dirty bit of the page's leaf. Else pages are
//! protected from writes, and the first write to each, which exits, makes its page writable again. Either way a page is
//! told of once, when it is first written since it was last made clean ([`NestedTables::clean`]). Whoever takes the
//! addresses keeps them, so that the pages that were written are found without a look at those that were not.
//!
//! Work on all of a guest's memory goes region by region ([`REGION_SIZE`](super::REGION_SIZE)), which bounds what is done at once. None of the
//! guest's vCPUs may run between its first region and its last; then each must drop its cached translations before it
//! runs on: from a cached translation the processor would write without setting a bit, or in spite of a protection.

use super::encoding::{Encoding, LARGE, WRITABLE_WHEN_NOTED};
use super::pages::PageSet;
use super::{ADDRESS_MASK, ENTRIES, NestedTables, TablesError, page_size};
use crate::memory::FrameSource;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

/// How written pages are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By the log that the processor keeps ([`WriteLog`](crate::WriteLog)).
    Log,
    /// By the exits that first writes to protected pages cause ([`NestedTables::note_write`]).
    WriteProtection,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Log => "the processor's log",
            Self::WriteProtection => "write protection",
        })
    }
}

impl Method {
    /// The leaf of a page that counts as clean.
    const fn clean(self, encoding: Encoding, leaf: u64) -> u64 {
        match self {
            Self::Log => leaf & !encoding.dirty(),
            Self::WriteProtection if leaf & encoding.writable() != 0 => {
                leaf & !encoding.writable() | WRITABLE_WHEN_NOTED
            }
            Self::WriteProtection => leaf,
        }
    }
}

impl NestedTables {
    /// How writes are tracked now, if they are.
    #[must_use]
    pub const fn tracking(&self) -> Option<Method> {
        self.tracking
    }

    /// Begins to track writes: by the processor's log where it keeps one, unless `protect` says otherwise.
    /// [`Self::track`] must follow for every region before a vCPU of the guest runs.
    pub const fn begin_tracking(&mut self, protect: bool) -> Method {
        let method = if self.format.write_log && !protect {
            Method::Log
        } else {
            Method::WriteProtection
        };
        self.tracking = Some(method);
        method
    }

    /// Makes the region around `guest` of 4 KiB pages, all of which count as clean.
    ///
    /// # Errors
    ///
    /// [`TablesError::OutOfMemory`]; what was made small by then stays so, and is right.
    pub fn track(&mut self, guest: u64, frames: &mut impl FrameSource) -> Result<(), TablesError> {
        self.make_small(guest, frames)?;
        self.clean(guest, PageSet::ALL);
        Ok(())
    }

    /// A write to this address was refused: whether that was only so that it is noticed. Then its page was written, and
    /// the write may be tried again: with the refusal the processor dropped what it had cached of the page.
    pub fn note_write(&mut self, guest: u64) -> bool {
        if self.tracking != Some(Method::WriteProtection) {
            return false;
        }
        let Some(leaf) = self.descend(guest, 0) else {
            return false;
        };
        let writable = self.encoding().writable();
        if leaf.entry & WRITABLE_WHEN_NOTED != 0 {
            change(self.slot(leaf.table, leaf.slot), |entry| {
                entry & !WRITABLE_WHEN_NOTED | writable
            });
            return true;
        }
        // Else another vCPU wrote to it as well, and was first.
        leaf.entry & writable != 0
    }

    /// Makes these pages of the region around `guest` count as clean. Without tracking, and where the region is mapped by
    /// a larger page, nothing happens.
    pub fn clean(&mut self, guest: u64, pages: PageSet) {
        let (Some(method), Some(link)) = (self.tracking, self.descend(guest, 1)) else {
            return;
        };
        if link.entry & LARGE != 0 {
            return;
        }
        let (encoding, mut left) = (self.encoding(), pages);
        while let Some(page) = left.take_first() {
            let leaf = self.slot(link.entry & ADDRESS_MASK, page as usize);
            let entry = leaf.load(Ordering::Relaxed);
            if method.clean(encoding, entry) != entry {
                change(leaf, |entry| method.clean(encoding, entry));
            }
        }
    }

    /// Ends the tracking of writes. [`Self::untrack`] must follow for every region before a vCPU of the guest runs.
    pub const fn end_tracking(&mut self) {
        self.tracking = None;
    }

    /// Makes the pages of the region around `guest` writable as they were, and large again where they can be. A GiB is
    /// made one page with the last of its regions.
    pub fn untrack(&mut self, guest: u64) {
        let Some(link) = self.descend(guest, 1) else {
            return;
        };
        if link.entry & LARGE != 0 {
            return;
        }
        let writable = self.encoding().writable();
        for slot in 0..ENTRIES {
            let leaf = self.slot(link.entry & ADDRESS_MASK, slot);
            if leaf.load(Ordering::Relaxed) & WRITABLE_WHEN_NOTED != 0 {
                change(leaf, |entry| entry & !WRITABLE_WHEN_NOTED | writable);
            }
        }
        if self.format.pages_2m {
            self.merge(guest, 1);
        }
        if self.format.pages_1g && link.slot == ENTRIES - 1 {
            self.merge(guest, 2);
        }
    }

    /// Replaces the table that an entry of `level` links by one large page, if that maps the same. What the processor
    /// noted in the table is dropped.
    fn merge(&mut self, guest: u64, level: u32) {
        let Some(link) = self.descend(guest, level) else {
            return;
        };
        let table = link.entry & ADDRESS_MASK;
        let first = self.entry(table, 0);
        let (host, granted) = (first & ADDRESS_MASK, self.granted(first));
        let noted = self.encoding().accessed() | self.encoding().dirty();
        let part = self.leaf(host, granted, level - 1);
        let follows = |slot| {
            let expected = part + slot as u64 * page_size(level - 1);
            self.entry(table, slot) & !noted == expected
        };
        if link.entry & LARGE == 0
            && host.is_multiple_of(page_size(level))
            && (0..ENTRIES).all(follows)
        {
            let whole = self.leaf(host, granted, level);
            self.set_entry(link.table, link.slot, whole);
            if let Some(at) = self.tables.iter().position(|f| f.physical() == table) {
                self.spare.push(self.tables.swap_remove(at));
            }
        }
    }
}

/// Changes an entry in which the processor may set bits meanwhile.
fn change(entry: &AtomicU64, to: impl Fn(u64) -> u64) {
    let mut before = entry.load(Ordering::Relaxed);
    while let Err(found) =
        entry.compare_exchange_weak(before, to(before), Ordering::Relaxed, Ordering::Relaxed)
    {
        before = found;
    }
}

#[cfg(test)]
mod tests;
