//! The control word of a counter.
//!
//! Source: Intel 8254 data sheet, "Control word format".

use serde::{Deserialize, Serialize};

/// What a counter does with its count.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Mode 0: the output rises when the count is up.
    TerminalCount,
    /// Mode 1: a gate edge starts a low pulse of the count's length.
    OneShot,
    /// Mode 2: low for one cycle in each period.
    RateGenerator,
    /// Mode 3: low for half of each period.
    SquareWave,
    /// Mode 4: low for one cycle when the count is up.
    SoftwareStrobe,
    /// Mode 5: as mode 4, started by a gate edge.
    HardwareStrobe,
}

impl Mode {
    /// The mode bits of a control word; the highest bit is ignored for modes 2 and 3.
    pub(super) const fn decode(control: u8) -> Self {
        match (control >> 1) & 7 {
            0 => Self::TerminalCount,
            1 => Self::OneShot,
            2 | 6 => Self::RateGenerator,
            3 | 7 => Self::SquareWave,
            4 => Self::SoftwareStrobe,
            _ => Self::HardwareStrobe,
        }
    }

    pub(super) const fn number(self) -> u8 {
        match self {
            Self::TerminalCount => 0,
            Self::OneShot => 1,
            Self::RateGenerator => 2,
            Self::SquareWave => 3,
            Self::SoftwareStrobe => 4,
            Self::HardwareStrobe => 5,
        }
    }

    /// Modes 2 and 3 start over by themselves.
    pub(super) const fn periodic(self) -> bool {
        matches!(self, Self::RateGenerator | Self::SquareWave)
    }

    /// Modes 4 and 5 end with a strobe of one cycle.
    pub(super) const fn strobes(self) -> bool {
        matches!(self, Self::SoftwareStrobe | Self::HardwareStrobe)
    }

    /// Modes 1 and 5 start at a gate edge only.
    pub(super) const fn triggered(self) -> bool {
        matches!(self, Self::OneShot | Self::HardwareStrobe)
    }
}

/// Which bytes of the count a port access moves.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// The low byte; the high one is 0.
    Low,
    /// The high byte; the low one is 0.
    High,
    /// The low byte, then the high one.
    Both,
}

impl Access {
    /// The access bits of a control word; `None` is the counter latch command.
    pub(super) const fn decode(control: u8) -> Option<Self> {
        match (control >> 4) & 3 {
            0 => None,
            1 => Some(Self::Low),
            2 => Some(Self::High),
            _ => Some(Self::Both),
        }
    }

    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Low => 1,
            Self::High => 2,
            Self::Both => 3,
        }
    }
}
