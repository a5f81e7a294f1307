//! The board: which device answers which port, and how interrupt lines and deadlines meet.

use serde::{Deserialize, Serialize};

use crate::time::Ticks;

/// What a virtual PC is made of.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct PcConfig {
    /// Frequency of the guest's TSC in Hz.
    pub tsc_hz: u64,
    /// Guest memory in bytes, as the CMOS reports it.
    pub memory_bytes: u64,
    /// Wall clock at the moment of creation, in Unix seconds (UTC).
    pub wall_clock: u64,
    /// Whether there is a 16550 at 0x3F8, IRQ 4.
    pub com1: bool,
    /// Whether there is a MC146818A at 0x70, IRQ 8.
    pub rtc: bool,
    /// Whether there is PCI configuration mechanism 1 at 0xCF8.
    pub pci: bool,
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

/// What a port access can do to the world outside the board.
pub trait Effects {
    /// COM1 sent a byte.
    fn console_output(&mut self, byte: u8);
    /// The guest asked for a reset: stop it and call [`Pc::reset`].
    fn reset(&mut self, cause: ResetCause);
    /// The guest switched its board off.
    fn power_off(&mut self);
}

/// Why a saved state was refused.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum StateError {
    /// The state was taken on a board with another TSC frequency.
    Frequency,
    /// The state has a device that the configuration lacks, or lacks one that it has.
    Devices,
    /// A field of the named device is outside its range.
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

/// The saved state of a board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PcStateV1 {
    /// Frequency of the guest's TSC in Hz.
    pub tsc_hz: u64,
}

/// A virtual PC.
#[derive(Clone, Debug)]
pub struct Pc {
    config: PcConfig,
    deadline: Ticks,
}

impl Pc {
    /// A board as its firmware leaves it, at guest time `now`.
    #[must_use]
    pub fn new(config: PcConfig, _now: Ticks) -> Self {
        Self {
            config,
            deadline: Ticks::NEVER,
        }
    }

    /// A hardware reset. The real-time clock keeps its time and memory.
    pub fn reset(&mut self, _now: Ticks) {}

    /// A guest's read of `width` from `port`.
    pub fn read(
        &mut self,
        _port: u16,
        width: Width,
        _now: Ticks,
        _effects: &mut impl Effects,
    ) -> u32 {
        match width {
            Width::Byte => 0xFF,
            Width::Word => 0xFFFF,
            Width::Dword => 0xFFFF_FFFF,
        }
    }

    /// A guest's write of `width` to `port`.
    pub fn write(
        &mut self,
        port: u16,
        _width: Width,
        value: u32,
        _now: Ticks,
        effects: &mut impl Effects,
    ) {
        if port == 0x3F8 {
            effects.console_output(value as u8);
        }
    }

    /// The earliest time at which [`expire`](Self::expire) must be called.
    #[inline]
    #[must_use]
    pub fn next_deadline(&self) -> Option<Ticks> {
        (self.deadline != Ticks::NEVER).then_some(self.deadline)
    }

    /// Brings every timer up to `now`.
    pub fn expire(&mut self, _now: Ticks) {}

    /// Whether the interrupt controller asks for the processor.
    #[inline]
    #[must_use]
    pub fn interrupt_pending(&self) -> bool {
        false
    }

    /// The processor's interrupt acknowledge cycles: the vector to deliver.
    pub fn acknowledge(&mut self) -> u8 {
        7
    }

    /// How many received bytes COM1 can take now.
    #[must_use]
    pub fn console_room(&self) -> usize {
        0
    }

    /// Gives COM1 received bytes; returns how many it took.
    pub fn console_input(&mut self, _bytes: &[u8]) -> usize {
        0
    }

    /// Ports that no device claims, with the number of accesses to each.
    pub fn unclaimed(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        core::iter::empty()
    }

    /// The board's state.
    #[must_use]
    pub fn save(&self) -> PcStateV1 {
        PcStateV1 {
            tsc_hz: self.config.tsc_hz,
        }
    }

    /// A board in a saved state.
    ///
    /// # Errors
    ///
    /// A state that does not fit the configuration, or that no board can be in, is refused.
    pub fn restore(config: PcConfig, state: PcStateV1) -> Result<Self, StateError> {
        if state.tsc_hz != config.tsc_hz {
            return Err(StateError::Frequency);
        }
        Ok(Self {
            config,
            deadline: Ticks::NEVER,
        })
    }
}
