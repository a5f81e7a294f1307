//! The two registers by which a PC resets itself: system control port A (0x92) and reset control (0xCF9).
//!
//! Sources: IBM PS/2 technical reference for port 0x92; Intel 82371AB (PIIX4) data sheet, "RC - Reset control".

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

use crate::pc::StateError;

bitflags! {
    /// System control port A, 0x92.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    struct PortA: u8 {
        /// A rise resets the processor.
        const RESET = 1 << 0;
        /// Gate of address line 20; storage, the line is never masked.
        const A20 = 1 << 1;
    }

    /// Reset control, 0xCF9.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    struct ResetControl: u8 {
        /// The reset is a hard one. Here each is.
        const HARD = 1 << 1;
        /// A rise resets the board.
        const RESET = 1 << 2;
        /// The reset switches power off and on.
        const FULL = 1 << 3;
    }
}

/// The saved state of both registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemStateV1 {
    /// Port 0x92.
    pub port_a: u8,
    /// Port 0xCF9.
    pub reset_control: u8,
}

/// A write made the board reset.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Reset;

/// Ports 0x92 and 0xCF9.
#[derive(Clone, Debug)]
pub struct System {
    port_a: PortA,
    reset_control: ResetControl,
}

impl System {
    /// The registers as firmware leaves them: A20 on.
    #[must_use]
    pub fn new() -> Self {
        Self {
            port_a: PortA::A20,
            reset_control: ResetControl::empty(),
        }
    }

    /// A read of 0x92.
    #[must_use]
    pub fn port_a(&self) -> u8 {
        self.port_a.bits()
    }

    /// A write to 0x92.
    pub fn write_port_a(&mut self, value: u8) -> Option<Reset> {
        let before = self.port_a;
        self.port_a = PortA::from_bits_truncate(value);
        (self.port_a - before)
            .contains(PortA::RESET)
            .then_some(Reset)
    }

    /// A read of 0xCF9.
    #[must_use]
    pub fn reset_control(&self) -> u8 {
        self.reset_control.bits()
    }

    /// A write to 0xCF9.
    pub fn write_reset_control(&mut self, value: u8) -> Option<Reset> {
        let before = self.reset_control;
        self.reset_control = ResetControl::from_bits_truncate(value);
        (self.reset_control - before)
            .contains(ResetControl::RESET)
            .then_some(Reset)
    }

    /// The registers' state.
    #[must_use]
    pub fn save(&self) -> SystemStateV1 {
        SystemStateV1 {
            port_a: self.port_a.bits(),
            reset_control: self.reset_control.bits(),
        }
    }

    /// The registers in a saved state.
    ///
    /// # Errors
    ///
    /// [`StateError::Invalid`] for bits that do not exist.
    pub fn restore(state: &SystemStateV1) -> Result<Self, StateError> {
        let invalid = StateError::Invalid("reset registers");
        Ok(Self {
            port_a: PortA::from_bits(state.port_a).ok_or(invalid)?,
            reset_control: ResetControl::from_bits(state.reset_control).ok_or(invalid)?,
        })
    }
}

impl Default for System {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rise_resets() {
        let mut system = System::new();
        assert_eq!(system.write_port_a(0x02), None);
        assert_eq!(system.write_port_a(0x03), Some(Reset));
        assert_eq!(system.write_port_a(0x03), None);
        assert_eq!(system.port_a(), 0x03);
        for value in [0x04, 0x06, 0x0E] {
            assert_eq!(system.write_reset_control(0x02), None);
            assert_eq!(system.write_reset_control(value), Some(Reset));
            assert_eq!(system.write_reset_control(value), None);
        }
    }

    #[test]
    fn save_and_restore() {
        let mut system = System::new();
        system.write_reset_control(0x02);
        let state = system.save();
        assert_eq!(
            System::restore(&state).expect("its own state").save(),
            state
        );
        assert!(System::restore(&SystemStateV1 { port_a: 4, ..state }).is_err());
    }
}
