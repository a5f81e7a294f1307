//! Tracking, against a model of the processor and of what it wrote.

use super::*;
use crate::memory::fake::Heap;
use crate::nested::{ADDRESS_BITS, Format, PAGE_1G, PAGE_2M, PAGE_4K, Permissions, index};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use proptest::prelude::*;

/// A guest of 4 regions, the last of them partly mapped, that all have pages of the largest size that fits.
const SIZE: u64 = 3 * PAGE_2M + 5 * PAGE_4K;
/// In the middle of these pages the permissions change: they are not writable.
const READ_ONLY: core::ops::Range<u64> = PAGE_2M + 7 * PAGE_4K..PAGE_2M + 9 * PAGE_4K;
const HOST: u64 = 64 * PAGE_2M;

fn format(encoding: Encoding, write_log: bool, large_executable: bool) -> Format {
    Format {
        encoding,
        pages_2m: true,
        pages_1g: true,
        accessed_dirty: write_log || encoding == Encoding::Nested,
        write_log,
        large_executable,
    }
}

fn map(tables: &mut NestedTables, range: core::ops::Range<u64>, permissions: Permissions) {
    let (host, length) = (range.start + HOST, range.end - range.start);
    let mut heap = Heap { left: 4096 };
    // SAFETY: no processor uses these tables.
    unsafe { tables.map(range.start, host, length, permissions, &mut heap) }.unwrap();
}

fn guest(format: Format) -> NestedTables {
    let mut tables = NestedTables::new(format, &mut Heap { left: 1 }).unwrap();
    map(&mut tables, 0..READ_ONLY.start, Permissions::ALL);
    map(&mut tables, READ_ONLY, Permissions::READ);
    map(&mut tables, READ_ONLY.end..SIZE, Permissions::ALL);
    tables
}

fn regions() -> impl Iterator<Item = u64> {
    (0..SIZE).step_by(PAGE_2M as usize)
}

/// A guest, and the addresses of its written pages that somebody has been told.
struct Guest {
    tables: NestedTables,
    told: Vec<u64>,
}

impl Guest {
    fn new(format: Format) -> Self {
        Self {
            tables: guest(format),
            told: Vec::new(),
        }
    }

    /// What a processor does with an access: it sets the bits of the entries on the way, and logs, or it refuses.
    fn access(&mut self, guest: u64, write: bool) -> bool {
        let tables = &self.tables;
        let (encoding, format) = (tables.encoding(), tables.format);
        let mut table = tables.root;
        for level in (0..4).rev() {
            let slot = tables.slot(table, index(guest, level));
            let entry = slot.load(Ordering::Relaxed);
            assert!(encoding.is_present(entry));
            let mut bits = encoding.accessed();
            let leaf = level == 0 || entry & LARGE != 0;
            if leaf && write {
                if entry & encoding.writable() == 0 {
                    return false;
                }
                bits |= encoding.dirty();
                if tables.tracking() == Some(Method::Log) && entry & encoding.dirty() == 0 {
                    self.told.push(guest);
                }
            }
            if format.accessed_dirty {
                slot.fetch_or(bits, Ordering::Relaxed);
            }
            if leaf {
                return true;
            }
            table = entry & ADDRESS_MASK;
        }
        unreachable!()
    }

    /// A write of the guest's, with the exit that it may cause; whether it was done.
    fn write(&mut self, guest: u64) -> bool {
        if self.access(guest, true) {
            return true;
        }
        let again = self.tables.note_write(guest);
        if again {
            self.told.push(guest);
        }
        assert_eq!(self.access(guest, true), again);
        again
    }

    /// The numbers of the written pages in the region around an address, of which each was told once. They are clean again.
    fn taken(&mut self, guest: u64) -> BTreeSet<u64> {
        let here = |at: &mut u64| *at / PAGE_2M == guest / PAGE_2M;
        let told: Vec<u64> = self.told.extract_if(.., here).collect();
        let pages: BTreeSet<u64> = told.iter().map(|at| at / PAGE_4K).collect();
        assert_eq!(told.len(), pages.len());
        let mut set = PageSet::EMPTY;
        pages
            .iter()
            .for_each(|page| set.insert(*page as usize % ENTRIES));
        self.tables.clean(guest, set);
        pages
    }
}

fn begin(tables: &mut NestedTables, protect: bool, heap: &mut Heap) -> Method {
    let method = tables.begin_tracking(protect);
    for region in regions() {
        tables.track(region, heap).unwrap();
    }
    method
}

fn end(tables: &mut NestedTables) {
    tables.end_tracking();
    for region in regions() {
        tables.untrack(region);
    }
}

/// Every page's leaf, without what processors note.
fn leaves(tables: &NestedTables) -> Vec<(u64, u64)> {
    let noted = tables.encoding().accessed() | tables.encoding().dirty();
    let leaf = |at| tables.walk(at).map(|(entry, size)| (entry & !noted, size));
    (0..SIZE + PAGE_2M)
        .step_by(PAGE_4K as usize)
        .filter_map(leaf)
        .collect()
}

#[derive(Clone, Debug)]
enum Action {
    Write(u64),
    Read(u64),
    Execute(u64),
    Take(u64),
    Begin(bool),
    End,
}

fn action() -> impl Strategy<Value = Action> {
    let at = || 0..SIZE;
    prop_oneof![
        8 => at().prop_map(Action::Write),
        4 => (READ_ONLY.start - 4 * PAGE_4K..READ_ONLY.end + 4 * PAGE_4K).prop_map(Action::Write),
        4 => at().prop_map(Action::Read),
        2 => at().prop_map(Action::Execute),
        4 => at().prop_map(Action::Take),
        1 => any::<bool>().prop_map(Action::Begin),
        1 => Just(Action::End),
    ]
}

proptest! {
    #[test]
    fn what_was_written_is_told(
        actions in proptest::collection::vec(action(), 1..60),
        amd: bool, log: bool, large_executable: bool
    ) {
        let encoding = if amd { Encoding::Nested } else { Encoding::Extended };
        let log = log && !amd;
        let mut guest = Guest::new(format(encoding, log, large_executable));
        let mut heap = Heap { left: 64 };
        let mut written: Option<BTreeSet<u64>> = None;
        for action in actions {
            match action {
                Action::Write(at) => {
                    let done = guest.write(at);
                    prop_assert_eq!(done, !READ_ONLY.contains(&at));
                    if let Some(written) = written.as_mut().filter(|_| done) {
                        written.insert(at / PAGE_4K);
                    }
                }
                Action::Read(at) => prop_assert!(guest.access(at, false)),
                Action::Execute(at) => prop_assert_eq!(
                    guest.tables.make_executable(at, &mut heap),
                    // Large pages that are executable never refuse a fetch.
                    Ok(!READ_ONLY.contains(&at)
                        && (!large_executable || guest.tables.walk(at).unwrap().1 == PAGE_4K))
                ),
                Action::Take(at) => {
                    let found = guest.taken(at);
                    let mut expected = BTreeSet::new();
                    if let Some(written) = &mut written {
                        let here = |page: &u64| page / 512 == at / PAGE_2M;
                        expected = written.iter().copied().filter(here).collect();
                        written.retain(|page| !here(page));
                    }
                    prop_assert_eq!(found, expected);
                }
                Action::Begin(protect) if written.is_none() => {
                    let method = begin(&mut guest.tables, protect, &mut heap);
                    prop_assert_eq!(method == Method::Log, !protect && log);
                    written = Some(BTreeSet::new());
                }
                Action::Begin(_) => {}
                Action::End => {
                    end(&mut guest.tables);
                    guest.told.clear();
                    written = None;
                }
            }
        }
        // All is as it was before anything was tracked, or executed.
        end(&mut guest.tables);
        prop_assert_eq!(leaves(&guest.tables), leaves(&self::guest(guest.tables.format)));
    }
}

#[test]
fn a_gib_becomes_one_page_again() {
    for large_executable in [false, true] {
        let format = format(Encoding::Nested, true, large_executable);
        let mut tables = NestedTables::new(format, &mut Heap { left: 1 }).unwrap();
        let mut heap = Heap { left: 1100 };
        // SAFETY: no processor uses these tables.
        unsafe { tables.map(0, PAGE_1G, 2 * PAGE_1G, Permissions::ALL, &mut heap) }.unwrap();
        let before = (tables.walk(PAGE_1G), tables.table_bytes());
        assert_eq!(before.1, 2 * PAGE_4K);
        let mut used = Vec::new();
        for _ in 0..3 {
            tables.begin_tracking(true);
            for region in (0..2 * PAGE_1G).step_by(PAGE_2M as usize) {
                tables.track(region, &mut heap).unwrap();
            }
            used.push(tables.table_bytes());
            assert_eq!(tables.walk(PAGE_1G).unwrap().1, PAGE_4K);
            tables.end_tracking();
            for region in (0..2 * PAGE_1G).step_by(PAGE_2M as usize) {
                tables.untrack(region);
            }
            assert_eq!(tables.walk(PAGE_1G), before.0);
        }
        // The tables are kept for the next time.
        assert_eq!(used, [(2 + 2 + 1024) * PAGE_4K; 3]);
    }
}

#[test]
fn without_memory_the_guest_goes_on_in_larger_pages() {
    let mut guest = Guest::new(format(Encoding::Extended, true, true));
    let before = leaves(&guest.tables);
    guest.tables.begin_tracking(true);
    let mut heap = Heap { left: 1 };
    let results: Vec<_> = regions()
        .map(|at| guest.tables.track(at, &mut heap))
        .collect();
    // The second and the last region are of small pages from the start.
    let short = Err(TablesError::OutOfMemory);
    assert_eq!(results, [Ok(()), Ok(()), short, Ok(())]);
    guest.tables.clean(2 * PAGE_2M, PageSet::ALL);
    assert!(guest.write(2 * PAGE_2M));
    assert!(guest.write(0));
    assert_eq!(guest.told, [0]);
    end(&mut guest.tables);
    assert_eq!(leaves(&guest.tables), before);
}

#[test]
fn a_write_elsewhere_is_not_only_to_be_noticed() {
    let mut tables = guest(format(Encoding::Extended, false, true));
    assert!(!tables.note_write(0));
    begin(&mut tables, false, &mut Heap { left: 64 });
    for at in [SIZE, PAGE_1G, 1 << ADDRESS_BITS, u64::MAX, READ_ONLY.start] {
        assert!(!tables.note_write(at), "{at:#x}");
        tables.clean(at, PageSet::ALL);
    }
    // Two vCPUs write to a page at the same time, and both are refused.
    assert!(tables.note_write(0));
    assert!(tables.note_write(0));
    tables.track(u64::MAX, &mut Heap { left: 0 }).unwrap();
    tables.untrack(u64::MAX);
}

#[test]
fn bits_are_the_manuals() {
    // SDM volume 3, table 29-7; APM volume 2, section 5.4.
    for (encoding, accessed, dirty) in [(Encoding::Extended, 8, 9), (Encoding::Nested, 5, 6)] {
        assert_eq!(encoding.accessed(), 1 << accessed);
        assert_eq!(encoding.dirty(), 1 << dirty);
        assert_eq!(encoding.writable(), 1 << 1);
    }
}
