//! The board as a whole, as a kernel meets it.

use net::MacAddress;

use super::*;
use crate::nic::NicModel;

const TSC_HZ: u64 = 1_000_000_000;
const MILLISECOND: u64 = TSC_HZ / 1000;

pub(super) use crate::virtio::tests::World;
use crate::virtio::{Disk, VirtioConfig};

pub(crate) fn config() -> PcConfig {
    PcConfig {
        tsc_hz: TSC_HZ,
        memory_bytes: 64 << 20,
        wall_clock: 1_000_000_000,
        com1: true,
        rtc: true,
        pci: true,
        io_apic: true,
        virtio: VirtioConfig {
            disks: vec![
                Disk {
                    sectors: 64,
                    read_only: false,
                },
                Disk {
                    sectors: 8,
                    read_only: true,
                },
            ],
            console: true,
            entropy: true,
        },
        nics: vec![NicConfig {
            model: NicModel::Virtio { pairs: 2 },
            mac: MacAddress([0x52, 0x54, 0, 1, 2, 3]),
            mtu: 1500,
        }],
        watchdog: None,
    }
}

/// A board, its world and its time.
struct Bench {
    pc: Pc,
    world: World,
    now: Ticks,
}

impl Bench {
    fn new() -> Self {
        Self::with(config())
    }

    fn with(config: PcConfig) -> Self {
        Self {
            pc: Pc::new(config, Ticks(0)),
            world: World::default(),
            now: Ticks(0),
        }
    }

    fn outb(&mut self, port: u16, value: u8) {
        self.pc.write(
            port,
            Width::Byte,
            u32::from(value),
            self.now,
            &mut self.world,
        );
    }

    fn inb(&mut self, port: u16) -> u8 {
        self.pc.read(port, Width::Byte, self.now, &mut self.world) as u8
    }

    fn out(&mut self, port: u16, width: Width, value: u32) {
        self.pc.write(port, width, value, self.now, &mut self.world);
    }

    fn read(&mut self, port: u16, width: Width) -> u32 {
        self.pc.read(port, width, self.now, &mut self.world)
    }

    /// Vectors from 0x20 and 0x28, nothing masked.
    fn set_up_interrupts(&mut self) {
        for (port, base, cascade) in [(0x20, 0x20, 4), (0xA0, 0x28, 2)] {
            self.outb(port, 0x11);
            for word in [base, cascade, 1, 0] {
                self.outb(port + 1, word);
            }
        }
    }

    /// Serves an interrupt as a kernel does.
    fn serve(&mut self) -> Option<u8> {
        if !self.pc.interrupt_pending() {
            return None;
        }
        let vector = self.pc.acknowledge();
        if vector >= 0x28 {
            self.outb(0xA0, 0x20);
        }
        self.outb(0x20, 0x20);
        Some(vector)
    }
}

#[test]
fn a_fresh_board_asks_for_nothing() {
    let bench = Bench::new();
    assert_eq!(bench.pc.next_deadline(), None, "everything is masked");
    assert!(!bench.pc.interrupt_pending());
    assert_eq!(bench.pc.unclaimed().count(), 0);
}

#[test]
fn timer_interrupts_come_exactly_at_their_deadlines() {
    let mut bench = Bench::new();
    bench.set_up_interrupts();
    bench.outb(0x43, 0x34);
    bench.outb(0x40, 0xA9);
    bench.outb(0x40, 0x04);
    let mut last = Ticks(0);
    for tick in 0..1000 {
        let deadline = bench.pc.next_deadline().expect("a periodic timer");
        if tick > 0 {
            let period = deadline.0 - last.0;
            assert!(
                period.abs_diff(999_847) <= 1,
                "1193 cycles, not {period} ns"
            );
        }
        bench.pc.expire(Ticks(deadline.0 - 1), &mut bench.world);
        assert!(!bench.pc.interrupt_pending());
        bench.now = deadline;
        bench.pc.expire(deadline, &mut bench.world);
        assert_eq!(bench.serve(), Some(0x20));
        last = deadline;
    }
    assert_eq!(bench.pc.missed_timer_ticks(), 0);
}

#[test]
fn a_masked_timer_needs_no_deadline_and_is_seen_all_the_same() {
    let mut bench = Bench::new();
    bench.set_up_interrupts();
    bench.outb(0x43, 0x34);
    bench.outb(0x40, 0xA9);
    bench.outb(0x40, 0x04);
    bench.outb(0x21, 0x01);
    assert_eq!(bench.pc.next_deadline(), None);
    bench.now = Ticks(10 * MILLISECOND);
    bench.outb(0x20, 0x0A);
    assert_eq!(bench.inb(0x20) & 1, 1, "IRR");
    bench.outb(0x21, 0x00);
    assert!(bench.pc.next_deadline().expect("unmasked") > bench.now);
    assert_eq!(bench.serve(), Some(0x20));
    assert_eq!(bench.serve(), None);
}

#[test]
fn a_late_square_wave_still_interrupts() {
    let mut bench = Bench::new();
    bench.set_up_interrupts();
    bench.outb(0x43, 0x36);
    bench.outb(0x40, 0x9C);
    bench.outb(0x40, 0x2E);
    // Three quarters of the second period: the output is low.
    bench.now = Ticks(17_500_000);
    bench.pc.expire(bench.now, &mut bench.world);
    assert_eq!(bench.serve(), Some(0x20));
    bench.now = Ticks(20_100_000);
    bench.pc.expire(bench.now, &mut bench.world);
    assert_eq!(bench.serve(), Some(0x20));
}

#[test]
fn a_one_shot_interrupts_once() {
    let mut bench = Bench::new();
    bench.set_up_interrupts();
    bench.outb(0x43, 0x30);
    bench.outb(0x40, 0xFF);
    bench.outb(0x40, 0x00);
    bench.now = bench.pc.next_deadline().expect("armed");
    bench.pc.expire(bench.now, &mut bench.world);
    assert_eq!(bench.serve(), Some(0x20));
    assert_eq!(bench.pc.next_deadline(), None);
}

#[test]
fn the_clock_interrupts_at_1024_hz_while_it_is_read() {
    let mut bench = Bench::new();
    bench.set_up_interrupts();
    bench.outb(0x70, 0x0B);
    bench.outb(0x71, 0x42);
    bench.outb(0x21, 0x01);
    for beat in 1..=100u64 {
        bench.now = bench.pc.next_deadline().expect("periodic");
        assert!(bench.now.0.abs_diff(beat * TSC_HZ / 1024) <= 1);
        bench.pc.expire(bench.now, &mut bench.world);
        assert_eq!(bench.serve(), Some(0x28));
        assert_eq!(
            bench.pc.next_deadline(),
            None,
            "not before register C is read"
        );
        bench.outb(0x70, 0x0C);
        assert_eq!(bench.inb(0x71), 0xC0);
    }
}

#[test]
fn the_console_talks_and_listens() {
    let mut bench = Bench::new();
    bench.set_up_interrupts();
    for byte in *b"hello" {
        while bench.inb(0x3FD) & 0x20 == 0 {}
        bench.outb(0x3F8, byte);
    }
    assert_eq!(bench.world.console, b"hello");
    bench.outb(0x3FA, 0xC7);
    bench.outb(0x3FC, 0x0B);
    bench.outb(0x3F9, 0x01);
    assert_eq!(bench.pc.console_room(), 16);
    assert_eq!(
        bench
            .pc
            .console_input(b"a line that is longer", bench.now, &mut bench.world),
        16
    );
    assert_eq!(bench.pc.console_room(), 0);
    assert_eq!(bench.serve(), Some(0x24));
    let mut line = Vec::new();
    while bench.inb(0x3FD) & 1 != 0 {
        line.push(bench.inb(0x3F8));
    }
    assert_eq!(line, b"a line that is l");
    assert_eq!(bench.serve(), None);
    assert_eq!(
        bench
            .pc
            .console_input(b"onger", bench.now, &mut bench.world),
        5
    );
    assert_eq!(bench.serve(), Some(0x24), "a character timeout");
}

#[test]
fn each_transmission_is_a_new_interrupt() {
    let mut bench = Bench::new();
    bench.set_up_interrupts();
    bench.outb(0x3FC, 0x0B);
    bench.outb(0x3F9, 0x02);
    assert_eq!(bench.serve(), Some(0x24));
    for _ in 0..3 {
        // A handler that does not look at the identification register.
        bench.outb(0x3F8, b'.');
        assert_eq!(bench.serve(), Some(0x24));
    }
    assert_eq!(bench.inb(0x3FA), 0x02);
    assert_eq!(bench.serve(), None);
}

#[test]
fn pci_is_found_as_kernels_look_for_it() {
    let mut bench = Bench::new();
    bench.outb(0xCFB, 0x01);
    assert_eq!(
        bench.read(0xCF8, Width::Dword),
        0,
        "a byte does not reach the address"
    );
    assert_eq!(bench.read(0xCFC, Width::Dword), u32::MAX);
    bench.out(0xCF8, Width::Dword, 0x8000_0000);
    assert_eq!(bench.read(0xCF8, Width::Dword), 0x8000_0000);
    assert_eq!(bench.read(0xCFC, Width::Dword), 0x1237_8086);
    assert_eq!(bench.read(0xCFE, Width::Word), 0x1237);
    assert_eq!(bench.inb(0xCFD), 0x80);
    assert_eq!(bench.inb(0xCF9), 0, "reset control, not the address");
    assert_eq!(
        bench.read(0xCFF, Width::Word),
        0xFF12,
        "half of it lies beyond"
    );
    bench.out(0xCF8, Width::Dword, 0x8000_0860);
    bench.outb(0xCFE, 0x0B);
    assert_eq!(bench.read(0xCFC, Width::Dword), 0x0B0B_0B0A);
    assert!(bench.world.resets.is_empty());
}

#[test]
fn without_pci_an_address_write_does_not_reset() {
    let mut bench = Bench::with(PcConfig {
        pci: false,
        ..config()
    });
    bench.out(0xCF8, Width::Dword, 0x8000_0600);
    assert_eq!(bench.read(0xCF8, Width::Dword), u32::MAX);
    assert!(bench.world.resets.is_empty());
    assert_eq!(bench.pc.unclaimed().collect::<Vec<_>>(), [(0xCF8, 2)]);
}

#[test]
fn ways_to_reset_and_to_power_off() {
    let mut bench = Bench::new();
    bench.outb(0x92, 0x03);
    bench.outb(0xCF9, 0x02);
    bench.outb(0xCF9, 0x06);
    bench.outb(0x64, 0xFE);
    let causes = [ResetCause::Port92, ResetCause::Cf9, ResetCause::Keyboard];
    assert_eq!(bench.world.resets, causes);
    bench.out(0x604, Width::Word, 0x3400);
    assert_eq!(bench.world.power_offs, 1);
}

#[test]
fn wide_accesses_are_split_into_bytes() {
    let mut bench = Bench::new();
    bench.out(0x70, Width::Word, 0x5A40);
    assert_eq!(bench.inb(0x71), 0x5A);
    bench.out(0x20, Width::Word, 0xA50B);
    assert_eq!(bench.inb(0x21), 0xA5);
    bench.now = Ticks(TSC_HZ);
    assert_eq!(bench.read(0x608, Width::Dword), 3_579_545);
    assert_eq!(bench.read(0x60A, Width::Word), 3_579_545 >> 16);
}

#[test]
fn nobody_answers_elsewhere() {
    let mut bench = Bench::with(PcConfig {
        com1: false,
        rtc: false,
        ..config()
    });
    assert_eq!(bench.inb(0x3FD), 0xFF);
    assert_eq!(bench.inb(0x71), 0xFF);
    assert_eq!(bench.read(0x1F0, Width::Word), 0xFFFF);
    assert_eq!(bench.read(0x1F0, Width::Dword), 0xFFFF_FFFF);
    bench.outb(0x80, 1);
    bench.outb(0xED, 1);
    bench.out(0xFFFF, Width::Dword, 0);
    let counts: Vec<_> = bench.pc.unclaimed().collect();
    assert_eq!(counts, [(0x3FD, 1), (0x71, 1), (0x1F0, 2), (0xFFFF, 1)]);
    assert_eq!(bench.pc.unclaimed_elsewhere(), 0);
    assert_eq!(bench.pc.console_input(b"x", bench.now, &mut bench.world), 0);
}

#[test]
fn the_delay_loop_of_port_61_counts_microseconds() {
    let mut bench = Bench::new();
    let mut toggles = 0;
    let mut last = bench.inb(0x61) & 0x10;
    while bench.now.0 < 10 * MILLISECOND {
        bench.now.0 += 1000;
        let bit = bench.inb(0x61) & 0x10;
        toggles += u32::from(bit != last);
        last = bit;
    }
    assert_eq!(toggles, 662);
}

#[test]
fn counter_2_measures_the_tsc() {
    let mut bench = Bench::new();
    bench.now = Ticks(123_456);
    bench.outb(0x61, 0x01);
    bench.outb(0x43, 0xB0);
    let count = 59_659u16;
    bench.outb(0x42, count as u8);
    bench.outb(0x42, (count >> 8) as u8);
    let start = bench.now.0;
    while bench.inb(0x61) & 0x20 == 0 {
        bench.now.0 += 100;
    }
    let measured = (bench.now.0 - start) * 1_193_182 / u64::from(count);
    assert!(measured.abs_diff(TSC_HZ) < TSC_HZ / 10_000, "{measured} Hz");
}

#[test]
fn reset_starts_over_and_keeps_the_time() {
    let mut bench = Bench::new();
    bench.set_up_interrupts();
    bench.outb(0x70, 0x0B);
    bench.outb(0x71, 0x42);
    bench.outb(0x3FC, 0x0F);
    bench.pc.console_input(b"x", bench.now, &mut bench.world);
    bench.now = Ticks(5 * TSC_HZ);
    bench.pc.expire(bench.now, &mut bench.world);
    bench.pc.reset(bench.now, &mut bench.world);
    assert!(!bench.pc.interrupt_pending());
    assert_eq!(bench.pc.next_deadline(), None);
    assert_eq!(bench.inb(0x21), 0xFF);
    assert_eq!(bench.inb(0x3FC), 0x03);
    bench.outb(0x70, 0x00);
    assert_eq!(bench.inb(0x71), 0x45);
    bench.set_up_interrupts();
    assert_eq!(bench.serve(), None);
}

#[test]
fn a_state_of_another_board_is_refused() {
    let state = Pc::new(config(), Ticks(0)).save();
    let other = PcConfig {
        tsc_hz: TSC_HZ + TSC_HZ / 1000,
        ..config()
    };
    assert_eq!(
        Pc::restore(other, state.clone()).err(),
        Some(StateError::Frequency)
    );
    let other = PcConfig {
        rtc: false,
        ..config()
    };
    assert_eq!(
        Pc::restore(other, state.clone()).err(),
        Some(StateError::Devices)
    );
    let mut spoilt = state.clone();
    spoilt.pic.master.lines |= 0x10;
    let refused = Pc::restore(config(), spoilt).err();
    assert_eq!(refused, Some(StateError::Invalid("interrupt lines")));
    assert!(Pc::restore(config(), state).is_ok());
}

#[test]
fn the_power_button_is_an_interrupt() {
    let mut bench = Bench::new();
    bench.set_up_interrupts();
    bench.out(0x602, Width::Word, 0x100);
    bench.pc.press_power_button();
    assert_eq!(bench.serve(), Some(0x29));
}

#[test]
fn the_io_apic_hears_the_lines_too() {
    let mut bench = Bench::new();
    // Input 2, the timer's: vector 0x31, edge, to processor 0. The 8259s stay masked.
    bench.pc.io_apic_write(0x00, 0x10 + 2 * 2);
    bench.pc.io_apic_write(0x10, 0x31);
    bench.outb(0x43, 0x34);
    bench.outb(0x40, 0xE8);
    bench.outb(0x40, 0x03);
    let due = bench.pc.next_deadline().unwrap();
    bench.pc.expire(Ticks(due.0 - 1), &mut bench.world);
    assert!(bench.pc.take_message().is_none());
    bench.pc.expire(due, &mut bench.world);
    let message = bench.pc.take_message().unwrap().message;
    assert_eq!(message.vector, 0x31);
    assert!(bench.pc.take_message().is_none());
    assert!(!bench.pc.interrupt_pending());
    let restored = Pc::restore(config(), bench.pc.save()).unwrap();
    assert_eq!(restored.next_deadline(), bench.pc.next_deadline());
}

#[test]
fn without_an_io_apic_its_page_reads_all_ones() {
    let mut bench = Bench::with(PcConfig {
        io_apic: false,
        ..config()
    });
    bench.pc.io_apic_write(0x00, 0x01);
    assert_eq!(bench.pc.io_apic_read(0x10), u32::MAX);
}
