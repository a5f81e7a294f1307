//! The pair of 8259As against their data sheet, and against the naive model.

use proptest::prelude::*;

use super::Register::{Command, Data};
use super::Which::{Master, Slave};
use super::reference::Pair;
use super::*;

const EOI: u8 = 0x20;

/// A pair as an operating system sets it up: vectors from 0x20 and 0x28, nothing masked.
fn pic() -> Pic {
    pic_with(0x01)
}

/// The same with another ICW4.
fn pic_with(icw4: u8) -> Pic {
    let mut pic = Pic::new();
    for (which, base, cascade) in [(Master, 0x20, 0x04), (Slave, 0x28, 0x02)] {
        pic.write(which, Command, 0x11);
        pic.write(which, Data, base);
        pic.write(which, Data, cascade);
        pic.write(which, Data, icw4);
        pic.write(which, Data, 0x00);
    }
    pic
}

fn requested(pic: &mut Pic, which: Which) -> u8 {
    pic.write(which, Command, 0x0A);
    pic.read(which, Command)
}

fn in_service(pic: &mut Pic, which: Which) -> u8 {
    pic.write(which, Command, 0x0B);
    pic.read(which, Command)
}

#[test]
fn an_edge_is_one_interrupt() {
    let mut pic = pic();
    pic.set_line(3, true);
    assert!(pic.interrupt());
    assert_eq!(requested(&mut pic, Master), 0x08);
    assert_eq!(pic.acknowledge(), 0x23);
    assert_eq!(requested(&mut pic, Master), 0x00);
    assert_eq!(in_service(&mut pic, Master), 0x08);
    pic.write(Master, Command, EOI);
    assert!(!pic.interrupt(), "the line is high, but did not rise again");
    pic.set_line(3, false);
    pic.set_line(3, true);
    assert!(pic.interrupt());
}

#[test]
fn a_level_is_an_interrupt_as_long_as_it_lasts() {
    let mut pic = pic();
    pic.set_sense(Slave, 0xFF);
    pic.set_sense(Master, 0xFF);
    assert_eq!((pic.sense(Master), pic.sense(Slave)), (0xF8, 0xDE));
    pic.set_line(11, true);
    assert_eq!(pic.acknowledge(), 0x2B);
    assert!(!pic.interrupt());
    pic.write(Slave, Command, EOI);
    pic.write(Master, Command, EOI);
    assert!(pic.interrupt());
    pic.set_line(11, false);
    assert!(!pic.interrupt());
}

#[test]
fn priorities_nest() {
    let mut pic = pic();
    pic.set_line(5, true);
    assert_eq!(pic.acknowledge(), 0x25);
    pic.set_line(6, true);
    assert!(!pic.interrupt(), "a lower one waits");
    pic.set_line(1, true);
    assert_eq!(pic.acknowledge(), 0x21);
    assert_eq!(in_service(&mut pic, Master), 0x22);
    pic.write(Master, Command, EOI);
    assert_eq!(in_service(&mut pic, Master), 0x20, "the highest one ended");
    pic.write(Master, Command, EOI);
    assert_eq!(pic.acknowledge(), 0x26);
}

#[test]
fn the_slave_interrupts_through_input_2() {
    let mut pic = pic();
    pic.set_line(12, true);
    pic.set_line(8, true);
    assert_eq!(requested(&mut pic, Master), 0x04);
    assert_eq!(pic.acknowledge(), 0x28);
    assert_eq!(
        (in_service(&mut pic, Master), in_service(&mut pic, Slave)),
        (0x04, 0x01)
    );
    pic.write(Slave, Command, EOI);
    assert!(!pic.interrupt(), "the master still serves the slave");
    pic.write(Master, Command, EOI);
    assert_eq!(pic.acknowledge(), 0x2C);
}

#[test]
fn a_request_that_goes_away_is_spurious() {
    let mut pic = pic();
    pic.set_line(3, true);
    pic.set_line(3, false);
    assert!(!pic.interrupt());
    assert_eq!(pic.acknowledge(), 0x27);
    assert_eq!(
        in_service(&mut pic, Master),
        0x00,
        "the default has no in-service bit"
    );
    // A slave without a request when the master asks it.
    let mut chip = Chip::new(0x28, 2);
    assert_eq!(chip.acknowledge(), 7);
    assert_eq!(chip.status(), 0);
}

#[test]
fn icw1_clears_the_mask_and_the_edges() {
    let mut pic = pic();
    pic.write(Master, Data, 0xFF);
    pic.set_line(3, true);
    pic.write(Master, Command, 0x11);
    for word in [0x20, 0x04, 0x01] {
        pic.write(Master, Data, word);
    }
    assert_eq!(pic.read(Master, Data), 0x00);
    assert!(!pic.interrupt());
    assert_eq!(requested(&mut pic, Master), 0x00);
}

#[test]
fn a_mask_holds_back_and_does_not_forget() {
    let mut pic = pic();
    pic.write(Master, Data, 0x08);
    pic.set_line(3, true);
    assert!(!pic.interrupt());
    assert_eq!(requested(&mut pic, Master), 0x08);
    pic.write(Master, Data, 0x00);
    assert!(pic.interrupt());
    assert_eq!(pic.masked(), Masked::empty());
    pic.write(Slave, Data, 0x02);
    assert_eq!(pic.masked(), Masked::SYSTEM);
    pic.write(Master, Data, 0x05);
    assert_eq!(pic.masked(), Masked::all());
}

#[test]
fn automatic_end_of_interrupt_and_rotation() {
    let mut pic = pic_with(0x03);
    pic.set_line(0, true);
    pic.set_line(1, true);
    pic.write(Master, Command, 0x80);
    assert_eq!(pic.acknowledge(), 0x20);
    assert_eq!(in_service(&mut pic, Master), 0x00);
    pic.set_line(0, false);
    pic.set_line(0, true);
    assert_eq!(pic.acknowledge(), 0x21, "0 has become the lowest");
    assert_eq!(pic.acknowledge(), 0x20);
}

#[test]
fn two_slave_requests_with_automatic_end_are_two_interrupts() {
    let mut pic = pic_with(0x03);
    pic.set_line(8, true);
    pic.set_line(9, true);
    assert_eq!(pic.acknowledge(), 0x28);
    assert!(pic.interrupt());
    assert_eq!(pic.acknowledge(), 0x29);
    assert!(!pic.interrupt());
}

#[test]
fn rotation_by_command() {
    let mut pic = pic();
    pic.write(Master, Command, 0xC0 | 4);
    for irq in [4, 5] {
        pic.set_line(irq, true);
    }
    assert_eq!(pic.acknowledge(), 0x25, "5 is the highest");
    pic.write(Master, Command, 0xA0);
    pic.set_line(6, true);
    pic.set_line(5, false);
    pic.set_line(5, true);
    assert_eq!(pic.acknowledge(), 0x26, "5 has become the lowest");
    pic.write(Master, Command, 0xE0 | 6);
    assert_eq!(pic.acknowledge(), 0x24);
    pic.write(Master, Command, 0x60 | 4);
    assert_eq!(pic.acknowledge(), 0x25);
}

#[test]
fn special_mask_mode_lets_lower_ones_through() {
    let mut pic = pic();
    pic.set_line(1, true);
    assert_eq!(pic.acknowledge(), 0x21);
    pic.set_line(6, true);
    assert!(!pic.interrupt());
    pic.write(Master, Data, 0x02);
    assert!(!pic.interrupt());
    pic.write(Master, Command, 0x68);
    assert_eq!(pic.acknowledge(), 0x26);
    pic.write(Master, Command, EOI);
    assert_eq!(in_service(&mut pic, Master), 0x02, "out of an EOI's reach");
    pic.write(Master, Command, 0x48);
    pic.write(Master, Command, EOI);
    assert_eq!(in_service(&mut pic, Master), 0x00);
}

#[test]
fn special_fully_nested_mode_lets_the_slave_nest() {
    for (icw4, nests) in [(0x01, false), (0x11, true)] {
        let mut pic = pic_with(icw4);
        pic.set_line(12, true);
        assert_eq!(pic.acknowledge(), 0x2C);
        pic.set_line(9, true);
        pic.set_line(3, true);
        assert_eq!(pic.interrupt(), nests);
        if nests {
            assert_eq!(pic.acknowledge(), 0x29);
        }
    }
}

#[test]
fn poll_is_an_acknowledge() {
    let mut pic = pic();
    pic.write(Master, Command, 0x0C);
    assert_eq!(pic.read(Master, Command), 0x07);
    pic.set_line(10, true);
    pic.write(Master, Command, 0x0C);
    assert_eq!(pic.read(Master, Data), 0x82);
    pic.write(Slave, Command, 0x0C);
    assert_eq!(pic.read(Slave, Command), 0x82);
    assert_eq!(
        (in_service(&mut pic, Master), in_service(&mut pic, Slave)),
        (0x04, 0x04)
    );
}

#[test]
fn a_controller_alone_has_no_icw3() {
    let mut pic = Pic::new();
    pic.write(Master, Command, 0x13);
    pic.write(Master, Data, 0x40);
    pic.write(Master, Data, 0x01);
    pic.write(Master, Data, 0xFB);
    assert_eq!(pic.read(Master, Data), 0xFB);
    pic.write(Slave, Data, 0x00);
    pic.set_line(8, true);
    assert_eq!(pic.acknowledge(), 0x42);
}

#[test]
fn reset_keeps_lines_and_drops_requests() {
    let mut pic = pic();
    pic.set_line(1, true);
    pic.set_line(9, true);
    pic.reset();
    assert!(!pic.interrupt());
    assert_eq!(pic.read(Master, Data), 0xFF);
    assert!(pic.line(1) && pic.line(9));
    assert_eq!(requested(&mut pic, Master), 0);
}

#[test]
fn a_hostile_state_is_refused() {
    let mut pic = pic();
    pic.set_line(9, true);
    pic.acknowledge();
    let good = pic.save();
    assert_eq!(Pic::restore(&good).expect("its own state").save(), good);
    let spoil: [fn(&mut PicStateV1); 7] = [
        |s| s.master.lowest = 8,
        |s| s.master.vector_base = 1,
        |s| s.master.level = 0x01,
        |s| s.slave.requests = 0x80,
        |s| s.slave.modes = 0x80,
        |s| s.slave.icw4 = 0x80,
        |s| s.master.lines = 0x04,
    ];
    for (index, spoil) in spoil.iter().enumerate() {
        let mut state = good.clone();
        spoil(&mut state);
        assert!(Pic::restore(&state).is_err(), "case {index}");
    }
}

/// What happens to the pair.
#[derive(Clone, Debug)]
enum Step {
    Line(u8, bool),
    StrikeTimer,
    Write(bool, bool, u8),
    Read(bool, bool),
    Sense(bool, u8),
    Acknowledge,
    SetUp(u8, u8),
    Save,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let command = prop_oneof![
        4 => Just(EOI),
        2 => any::<u8>().prop_map(|v| v & 0xE7),
        2 => any::<u8>().prop_map(|v| v & 0x67 | 0x08),
        1 => any::<u8>(),
    ];
    let step = prop_oneof![
        8 => (0u8..16, any::<bool>()).prop_map(|(irq, high)| Step::Line(irq, high)),
        2 => Just(Step::StrikeTimer),
        4 => (any::<bool>(), command).prop_map(|(slave, v)| Step::Write(slave, false, v)),
        2 => (any::<bool>(), any::<u8>()).prop_map(|(slave, v)| Step::Write(slave, true, v)),
        3 => (any::<bool>(), any::<bool>()).prop_map(|(slave, data)| Step::Read(slave, data)),
        1 => (any::<bool>(), any::<u8>()).prop_map(|(slave, v)| Step::Sense(slave, v)),
        6 => Just(Step::Acknowledge),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(m, s)| Step::SetUp(m & 0x1F, s & 0x1F)),
        1 => Just(Step::Save),
    ];
    proptest::collection::vec(step, 1..150)
}

proptest! {
    #[test]
    fn the_pair_is_the_naive_one(steps in steps()) {
        let mut pic = Pic::new();
        let mut pair = Pair::new();
        let which = |slave: bool| if slave { Slave } else { Master };
        let register = |data: bool| if data { Data } else { Command };
        for step in steps {
            match step {
                Step::Line(irq, high) => {
                    pic.set_line(irq, high);
                    pair.drive(irq, high);
                }
                Step::StrikeTimer => {
                    pic.strike_timer();
                    pair.drive(0, false);
                    pair.drive(0, true);
                }
                Step::Write(slave, data, value) => {
                    pic.write(which(slave), register(data), value);
                    pair.write(usize::from(slave), data, value);
                }
                Step::Read(slave, data) => {
                    let read = pic.read(which(slave), register(data));
                    prop_assert_eq!(read, pair.read(usize::from(slave), data));
                }
                Step::Sense(slave, value) => {
                    pic.set_sense(which(slave), value);
                    pair.sense(usize::from(slave), value);
                }
                Step::Acknowledge => {
                    prop_assert_eq!(pic.acknowledge(), pair.acknowledge());
                }
                Step::SetUp(master, slave) => {
                    for (chip, words) in
                        [(false, [0x20, 0x04, master]), (true, [0x28, 0x02, slave])]
                    {
                        pic.write(which(chip), Command, 0x11);
                        pair.write(usize::from(chip), false, 0x11);
                        for word in words {
                            pic.write(which(chip), Data, word);
                            pair.write(usize::from(chip), true, word);
                        }
                    }
                }
                Step::Save => {
                    let state = pic.save();
                    pic = Pic::restore(&state).expect("its own state");
                    prop_assert_eq!(pic.save(), state);
                }
            }
            prop_assert_eq!(pic.interrupt(), pair.interrupt());
        }
    }
}
