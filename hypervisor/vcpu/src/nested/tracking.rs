//! Which pages of its memory a guest has written.
//!
//! The processor tells by the dirty bits of leaves, where it sets such. Else pages are protected from writes, and the
//! first write to each, which exits, makes its page writable again. Either way a look at an entry says whether its page
//! was written since the last look, and makes it count as clean.
//!
//! Work on all of a guest's memory goes region by region ([`REGION_SIZE`](super::REGION_SIZE)), which bounds what is done at once. None of the
//! guest's vCPUs may run between its first region and its last; then each must drop its cached translations before it
//! runs on: from a cached translation the processor would write without setting a bit, or in spite of a protection.
//! That also makes it sound to pass over tables by the accessed bit of the entry that links them: with nothing cached,
//! no page is reached but through that entry.

use super::encoding::{Encoding, LARGE, NOTED_BELOW, WRITABLE_WHEN_NOTED};
use super::pages::PageSet;
use super::{ADDRESS_MASK, ENTRIES, Link, NestedTables, TablesError, page_size};
use crate::memory::FrameSource;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

/// How written pages are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By the dirty bits that the processor sets.
    DirtyBits,
    /// By the exits that first writes to protected pages cause ([`NestedTables::note_write`]).
    WriteProtection,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::DirtyBits => "dirty bits",
            Self::WriteProtection => "write protection",
        })
    }
}

impl Method {
    /// The bit that says of an entry that links a table that pages below were perhaps written.
    const fn below(self, encoding: Encoding) -> u64 {
        match self {
            Self::DirtyBits => encoding.accessed(),
            Self::WriteProtection => NOTED_BELOW,
        }
    }

    /// The bit that says of a leaf that its page was written.
    const fn written(self, encoding: Encoding) -> u64 {
        match self {
            Self::DirtyBits => encoding.dirty(),
            Self::WriteProtection => encoding.writable(),
        }
    }

    /// The leaf of a page that counts as clean.
    const fn clean(self, encoding: Encoding, leaf: u64) -> u64 {
        match self {
            Self::DirtyBits => leaf & !encoding.dirty(),
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

    /// Begins to track writes: by dirty bits where the processor sets such, unless `protect` says otherwise.
    /// [`Self::track`] must follow for every region before a vCPU of the guest runs.
    pub const fn begin_tracking(&mut self, protect: bool) -> Method {
        let method = if self.format.accessed_dirty && !protect {
            Method::DirtyBits
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
        if let (Some(method), Some(link)) = (self.tracking, self.descend(guest, 1)) {
            self.clean(method, &link);
        }
        Ok(())
    }

    /// A write to this address was refused: whether that was only so that it is noticed. Then it is noted, and may be
    /// tried again: with the refusal the processor dropped what it had cached of the page.
    pub fn note_write(&mut self, guest: u64) -> bool {
        if self.tracking != Some(Method::WriteProtection) {
            return false;
        }
        let (Some(link), Some(leaf)) = (self.descend(guest, 1), self.descend(guest, 0)) else {
            return false;
        };
        let writable = self.encoding().writable();
        if leaf.entry & WRITABLE_WHEN_NOTED != 0 {
            self.slot(link.table, link.slot)
                .fetch_or(NOTED_BELOW, Ordering::Relaxed);
            change(self.slot(leaf.table, leaf.slot), |entry| {
                entry & !WRITABLE_WHEN_NOTED | writable
            });
            return true;
        }
        // Else another vCPU wrote to it as well, and was first.
        leaf.entry & writable != 0
    }

    /// The pages of the region around `guest` that were written since the last look at it, or since tracking began; they
    /// count as clean again. A region that [`Self::track`] has not seen counts as written as a whole if it is mapped by
    /// a larger page. Without tracking nothing was written.
    pub fn take_written(&mut self, guest: u64) -> PageSet {
        let (Some(method), Some(link)) = (self.tracking, self.descend(guest, 1)) else {
            return PageSet::EMPTY;
        };
        if link.entry & LARGE != 0 {
            return PageSet::ALL;
        }
        if link.entry & method.below(self.encoding()) == 0 {
            return PageSet::EMPTY;
        }
        self.clean(method, &link)
    }

    /// Makes all pages of a linked table count as clean; returns those that were not.
    fn clean(&mut self, method: Method, link: &Link) -> PageSet {
        let encoding = self.encoding();
        let mut pages = PageSet::EMPTY;
        self.slot(link.table, link.slot)
            .fetch_and(!method.below(encoding), Ordering::Relaxed);
        for slot in 0..ENTRIES {
            let leaf = self.slot(link.entry & ADDRESS_MASK, slot);
            if leaf.load(Ordering::Relaxed) & method.written(encoding) != 0 {
                pages.insert(slot);
                change(leaf, |entry| method.clean(encoding, entry));
            }
        }
        pages
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
        self.slot(link.table, link.slot)
            .fetch_and(!NOTED_BELOW, Ordering::Relaxed);
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
