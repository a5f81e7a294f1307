//! Counting exits, and where a vCPU's time goes.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

/// Kinds of exits that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Kind {
    /// Not an exit: the way from the scheduler into the guest.
    Schedule,
    Cpuid,
    PortIn,
    PortOut,
    StringIo,
    ReadMsr,
    WriteMsr,
    Halt,
    Deadline,
    HostInterrupt,
    InterruptWindow,
    ControlRegister,
    /// An access to a device that is mapped into memory.
    Mapped,
    /// An access to memory that was not yet allowed.
    Page,
    Pause,
    TaskSwitch,
    /// The end of an interrupt whose local APIC the processor keeps.
    EndOfInterrupt,
    Other,
}

const NAMES: [&str; 18] = [
    "schedule",
    "cpuid",
    "in",
    "out",
    "string-io",
    "rdmsr",
    "wrmsr",
    "hlt",
    "deadline",
    "interrupt",
    "window",
    "cr",
    "mmio",
    "page",
    "pause",
    "task-switch",
    "eoi",
    "other",
];

/// One kind of exit.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    count: u64,
    /// TSC ticks from the exit to the next entry, in all and at worst.
    ticks: u64,
    worst: u64,
}

/// How often each kind of exit came, and what it cost. All times are in TSC ticks of the board.
#[derive(Clone, Debug, Default)]
pub(super) struct Statistics {
    tallies: [Tally; NAMES.len()],
    /// In the guest.
    pub(super) guest: u64,
    /// Between a HLT and what ended it.
    pub(super) halted: u64,
    /// Interrupts delivered to the guest, or given to the processor to deliver.
    pub(super) injected: u64,
    /// Accesses to MSRs that do not exist.
    pub(super) unknown_msrs: u64,
}

impl Statistics {
    /// An exit of this kind was handled in `ticks`.
    #[inline(always)]
    pub(super) fn count(&mut self, kind: Kind, ticks: u64) {
        let tally = &mut self.tallies[kind as usize];
        tally.count += 1;
        tally.ticks += ticks;
        if ticks > tally.worst {
            tally.worst = ticks;
        }
    }
}

/// Totals of a vCPU since its guest's start. Times are in TSC ticks of the board.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) exits: u64,
    pub(crate) guest: u64,
    /// In the hypervisor on the guest's account.
    pub(crate) root: u64,
    pub(crate) halted: u64,
    pub(crate) interrupts: u64,
}

/// Totals as everybody sees them: they lag behind, and each by itself is right.
#[derive(Debug, Default)]
pub(super) struct Published([AtomicU64; 5]);

impl Published {
    pub(super) fn set(&self, totals: Totals) {
        let Totals {
            exits,
            guest,
            root,
            halted,
            interrupts,
        } = totals;
        for (place, value) in self.0.iter().zip([exits, guest, root, halted, interrupts]) {
            place.store(value, Ordering::Relaxed);
        }
    }

    pub(super) fn get(&self) -> Totals {
        let [exits, guest, root, halted, interrupts] =
            self.0.each_ref().map(|place| place.load(Ordering::Relaxed));
        Totals {
            exits,
            guest,
            root,
            halted,
            interrupts,
        }
    }
}

impl Statistics {
    /// The totals of all kinds.
    pub(super) fn totals(&self) -> Totals {
        let exits = self.tallies.iter().enumerate();
        let exits = exits.filter(|(kind, _)| *kind != Kind::Schedule as usize);
        Totals {
            exits: exits.map(|(_, tally)| tally.count).sum(),
            guest: self.guest,
            root: self.tallies.iter().map(|tally| tally.ticks).sum(),
            halted: self.halted,
            interrupts: self.injected,
        }
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = self.totals().root;
        write!(
            f,
            "guest {} ticks, root {root} ticks, halted {} ticks, {} interrupts, {} unknown MSRs",
            self.guest, self.halted, self.injected, self.unknown_msrs
        )?;
        for (name, tally) in NAMES.iter().zip(&self.tallies) {
            if tally.count > 0 {
                let Tally {
                    count,
                    ticks,
                    worst,
                } = tally;
                write!(f, "\n  {name} {count} exits {ticks} ticks worst {worst}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_name() {
        let mut statistics = Statistics::default();
        statistics.count(Kind::Cpuid, 100);
        statistics.count(Kind::Cpuid, 140);
        statistics.count(Kind::Other, 7);
        statistics.guest = 5;
        let published = Published::default();
        published.set(statistics.totals());
        let totals = Totals {
            exits: 3,
            guest: 5,
            root: 247,
            ..Totals::default()
        };
        assert_eq!(published.get(), totals);
        assert_eq!(
            statistics.to_string(),
            "guest 5 ticks, root 247 ticks, halted 0 ticks, 0 interrupts, 0 unknown MSRs\n  \
             cpuid 2 exits 240 ticks worst 140\n  other 1 exits 7 ticks worst 7"
        );
    }
}
