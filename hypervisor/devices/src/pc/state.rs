//! The saved state of a board.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::adapters::Adapter;
use super::lines::Lines;
use super::{IRQ_CLOCK, IRQ_COM1, Pc, PcConfig, Unclaimed};
use crate::ioapic::{IoApic, IoApicStateV1};
use crate::keyboard::{Keyboard, KeyboardStateV1};
use crate::ne2000::Ne2000StateV1;
use crate::pci::{Pci, PciStateV1};
use crate::pic::{Pic, PicStateV1};
use crate::pit::{Pit, PitStateV1};
use crate::power::{Power, PowerStateV1, SCI_IRQ};
use crate::rtc::{Rtc, RtcStateV1};
use crate::system::{System, SystemStateV1};
use crate::time::Ticks;
use crate::uart::{Uart, UartStateV1};

/// How far the frequencies of two boards' TSCs may be apart, in millionths of the one, for a guest to go on from the one to the
/// other: more than two boards' crystals differ, less than what an operating system's clock can be disciplined by.
pub const CLOCK_TOLERANCE: u32 = 500;

/// Why a saved state was refused.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum StateError {
    /// The state was taken on a board whose TSC's frequency is further away than [`CLOCK_TOLERANCE`].
    Frequency,
    /// The state has a device that the configuration lacks, or lacks one that it has.
    Devices,
    /// What is named is not as it can be on a board.
    Invalid(&'static str),
}

impl core::fmt::Display for StateError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Frequency => f.write_str("the state was taken at another TSC frequency"),
            Self::Devices => f.write_str("the state's devices are not the configured ones"),
            Self::Invalid(what) => write!(f, "the state is invalid: {what}"),
        }
    }
}

impl core::error::Error for StateError {}

/// The saved state of a board. Counts of unclaimed accesses are not part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PcStateV1 {
    /// Frequency of the guest's TSC in Hz, which the times in the state are in.
    pub tsc_hz: u64,
    /// Interrupt controllers.
    pub pic: PicStateV1,
    /// I/O APIC.
    pub io_apic: Option<IoApicStateV1>,
    /// Interval timer.
    pub pit: PitStateV1,
    /// Keyboard controller.
    pub keyboard: KeyboardStateV1,
    /// Reset registers.
    pub system: SystemStateV1,
    /// Power management.
    pub power: PowerStateV1,
    /// Real-time clock.
    pub rtc: Option<RtcStateV1>,
    /// COM1.
    pub uart: Option<UartStateV1>,
    /// PCI bus.
    pub pci: Option<PciStateV1>,
    /// Network cards on the ISA bus, in the order of the configuration.
    pub adapters: Vec<Ne2000StateV1>,
    /// When devices go on with work that they left.
    pub work: Option<Ticks>,
}

impl Pc {
    /// The board's state. Nothing of it must be lent to the world: [`rest`](Self::rest) takes it back.
    #[must_use]
    pub fn save(&self) -> PcStateV1 {
        PcStateV1 {
            tsc_hz: self.config.tsc_hz,
            pic: self.lines.pic.save(),
            io_apic: self.lines.io_apic.as_ref().map(IoApic::save),
            pit: self.pit.save(),
            keyboard: self.keyboard.save(),
            system: self.system.save(),
            power: self.power.save(),
            rtc: self.rtc.as_ref().map(Rtc::save),
            uart: self.uart.as_ref().map(Uart::save),
            pci: self.pci.as_ref().map(Pci::save),
            adapters: self
                .adapters
                .iter()
                .map(|adapter| adapter.card.save())
                .collect(),
            work: (self.work_next != Ticks::NEVER).then_some(self.work_next),
        }
    }

    /// A board in a saved state; [`resume`](Self::resume) lends what the world works on. `config.memory_bytes` and `config.wall_clock` have no effect: the clock goes on from
    /// the saved time. Nor has `config.tsc_hz`, but that it must be near the state's: the guest's clocks keep their rates to each
    /// other, and with them its time.
    ///
    /// # Errors
    ///
    /// A state that does not fit the configuration, or that no board can be in, is refused.
    pub fn restore(config: PcConfig, state: PcStateV1) -> Result<Self, StateError> {
        let tsc_hz = state.tsc_hz;
        let apart = u128::from(tsc_hz.abs_diff(config.tsc_hz)) * 1_000_000;
        if apart > u128::from(config.tsc_hz) * u128::from(CLOCK_TOLERANCE) {
            return Err(StateError::Frequency);
        }
        let config = PcConfig { tsc_hz, ..config };
        let fits = state.rtc.is_some() == config.rtc
            && state.uart.is_some() == config.com1
            && state.pci.is_some() == config.pci
            && state.io_apic.is_some() == config.io_apic;
        if !fits {
            return Err(StateError::Devices);
        }
        let rtc = state.rtc.as_ref().map(|rtc| Rtc::restore(tsc_hz, rtc));
        let pci = state.pci.as_ref();
        let pci = pci.map(|pci| Pci::restore(&config, pci));
        let mut adapters = Adapter::all(&config.nics);
        if state.adapters.len() != adapters.len() {
            return Err(StateError::Devices);
        }
        for (adapter, state) in adapters.iter_mut().zip(&state.adapters) {
            adapter.card.restore(state)?;
        }
        let mut pc = Self {
            lines: Lines::new(
                Pic::restore(&state.pic)?,
                state.io_apic.as_ref().map(IoApic::restore).transpose()?,
            ),
            pit: Pit::restore(tsc_hz, &state.pit)?,
            keyboard: Keyboard::restore(&state.keyboard)?,
            system: System::restore(&state.system)?,
            power: Power::restore(tsc_hz, &state.power)?,
            rtc: rtc.transpose()?,
            uart: state.uart.as_ref().map(Uart::restore).transpose()?,
            pci: pci.transpose()?,
            adapters,
            unclaimed: Unclaimed::new(),
            config,
            timer_next: Ticks::NEVER,
            clock_next: Ticks::NEVER,
            power_next: Ticks::NEVER,
            watchdog_next: Ticks::NEVER,
            next_event: Ticks::NEVER,
            work_next: state.work.unwrap_or(Ticks::NEVER),
            tick_due: Ticks::NEVER,
            deadline: Ticks::NEVER,
        };
        let lines = [
            (IRQ_COM1, pc.uart.as_ref().is_some_and(Uart::line)),
            (IRQ_CLOCK, pc.rtc.as_ref().is_some_and(Rtc::interrupt)),
            (SCI_IRQ, pc.power.interrupt()),
        ];
        let cards = pc
            .adapters
            .iter()
            .map(|adapter| (adapter.irq, adapter.card.interrupt()));
        let asserted = lines.into_iter().chain(cards).filter(|(_, level)| *level);
        let pci = pc.pci.as_ref().map(Pci::asserted).unwrap_or_default();
        if !pc.lines.restore_levels(asserted.map(|(irq, _)| irq), pci) {
            return Err(StateError::Invalid("interrupt lines"));
        }
        if pc.working() != (pc.work_next != Ticks::NEVER) {
            return Err(StateError::Invalid("work of devices"));
        }
        pc.rearm_all();
        Ok(pc)
    }
}
