//! The board: which device answers which port, and how interrupt lines and deadlines meet.
//!
//! Every access first brings due timers up to the time of the access, so a guest sees each event at its exact time, be
//! the hypervisor's own timer late or unarmed. That one is armed ([`Pc::next_deadline`]) only for events whose
//! interrupt is not masked: a masked one can wait for the access that unmasks it.

mod adapters;
mod bus;
mod console;
mod effects;
mod lines;
mod network;
mod ports;
#[cfg(test)]
mod properties;
mod state;
mod strings;
#[cfg(test)]
pub(crate) mod tests;
mod unclaimed;
mod watchdog;

use alloc::vec::Vec;

use crate::ioapic::IoApic;
use crate::keyboard::Keyboard;
use crate::msi::Dispatch;
use crate::nic::NicConfig;
use crate::pci::Pci;
use crate::pic::{Masked, Pic};
use crate::pit::Pit;
use crate::power::{Power, SCI_IRQ};
use crate::rtc::Rtc;
use crate::system::System;
use crate::time::Ticks;
use crate::uart::Uart;
use crate::virtio::VirtioConfig;
use crate::watchdog::WatchdogConfig;
use adapters::Adapter;
pub use effects::{DiskError, Effects, MemoryAccess, OutsideMemory};
use lines::Lines;
pub use state::{CLOCK_TOLERANCE, PcStateV1, StateError};
use unclaimed::Unclaimed;

/// Interrupt request lines.
const IRQ_TIMER: u8 = 0;
const IRQ_COM1: u8 = 4;
const IRQ_CLOCK: u8 = 8;

/// What a virtual PC is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcConfig {
    /// Frequency of the guest's TSC in Hz; above 3579545, so that it is the fastest clock of the board.
    pub tsc_hz: u64,
    /// Guest memory in bytes, as the CMOS memory reports it: up to 3 GiB from address 0, the rest from 4 GiB.
    pub memory_bytes: u64,
    /// Wall clock at the moment of creation, in Unix seconds (UTC).
    pub wall_clock: u64,
    /// Whether there is a 16550 at 0x3F8, IRQ 4.
    pub com1: bool,
    /// Whether there is a MC146818A at 0x70, IRQ 8.
    pub rtc: bool,
    /// Whether there is PCI configuration mechanism 1 at 0xCF8.
    pub pci: bool,
    /// Whether there is an I/O APIC, whose page the processor's side maps ([`Pc::io_apic_read`]).
    pub io_apic: bool,
    /// The virtio devices. They need `pci`.
    pub virtio: VirtioConfig,
    /// The network cards. Those on the PCI bus are behind the other virtio devices there, in their order.
    pub nics: Vec<NicConfig>,
    /// The watchdog, if there is one. It needs `pci`, where it is behind all others.
    pub watchdog: Option<WatchdogConfig>,
}

/// The size of a port access.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Word,
    /// 32 bits.
    Dword,
}

impl Width {
    /// The size in bytes: 1, 2 or 4.
    #[must_use]
    pub const fn bytes(self) -> u8 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
        }
    }

    /// All ones of this size.
    #[must_use]
    pub const fn mask(self) -> u32 {
        match self {
            Self::Byte => 0xFF,
            Self::Word => 0xFFFF,
            Self::Dword => 0xFFFF_FFFF,
        }
    }
}

/// What made the guest reset its board.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ResetCause {
    /// Bit 0 of port 0x92 rose.
    Port92,
    /// Bit 2 of port 0xCF9 rose.
    Cf9,
    /// The keyboard controller's reset line was pulsed.
    Keyboard,
}

/// A virtual PC.
#[derive(Clone, Debug)]
pub struct Pc {
    config: PcConfig,
    lines: Lines,
    pit: Pit,
    keyboard: Keyboard,
    system: System,
    power: Power,
    rtc: Option<Rtc>,
    uart: Option<Uart>,
    pci: Option<Pci>,
    adapters: Vec<Adapter>,
    unclaimed: Unclaimed,
    /// When the timer, the clock, the system control interrupt and the watchdog are due.
    timer_next: Ticks,
    clock_next: Ticks,
    power_next: Ticks,
    watchdog_next: Ticks,
    /// The earliest of them: an access from then on must bring them up to date first.
    next_event: Ticks,
    /// When devices go on with work that they left.
    work_next: Ticks,
    /// The earliest interrupt of a timer that is not masked.
    tick_due: Ticks,
    /// The earliest of all that must be seen to.
    deadline: Ticks,
}

impl Pc {
    /// A board as its firmware leaves it, at guest time `now`.
    #[must_use]
    pub fn new(config: PcConfig, now: Ticks) -> Self {
        let PcConfig {
            tsc_hz,
            memory_bytes,
            wall_clock,
            ..
        } = config;
        let mut pc = Self {
            lines: Lines::new(Pic::new(), config.io_apic.then(IoApic::new)),
            pit: Pit::new(tsc_hz, now),
            keyboard: Keyboard::new(),
            system: System::new(),
            power: Power::new(tsc_hz, now),
            rtc: config
                .rtc
                .then(|| Rtc::new(tsc_hz, memory_bytes, wall_clock, now)),
            uart: config.com1.then(Uart::new),
            pci: config.pci.then(|| Pci::new(&config)),
            adapters: Adapter::all(&config.nics),
            unclaimed: Unclaimed::new(),
            config,
            timer_next: Ticks::NEVER,
            clock_next: Ticks::NEVER,
            power_next: Ticks::NEVER,
            watchdog_next: Ticks::NEVER,
            next_event: Ticks::NEVER,
            work_next: Ticks::NEVER,
            tick_due: Ticks::NEVER,
            deadline: Ticks::NEVER,
        };
        pc.start_lines();
        pc
    }

    /// The frequency in Hz that the board's clocks take the TSC to have.
    #[must_use]
    pub const fn clock_hz(&self) -> u64 {
        self.config.tsc_hz
    }

    /// A hardware reset at `now`. The real-time clock keeps its time and memory, the watchdog its flag; counts of unclaimed
    /// accesses go on.
    pub fn reset(&mut self, now: Ticks, effects: &mut impl Effects) {
        let tsc_hz = self.config.tsc_hz;
        self.pit = Pit::new(tsc_hz, now);
        self.keyboard = Keyboard::new();
        self.system = System::new();
        self.power = Power::new(tsc_hz, now);
        if let Some(rtc) = &mut self.rtc {
            rtc.reset(now);
        }
        self.uart = self.config.com1.then(Uart::new);
        if let Some(pci) = &mut self.pci {
            pci.reset(effects);
        }
        for adapter in &mut self.adapters {
            adapter.card.power_up();
        }
        self.start_lines();
        self.settle_bus(now);
    }

    /// Gives the lines their levels after a reset, without requests.
    fn start_lines(&mut self) {
        self.lines.set(IRQ_TIMER, self.pit.output());
        for irq in [IRQ_COM1, IRQ_CLOCK, SCI_IRQ] {
            self.lines.set(irq, false);
        }
        self.settle_lines();
        self.lines.reset();
        if self.pci.is_some() {
            self.lines.share_pci_lines();
        }
        self.rearm_all();
    }

    /// The earliest time at which [`expire`](Self::expire) must be called.
    #[inline]
    #[must_use]
    pub fn next_deadline(&self) -> Option<Ticks> {
        (self.deadline != Ticks::NEVER).then_some(self.deadline)
    }

    /// When a timer interrupts next, [`Ticks::NEVER`] if none does: the deadlines of devices that go on with their work and the
    /// watchdog's are not among these.
    #[inline]
    #[must_use]
    pub fn next_tick(&self) -> Ticks {
        self.tick_due
    }

    /// Brings every timer up to `now`, and lets devices do some of the work that they left. Here alone a watchdog that ran
    /// out is told of.
    #[inline]
    pub fn expire(&mut self, now: Ticks, effects: &mut impl Effects) {
        if now >= self.next_event {
            self.catch_up(now);
            self.tell_of_watchdog(effects);
        }
        if now >= self.work_next {
            if effects.has_time() {
                self.work(now, effects);
            } else {
                self.put_work_off(now);
            }
        }
    }

    /// Brings every timer up to `now`.
    #[inline]
    fn tick(&mut self, now: Ticks) {
        if now >= self.next_event {
            self.catch_up(now);
        }
    }

    /// Lets happen what is due by `now`.
    #[cold]
    #[inline(never)]
    fn catch_up(&mut self, now: Ticks) {
        if now >= self.timer_next {
            if self.pit.sync(now) {
                // The output may have fallen and risen again, or fallen since. A tick that is late because the guest
                // did not run is not taken back, so the line stays high until the next one.
                self.lines.strike_timer();
            }
            self.timer_next = self.pit.next_rise();
        }
        if now >= self.clock_next
            && let Some(rtc) = &mut self.rtc
        {
            rtc.sync(now);
            self.lines.set(IRQ_CLOCK, rtc.interrupt());
            self.clock_next = rtc.next_rise();
        }
        if now >= self.power_next {
            self.power.sync(now);
            self.lines.set(SCI_IRQ, self.power.interrupt());
            self.power_next = self.power.next_rise();
        }
        if now >= self.watchdog_next {
            self.sync_watchdog(now);
        }
        self.rearm();
    }

    /// Takes every device's next event, then [`rearm`](Self::rearm)s.
    fn rearm_all(&mut self) {
        self.timer_next = self.pit.next_rise();
        self.clock_next = self.rtc.as_ref().map_or(Ticks::NEVER, Rtc::next_rise);
        self.power_next = self.power.next_rise();
        self.watchdog_next = self.watchdog_event();
        self.rearm();
    }

    /// Finds the next event and deadline among the devices'.
    fn rearm(&mut self) {
        self.next_event = self
            .timer_next
            .min(self.clock_next)
            .min(self.power_next)
            .min(self.watchdog_next);
        let masked = self.lines.masked();
        let unless = |mask, at| {
            if masked.contains(mask) {
                Ticks::NEVER
            } else {
                at
            }
        };
        self.tick_due = unless(Masked::TIMER, self.timer_next)
            .min(unless(Masked::CLOCK, self.clock_next))
            .min(unless(Masked::SYSTEM, self.power_next));
        self.deadline = self.tick_due.min(self.work_next).min(self.watchdog_next);
    }

    /// Whether the interrupt controller asks for the processor.
    #[inline]
    #[must_use]
    pub fn interrupt_pending(&self) -> bool {
        self.lines.pic.interrupt()
    }

    /// The processor's interrupt acknowledge cycles: the vector to deliver.
    pub fn acknowledge(&mut self) -> u8 {
        self.lines.pic.acknowledge()
    }

    /// The next message from the I/O APIC or a device to the local APICs. To be asked for until there is none after every access
    /// and every [`expire`](Self::expire), on a board with an I/O APIC.
    pub fn take_message(&mut self) -> Option<Dispatch> {
        self.lines.take_message()
    }

    /// A 32-bit read at `offset` in the I/O APIC's page.
    #[must_use]
    pub fn io_apic_read(&self, offset: u16) -> u32 {
        self.lines.io_apic_read(offset)
    }

    /// A 32-bit write at `offset` in the I/O APIC's page.
    pub fn io_apic_write(&mut self, offset: u16, value: u32) {
        self.lines.io_apic_write(offset, value);
        self.rearm();
    }

    /// A local APIC ended a level-triggered interrupt of this vector.
    pub fn end_of_interrupt(&mut self, vector: u8) {
        self.lines.end_of_interrupt(vector);
    }

    /// Presses the power button, which a guest with ACPI notices as an event.
    pub fn press_power_button(&mut self) {
        self.power.press_button();
        self.lines.set(SCI_IRQ, self.power.interrupt());
        self.rearm_all();
    }

    /// Timer ticks (IRQ 0) that fell together with another because the guest did not run or kept them masked.
    #[must_use]
    pub fn missed_timer_ticks(&self) -> u64 {
        self.pit.missed()
    }

    /// Ports that no device claims, with the number of accesses to each: the first 64 such ports.
    pub fn unclaimed(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.unclaimed.iter()
    }

    /// Accesses to unclaimed ports beyond the first 64.
    #[must_use]
    pub fn unclaimed_elsewhere(&self) -> u64 {
        self.unclaimed.others()
    }
}
