//! The watchdog on its board, as drivers meet it.

use proptest::prelude::*;

use super::*;
use crate::pc::{Pc, PcConfig, Width};
use crate::virtio::VirtioConfig;
use crate::virtio::tests::World;

const TSC_HZ: u64 = 1_000_000_000;
const SECOND: u64 = TSC_HZ;
/// The first device behind the chipset's, and where the firmware puts its memory.
const DEVICE: u32 = 2;
const MEMORY: u64 = 0xC000_2000;

fn config() -> PcConfig {
    PcConfig {
        tsc_hz: TSC_HZ,
        memory_bytes: 64 << 20,
        wall_clock: 0,
        com1: false,
        rtc: false,
        pci: true,
        io_apic: false,
        virtio: VirtioConfig::default(),
        nics: Vec::new(),
        watchdog: Some(WatchdogConfig::default()),
    }
}

/// A board and a driver of its watchdog.
struct Bench {
    pc: Pc,
    world: World,
    now: Ticks,
}

impl Bench {
    fn new() -> Self {
        Self {
            pc: Pc::new(config(), Ticks(0)),
            world: World::default(),
            now: Ticks(0),
        }
    }

    fn select(&mut self, register: u8) -> u16 {
        let address = 0x8000_0000 | DEVICE << 11 | u32::from(register & !3);
        self.pc
            .write(0xCF8, Width::Dword, address, self.now, &mut self.world);
        0xCFC + u16::from(register & 3)
    }

    fn configuration(&mut self, register: u8, width: Width) -> u32 {
        let port = self.select(register);
        self.pc.read(port, width, self.now, &mut self.world)
    }

    fn configure(&mut self, register: u8, width: Width, value: u32) {
        let port = self.select(register);
        self.pc.write(port, width, value, self.now, &mut self.world);
    }

    fn read(&mut self, offset: u16, size: u32) -> u32 {
        let mask = (1u64 << (8 * size)) - 1;
        (self
            .pc
            .memory_read(MEMORY + u64::from(offset), size, self.now)
            & mask) as u32
    }

    fn write(&mut self, offset: u16, size: u32, value: u32) {
        let address = MEMORY + u64::from(offset);
        self.pc
            .memory_write(address, size, u64::from(value), self.now);
    }

    fn unlock(&mut self) {
        self.write(RELOAD, 1, 0x80);
        self.write(RELOAD, 1, 0x86);
    }

    fn feed(&mut self) {
        self.unlock();
        self.write(RELOAD, 2, 0x100);
    }

    /// Both stages take this.
    fn preload(&mut self, value: u32) {
        for register in [PRELOAD_1, PRELOAD_2] {
            self.unlock();
            self.write(register, 4, value);
        }
    }

    fn enable(&mut self) {
        self.configure(LOCK, Width::Byte, 0b10);
    }

    fn pass(&mut self, ticks: u64) {
        self.now.0 += ticks;
    }

    /// Meets every deadline up to `until`; returns when the watchdog was told of first.
    fn failure_before(&mut self, until: u64) -> Option<u64> {
        while let Some(deadline) = self.pc.next_deadline()
            && deadline.0 <= until
        {
            self.now = self.now.max(deadline);
            self.pc.expire(self.now, &mut self.world);
            if self.world.watchdog_expirations != 0 {
                return Some(self.now.0);
            }
        }
        self.now = Ticks(until);
        None
    }
}

/// Ticks of this many counts of 2^15 cycles of the PCI clock.
fn coarse(counts: u64) -> u64 {
    (counts << 15) * TSC_HZ / PCI_HZ
}

#[track_caller]
fn near(time: u64, expected: u64) {
    // The clock of 2^5 cycles is taken as whole Hz.
    let error = time.abs_diff(expected);
    assert!(error <= 100 + expected / 500_000, "{time}, not {expected}");
}

#[test]
fn linux_finds_feeds_and_starves_it() {
    let mut bench = Bench::new();
    assert_eq!(bench.configuration(0x00, Width::Dword), 0x25AB_8086);
    assert_eq!(bench.configuration(0x08, Width::Dword), 0x0880_0002);
    bench.configure(0x10, Width::Dword, u32::MAX);
    assert_eq!(bench.configuration(0x10, Width::Dword), 0xFFFF_FFF0);
    bench.configure(0x10, Width::Dword, MEMORY as u32);
    // As Linux's driver does it: no interrupt, counts of a millisecond, watchdog mode, off.
    bench.configure(CONFIGURATION, Width::Word, 0x0003);
    assert_eq!(bench.configuration(LOCK, Width::Byte), 0);
    bench.configure(LOCK, Width::Byte, 0);
    bench.unlock();
    assert_eq!(bench.read(RELOAD, 2), 0);
    bench.unlock();
    bench.write(RELOAD, 2, 0x0300);
    // A heartbeat of two seconds.
    bench.preload(2 << 9);
    bench.feed();
    assert_eq!(bench.pc.next_deadline(), None, "not before it is enabled");
    bench.feed();
    bench.enable();
    assert_eq!(bench.configuration(LOCK, Width::Byte), 0b10);
    let period = coarse(2 * ((2 << 9) + 1));
    assert!(period.abs_diff(2 * SECOND) < SECOND / 50);
    for beat in 1..20 {
        assert_eq!(bench.failure_before(beat * SECOND), None);
        bench.feed();
    }
    let failure = bench.failure_before(100 * SECOND).expect("nobody feeds it");
    near(failure, 19 * SECOND + period);
    assert_eq!(bench.pc.next_deadline(), None, "it is told once");
    assert!(bench.pc.watchdog_timed_out());
    // The driver of the next life.
    bench.pc.reset(bench.now, &mut bench.world);
    assert_eq!(bench.configuration(LOCK, Width::Byte), 0);
    assert_eq!(bench.read(RELOAD, 2), 0x200);
    bench.unlock();
    bench.write(RELOAD, 2, 0x0300);
    assert_eq!(bench.read(RELOAD, 2), 0);
    assert!(!bench.pc.watchdog_timed_out());
}

#[test]
fn stopped_by_its_driver_it_does_nothing() {
    let mut bench = Bench::new();
    bench.preload(0);
    bench.enable();
    bench.configure(LOCK, Width::Byte, 0);
    assert_eq!(bench.failure_before(5000 * SECOND), None);
    assert_eq!(bench.read(INTERRUPT_STATUS, 4), 0);
}

#[test]
fn fine_counts_are_of_a_microsecond() {
    let mut bench = Bench::new();
    bench.configure(CONFIGURATION, Width::Word, 0x0007);
    bench.preload(999_999);
    bench.enable();
    let failure = bench.failure_before(100 * SECOND).expect("nobody feeds it");
    near(failure, 2 * 32_000_000 * TSC_HZ / PCI_HZ);
}

#[test]
fn each_write_needs_both_keys() {
    let mut bench = Bench::new();
    let tries: [&[u32]; 5] = [&[], &[0x80], &[0x86], &[0x86, 0x80], &[0x80, 0x00, 0x86]];
    for keys in tries {
        for key in keys {
            bench.write(RELOAD, 1, *key);
        }
        bench.write(PRELOAD_1, 4, 5);
        // What is left of a lock that is half open.
        bench.write(RELOAD, 1, 0);
        assert_eq!(bench.read(PRELOAD_1, 4), 0xF_FFFF, "{keys:x?}");
    }
    bench.unlock();
    bench.write(PRELOAD_1, 4, u32::MAX);
    assert_eq!(bench.read(PRELOAD_1, 4), 0xF_FFFF, "20 bits");
    bench.write(PRELOAD_2, 4, 5);
    assert_eq!(bench.read(PRELOAD_2, 4), 0xF_FFFF, "one write");
    // An unlocked one can be unlocked again.
    bench.unlock();
    bench.unlock();
    bench.write(PRELOAD_2, 2, 0x1234);
    assert_eq!(bench.read(PRELOAD_2, 4), 0xF_1234, "half of it");
    bench.unlock();
    bench.write(PRELOAD_1 + 1, 1, 0x56);
    assert_eq!(bench.read(PRELOAD_1 + 1, 2), 0x0F56);
}

#[test]
fn food_without_keys_is_none() {
    let mut bench = Bench::new();
    bench.preload(2 << 9);
    bench.enable();
    let fails = coarse(2 * ((2 << 9) + 1));
    assert_eq!(bench.failure_before(fails - SECOND), None);
    bench.write(RELOAD, 2, 0x100);
    near(bench.failure_before(100 * SECOND).expect("unfed"), fails);
}

#[test]
fn a_locked_one_runs_until_a_reset() {
    let mut bench = Bench::new();
    bench.preload(1 << 9);
    bench.configure(LOCK, Width::Byte, 0b011);
    bench.configure(LOCK, Width::Byte, 0b100);
    assert_eq!(bench.configuration(LOCK, Width::Byte), 0b011);
    assert!(bench.failure_before(2 * SECOND).is_some());
    bench.pc.reset(bench.now, &mut bench.world);
    bench.configure(LOCK, Width::Byte, 0b100);
    assert_eq!(bench.configuration(LOCK, Width::Byte), 0b100);
}

#[test]
fn free_running_it_has_one_stage() {
    let mut bench = Bench::new();
    bench.unlock();
    bench.write(PRELOAD_2, 4, 1 << 9);
    bench.configure(LOCK, Width::Byte, 0b110);
    near(
        bench.failure_before(100 * SECOND).expect("nobody feeds it"),
        coarse((1 << 9) + 1),
    );
    assert_eq!(bench.read(INTERRUPT_STATUS, 4), 0);
}

#[test]
fn without_output_only_its_flag_tells() {
    let mut bench = Bench::new();
    bench.configure(CONFIGURATION, Width::Word, 0x0023);
    bench.preload(1 << 9);
    bench.enable();
    assert_eq!(bench.failure_before(10 * SECOND), None);
    assert_eq!(bench.read(RELOAD, 2), 0x200);
    // Fed, it counts again.
    bench.configure(CONFIGURATION, Width::Word, 0x0003);
    assert_eq!(bench.pc.next_deadline(), None);
    bench.feed();
    assert!(bench.failure_before(20 * SECOND).is_some());
}

#[test]
fn the_first_stage_ends_with_an_interrupt() {
    let mut bench = Bench::new();
    bench.preload(1 << 9);
    bench.enable();
    let first = bench.pc.next_deadline().expect("the first stage");
    near(first.0, coarse((1 << 9) + 1));
    bench.now = Ticks(first.0 - 1);
    assert_eq!(bench.read(INTERRUPT_STATUS, 4), 0);
    let asserted = |bench: &Bench| bench.pc.save().pic.slave.lines;
    let idle = asserted(&bench);
    bench.now = first;
    bench.pc.expire(first, &mut bench.world);
    // Device 2's pin A leads to the third wire, and that to line 10.
    assert_eq!(asserted(&bench), idle | 1 << (10 - 8));
    assert_eq!(bench.read(INTERRUPT_STATUS, 4), 1);
    bench.configure(CONFIGURATION, Width::Word, 0x0003);
    assert_eq!(asserted(&bench), idle, "switched off");
    bench.configure(CONFIGURATION, Width::Word, 0x0000);
    assert_eq!(asserted(&bench), idle | 1 << (10 - 8));
    bench.write(INTERRUPT_STATUS, 1, 0);
    assert_eq!(bench.read(INTERRUPT_STATUS, 1), 1);
    bench.write(INTERRUPT_STATUS, 1, 1);
    assert_eq!(asserted(&bench), idle);
    // Food in the second stage is in time.
    bench.feed();
    assert_eq!(bench.failure_before(first.0 + SECOND / 2), None);
}

#[test]
fn an_access_sees_the_end_and_does_not_undo_it() {
    let mut bench = Bench::new();
    bench.preload(1 << 9);
    bench.enable();
    bench.pass(100 * SECOND);
    bench.feed();
    assert_eq!(bench.read(RELOAD, 2), 0x200);
    assert_eq!(bench.world.watchdog_expirations, 0);
    let due = bench.pc.next_deadline().expect("it is to be told of");
    assert!(due <= bench.now);
    bench.pc.expire(bench.now, &mut bench.world);
    assert_eq!(bench.world.watchdog_expirations, 1);
    bench.pass(100 * SECOND);
    bench.pc.expire(bench.now, &mut bench.world);
    assert_eq!(bench.world.watchdog_expirations, 1);
}

#[test]
fn an_absence_is_excused() {
    let mut bench = Bench::new();
    bench.preload(2 << 9);
    bench.enable();
    assert_eq!(bench.failure_before(SECOND * 3 / 2), None, "second stage");
    bench.pass(100 * SECOND);
    let back = bench.now;
    bench.pc.excuse_absence(back);
    assert_eq!(bench.failure_before(back.0 + 2 * SECOND), None);
    assert!(bench.failure_before(back.0 + 3 * SECOND).is_some());
    bench.pc.excuse_absence(bench.now);
    assert_eq!(bench.pc.next_deadline(), None, "not a failure");
}

#[test]
fn a_flag_of_the_board_before_is_there() {
    let watchdog = Some(WatchdogConfig { timed_out: true });
    let mut bench = Bench {
        pc: Pc::new(
            PcConfig {
                watchdog,
                ..config()
            },
            Ticks(0),
        ),
        ..Bench::new()
    };
    assert_eq!(bench.read(RELOAD, 2), 0x200);
}

#[test]
fn without_it_nothing_is_there() {
    let mut bench = Bench::new();
    bench.pc = Pc::new(
        PcConfig {
            watchdog: None,
            ..config()
        },
        Ticks(0),
    );
    assert_eq!(bench.configuration(0x00, Width::Dword), u32::MAX);
    assert!(!bench.pc.mapped(MEMORY + 0xC));
    assert!(!bench.pc.watchdog_timed_out());
    let state = Bench::new().pc.save();
    let without = PcConfig {
        watchdog: None,
        ..config()
    };
    assert_eq!(Pc::restore(without, state).err(), Some(StateError::Devices));
}

#[test]
fn states_that_cannot_be_are_refused() {
    let mut watchdog = Watchdog::new(2, TSC_HZ, WatchdogConfig::default());
    let state = watchdog.save();
    let spoil: [fn(&mut WatchdogStateV1); 6] = [
        |s| s.configuration = 0x08,
        |s| s.lock = 0x08,
        |s| s.interrupts = 2,
        |s| s.preloads[1] = 1 << 20,
        |s| s.counter = CounterStateV1::Second { ends: 1 },
        |s| s.endpoint.bases[1] = 1,
    ];
    for (index, spoil) in spoil.iter().enumerate() {
        let mut state = state.clone();
        spoil(&mut state);
        assert!(watchdog.restore(&state).is_err(), "case {index}");
    }
    assert_eq!(watchdog.restore(&state), Ok(()));
}

proptest! {
    /// A guest fails if and only if two meals are further apart than both stages together, whoever looks at its watchdog
    /// in between, and whether it is saved and restored there.
    #[test]
    fn it_fails_when_unfed_for_both_stages(
        first in 0u32..1 << 12,
        second in 0u32..1 << 12,
        fine: bool,
        pauses in proptest::collection::vec(0u32..20_000, 1..20),
        looks: u32,
    ) {
        let mut bench = Bench::new();
        bench.configure(CONFIGURATION, Width::Word, if fine { 7 } else { 3 });
        for (register, preload) in [(PRELOAD_1, first), (PRELOAD_2, second)] {
            bench.unlock();
            bench.write(register, 4, preload);
        }
        bench.enable();
        let rate = Rate::new(PCI_HZ >> 5, TSC_HZ);
        let shift = if fine { 0 } else { 10 };
        let patience = (u64::from(first + second) + 2) << shift;
        let mut fed = rate.count(bench.now);
        let mut fails = false;
        for (at, pause) in pauses.iter().enumerate() {
            bench.pass((u64::from(*pause) << shift) * TSC_HZ / (PCI_HZ >> 5));
            let cycle = rate.count(bench.now);
            fails |= cycle - fed >= patience;
            if looks & 1 << at != 0 {
                bench.pc.expire(bench.now, &mut bench.world);
                bench.pc = Pc::restore(config(), bench.pc.save()).expect("its own state");
            }
            bench.feed();
            fed = cycle;
        }
        bench.pc.expire(bench.now, &mut bench.world);
        prop_assert_eq!(bench.world.watchdog_expirations, u32::from(fails));
        prop_assert_eq!(bench.pc.watchdog_timed_out(), fails);
    }
}
