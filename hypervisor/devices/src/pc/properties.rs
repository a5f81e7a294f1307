//! Properties of the board under accesses of any kind.

use proptest::prelude::*;

use super::tests::{self, World};
use super::*;

/// What happens to a board.
#[derive(Clone, Debug)]
enum Step {
    Read(u16, Width),
    Write(u16, Width, u32),
    /// Byte writes that belong together.
    Program(&'static [(u16, u8)]),
    Input(Vec<u8>),
    Acknowledge,
    PowerButton,
    /// A write to the watchdog's memory.
    Memory(u64, u32, u64),
    /// Writes to its reload register that belong together.
    Feed,
    /// A write of a byte to one of its own registers of the configuration space.
    Configure(u8, u8),
    Pass(u64),
    /// Time passes up to the deadline, if it is not far.
    ToDeadline,
    Reset,
}

/// Where the firmware puts the watchdog's memory: it is behind two disks, a console, entropy and a network card.
const WATCHDOG: u64 = 0xC000_7000;
const INTERRUPTS: &[(u16, u8)] = &[
    (0x20, 0x11),
    (0x21, 0x20),
    (0x21, 0x04),
    (0x21, 0x01),
    (0xA0, 0x11),
    (0xA1, 0x28),
    (0xA1, 0x02),
    (0xA1, 0x01),
    (0x21, 0x00),
    (0xA1, 0x00),
];
const PROGRAMS: &[&[(u16, u8)]] = &[
    INTERRUPTS,
    INTERRUPTS,
    &[(0x20, 0x20), (0xA0, 0x20), (0x20, 0x20)],
    &[(0x43, 0x34), (0x40, 0xA9), (0x40, 0x04)],
    &[(0x43, 0x36), (0x40, 0x00), (0x40, 0x00)],
    &[(0x43, 0x30), (0x40, 0x10), (0x40, 0x10)],
    &[(0x43, 0x38), (0x40, 0x10), (0x40, 0x00)],
    &[(0x43, 0xB0), (0x61, 0x01), (0x42, 0x10), (0x42, 0x00)],
    &[(0x70, 0x0B), (0x71, 0x72)],
    &[(0x70, 0x0B), (0x71, 0x42)],
    &[(0x70, 0x0A), (0x71, 0x2D)],
    &[
        (0x70, 0x01),
        (0x71, 0xC0),
        (0x70, 0x03),
        (0x71, 0xC0),
        (0x70, 0x05),
        (0x71, 0xC0),
    ],
    &[(0x70, 0x0C)],
    &[(0x3FA, 0x81), (0x3FC, 0x0B), (0x3F9, 0x0F), (0x3FB, 0x03)],
    &[(0x602, 0x01), (0x600, 0xFF)],
    &[(0x4D1, 0x02)],
];

fn ports() -> impl Strategy<Value = u16> {
    let known = prop_oneof![
        0x20u16..0x22,
        0xA0u16..0xA2,
        0x40u16..0x44,
        0x60u16..0x65,
        0x70u16..0x72,
        Just(0x92u16),
        0x3F8u16..0x400,
        0x4D0u16..0x4D2,
        0x600u16..0x60C,
        0xCF8u16..0xD00,
    ];
    prop_oneof![20 => known, 1 => any::<u16>()]
}

fn widths() -> impl Strategy<Value = Width> {
    prop_oneof![8 => Just(Width::Byte), 1 => Just(Width::Word), 1 => Just(Width::Dword)]
}

fn steps(length: usize) -> impl Strategy<Value = Vec<Step>> {
    let value = prop_oneof![
        6 => any::<u32>(),
        1 => any::<u16>().prop_map(|slot| 0x8000_0000 | u32::from(slot)),
    ];
    let pass = prop_oneof![
        4 => 0u64..2_000,
        4 => 0u64..10_000_000,
        2 => 0u64..5_000_000_000,
        1 => 0u64..100_000_000_000_000,
    ];
    let step = prop_oneof![
        10 => (ports(), widths()).prop_map(|(port, width)| Step::Read(port, width)),
        10 => (ports(), widths(), value).prop_map(|(port, width, v)| Step::Write(port, width, v)),
        8 => proptest::sample::select(PROGRAMS).prop_map(Step::Program),
        2 => proptest::collection::vec(any::<u8>(), 0..20).prop_map(Step::Input),
        8 => Just(Step::Acknowledge),
        1 => Just(Step::PowerButton),
        2 => (0u64..0x10, proptest::sample::select(&[1u32, 2, 4, 8][..]), any::<u64>())
            .prop_map(|(offset, size, value)| Step::Memory(offset, size, value)),
        1 => Just(Step::Feed),
        2 => (proptest::sample::select(&[0x60u8, 0x68][..]), any::<u8>())
            .prop_map(|(register, value)| Step::Configure(register, value)),
        6 => pass.prop_map(Step::Pass),
        6 => Just(Step::ToDeadline),
        1 => Just(Step::Reset),
    ];
    proptest::collection::vec(step, 1..length)
}

/// The board with a watchdog, too.
fn config() -> PcConfig {
    PcConfig {
        watchdog: Some(WatchdogConfig::default()),
        ..tests::config()
    }
}

/// A board under test, and all that it showed.
#[derive(Clone, Debug)]
struct Run {
    pc: Pc,
    world: World,
    now: Ticks,
    seen: Vec<u64>,
}

impl Run {
    fn new() -> Self {
        Self::with(config())
    }

    fn with(config: PcConfig) -> Self {
        Self {
            pc: Pc::new(config, Ticks(0)),
            world: World::default(),
            now: Ticks(0),
            seen: Vec::new(),
        }
    }

    fn perform(&mut self, step: &Step) {
        let Self {
            pc,
            world,
            now,
            seen,
        } = self;
        match step {
            Step::Read(port, width) => {
                let value = pc.read(*port, *width, *now, world);
                assert_eq!(value & !width.mask(), 0);
                seen.push(u64::from(value));
            }
            Step::Write(port, width, value) => pc.write(*port, *width, *value, *now, world),
            Step::Program(writes) => {
                for (port, value) in *writes {
                    pc.write(*port, Width::Byte, u32::from(*value), *now, world);
                }
            }
            Step::Input(bytes) => {
                let room = pc.console_room();
                let taken = pc.console_input(bytes, *now, world);
                assert_eq!(taken, room.min(bytes.len()));
                seen.push(taken as u64);
            }
            Step::Acknowledge => {
                pc.expire(*now, world);
                seen.push(u64::from(pc.interrupt_pending()));
                if pc.interrupt_pending() {
                    seen.push(u64::from(pc.acknowledge()));
                }
            }
            Step::PowerButton => {
                pc.expire(*now, world);
                pc.press_power_button();
            }
            Step::Memory(offset, size, value) => {
                pc.memory_write(WATCHDOG + offset, *size, *value, *now);
                seen.push(pc.memory_read(WATCHDOG + (offset & !3), 4, *now));
            }
            Step::Feed => {
                for value in [0x80, 0x86, 0x100] {
                    pc.memory_write(WATCHDOG + 0xC, 4, value, *now);
                }
            }
            Step::Configure(register, value) => {
                let address = 0x8000_0000 | 7 << 11 | u32::from(*register);
                pc.write(0xCF8, Width::Dword, address, *now, world);
                pc.write(0xCFC, Width::Byte, u32::from(*value), *now, world);
            }
            Step::Pass(ticks) => now.0 += ticks,
            Step::ToDeadline => {
                if let Some(deadline) = pc.next_deadline()
                    && deadline.0 < now.0.saturating_add(1 << 44)
                {
                    *now = deadline.max(*now);
                }
            }
            Step::Reset => pc.reset(*now, world),
        }
    }

    /// Calls `expire` at each deadline on the way to `now`, until `limit` calls were made.
    fn expire_diligently(&mut self, limit: usize) -> bool {
        for _ in 0..limit {
            match self.pc.next_deadline() {
                Some(deadline) if deadline <= self.now => {
                    self.pc.expire(deadline, &mut self.world);
                    let next = self.pc.next_deadline();
                    assert!(next.is_none_or(|next| next > deadline), "in the past");
                }
                _ => return true,
            }
        }
        false
    }
}

proptest! {
    #[test]
    fn nothing_panics_and_deadlines_lie_ahead(steps in steps(200)) {
        let mut run = Run::new();
        for step in &steps {
            run.perform(step);
            run.pc.expire(run.now, &mut run.world);
            prop_assert!(run.pc.next_deadline().is_none_or(|deadline| deadline > run.now));
        }
    }

    #[test]
    fn a_restored_board_behaves_as_the_saved_one(steps in steps(120), after in steps(120)) {
        let mut run = Run::new();
        for step in &steps {
            run.perform(step);
        }
        let bytes = postcard::to_allocvec(&run.pc.save()).expect("serializable");
        let state: PcStateV1 = postcard::from_bytes(&bytes).expect("its own bytes");
        prop_assert_eq!(&state, &run.pc.save());
        let mut again = run.clone();
        again.pc = Pc::restore(config(), state).expect("its own state");
        prop_assert_eq!(again.pc.next_deadline(), run.pc.next_deadline());
        for step in &after {
            run.perform(step);
            again.perform(step);
            prop_assert_eq!(again.pc.interrupt_pending(), run.pc.interrupt_pending());
            prop_assert_eq!(again.pc.next_deadline(), run.pc.next_deadline());
        }
        prop_assert_eq!(&again.seen, &run.seen);
        prop_assert_eq!(&again.world, &run.world);
        prop_assert_eq!(again.pc.save(), run.pc.save());
    }

    /// A guest cannot tell a hypervisor that meets every deadline from one that only ever looks when it must.
    #[test]
    fn expiring_late_shows_the_same(steps in steps(150)) {
        let mut diligent = Run::new();
        let mut lazy = Run::new();
        for step in &steps {
            let step = match step {
                // Keeps the number of deadlines on the way small.
                Step::Pass(ticks) => &Step::Pass(ticks % 20_000_000),
                step => step,
            };
            if matches!(step, Step::ToDeadline) {
                continue;
            }
            prop_assume!(diligent.expire_diligently(20_000));
            diligent.perform(step);
            lazy.perform(step);
        }
        diligent.pc.expire(diligent.now, &mut diligent.world);
        lazy.pc.expire(lazy.now, &mut lazy.world);
        prop_assert_eq!(&diligent.seen, &lazy.seen);
        prop_assert_eq!(&diligent.world, &lazy.world);
        prop_assert_eq!(diligent.pc.interrupt_pending(), lazy.pc.interrupt_pending());
        prop_assert_eq!(diligent.pc.next_deadline(), lazy.pc.next_deadline());
    }

    /// Whatever was programmed: nothing becomes pending a tick before the deadline without an access.
    #[test]
    fn interrupts_appear_at_deadlines_only(steps in steps(100)) {
        // A watchdog has deadlines that bring none.
        let mut run = Run::with(tests::config());
        for step in &steps {
            run.perform(step);
        }
        run.pc.expire(run.now, &mut run.world);
        for _ in 0..20 {
            let Some(deadline) = run.pc.next_deadline() else { break };
            if deadline.0 > 1 << 60 {
                break;
            }
            let before = run.pc.save().pic;
            let mut early = run.clone();
            early.pc.expire(Ticks(deadline.0 - 1), &mut early.world);
            prop_assert!(early.pc.save().pic == before || run.pc.deadline > run.pc.next_event);
            prop_assert_eq!(early.pc.interrupt_pending(), run.pc.interrupt_pending());
            run.pc.expire(deadline, &mut run.world);
            let requests = |state: &crate::pic::PicStateV1| state.master.requests | state.slave.requests;
            prop_assert!(requests(&run.pc.save().pic) != 0);
        }
    }

    /// A state in which any byte was changed is refused or harmless.
    #[test]
    fn a_corrupt_state_does_no_harm(
        steps in steps(60),
        spoils in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        after in steps(60),
    ) {
        let mut run = Run::new();
        for step in &steps {
            run.perform(step);
        }
        let mut bytes = postcard::to_allocvec(&run.pc.save()).expect("serializable");
        for (at, value) in spoils {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let Ok(state) = postcard::from_bytes::<PcStateV1>(&bytes) else { return Ok(()) };
        let Ok(pc) = Pc::restore(PcConfig { tsc_hz: state.tsc_hz, ..config() }, state) else {
            return Ok(());
        };
        run.pc = pc;
        for step in &after {
            run.perform(step);
            run.pc.expire(run.now, &mut run.world);
            prop_assert!(run.pc.next_deadline().is_none_or(|deadline| deadline > run.now));
        }
    }
}
