//! The keyboard controller of a PC without a keyboard: an 8042 at 0x60 and 0x64.
//!
//! Source: IBM PC AT technical reference, "Keyboard controller".
//!
//! It is there so that kernels that look for it, wait for it or reset through it are served: commands to the controller
//! are answered at once, and a byte to a keyboard gets "resend" with the time-out bit set, as from a controller whose
//! keyboard does not answer. It never raises IRQ 1, so a driver that resends from its interrupt handler does not spin.

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

use crate::pc::StateError;

bitflags! {
    /// The status register, 0x64.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    struct Status: u8 {
        /// A byte waits at 0x60.
        const OUTPUT_FULL = 1 << 0;
        /// The system flag: the self-test was passed.
        const SYSTEM = 1 << 2;
        /// The last byte written was a command.
        const COMMAND = 1 << 3;
        /// The keyboard is not locked.
        const UNLOCKED = 1 << 4;
        /// The keyboard did not answer.
        const TIME_OUT = 1 << 6;
    }

    /// The command byte.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    struct CommandByte: u8 {
        /// Interrupt of the keyboard; storage.
        const INTERRUPT = 1 << 0;
        /// Copied to the status.
        const SYSTEM = 1 << 2;
        /// The keyboard is disabled.
        const DISABLED = 1 << 4;
        /// The auxiliary device is disabled; always, there is none.
        const AUX_DISABLED = 1 << 5;
        /// Scan codes are translated; storage.
        const TRANSLATE = 1 << 6;
    }

    /// The output port.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    struct OutputPort: u8 {
        /// Low resets the board.
        const NO_RESET = 1 << 0;
        /// Gate of address line 20; storage, the line is never masked.
        const A20 = 1 << 1;
    }
}

/// The input port: unlocked, with a colour display, as all jumpers open.
const INPUT_PORT: u8 = 0xBF;

/// A command to the controller.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Command {
    ReadCommandByte,
    WriteCommandByte,
    DisableAux,
    EnableAux,
    TestAux,
    SelfTest,
    TestKeyboard,
    Disable,
    Enable,
    ReadInputPort,
    ReadOutputPort,
    WriteOutputPort,
    WriteOutputBuffer,
    WriteAuxOutputBuffer,
    WriteAux,
    Pulse(u8),
    Unknown,
}

impl Command {
    const fn decode(value: u8) -> Self {
        match value {
            0x20 => Self::ReadCommandByte,
            0x60 => Self::WriteCommandByte,
            0xA7 => Self::DisableAux,
            0xA8 => Self::EnableAux,
            0xA9 => Self::TestAux,
            0xAA => Self::SelfTest,
            0xAB => Self::TestKeyboard,
            0xAD => Self::Disable,
            0xAE => Self::Enable,
            0xC0 => Self::ReadInputPort,
            0xD0 => Self::ReadOutputPort,
            0xD1 => Self::WriteOutputPort,
            0xD2 => Self::WriteOutputBuffer,
            0xD3 => Self::WriteAuxOutputBuffer,
            0xD4 => Self::WriteAux,
            0xF0..=0xFF => Self::Pulse(value & 0x0F),
            _ => Self::Unknown,
        }
    }
}

/// What a byte written to 0x60 is.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expects {
    /// A byte for the keyboard.
    KeyboardByte,
    /// The command byte.
    CommandByte,
    /// The output port.
    OutputPort,
    /// A byte to read back.
    Echo,
    /// A byte for the auxiliary device.
    AuxByte,
}

/// Self-test passed.
const SELF_TEST_PASSED: u8 = 0x55;
/// Keyboard interface test: no error.
const INTERFACE_PASSED: u8 = 0x00;
/// Auxiliary interface test: its clock line is stuck low.
const AUX_FAILED: u8 = 0x01;
/// The answer that stands for a device that does not answer.
const RESEND: u8 = 0xFE;

/// The saved state of the controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyboardStateV1 {
    /// The status register.
    pub status: u8,
    /// The output buffer.
    pub output: u8,
    /// The command byte.
    pub command_byte: u8,
    /// The output port.
    pub output_port: u8,
    /// What a byte written to 0x60 is.
    pub expects: Expects,
}

/// The reset line was pulled.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ResetLine;

/// An 8042 without devices.
#[derive(Clone, Debug)]
pub struct Keyboard {
    status: Status,
    output: u8,
    command_byte: CommandByte,
    output_port: OutputPort,
    expects: Expects,
}

impl Keyboard {
    /// The controller as firmware leaves it: tested, A20 on.
    #[must_use]
    pub fn new() -> Self {
        Self {
            status: Status::SYSTEM | Status::COMMAND | Status::UNLOCKED,
            output: 0,
            command_byte: CommandByte::SYSTEM | CommandByte::AUX_DISABLED | CommandByte::TRANSLATE,
            output_port: OutputPort::NO_RESET | OutputPort::A20,
            expects: Expects::KeyboardByte,
        }
    }

    /// A read of 0x64.
    #[must_use]
    pub fn status(&self) -> u8 {
        self.status.bits()
    }

    /// A read of 0x60. Without a byte waiting, the last one again.
    pub fn data(&mut self) -> u8 {
        self.status.remove(Status::OUTPUT_FULL | Status::TIME_OUT);
        self.output
    }

    /// A write to 0x64.
    pub fn write_command(&mut self, value: u8) -> Option<ResetLine> {
        self.status.insert(Status::COMMAND);
        self.expects = Expects::KeyboardByte;
        match Command::decode(value) {
            Command::ReadCommandByte => self.answer(self.command_byte.bits()),
            Command::WriteCommandByte => self.expects = Expects::CommandByte,
            Command::TestAux => self.answer(AUX_FAILED),
            Command::SelfTest => {
                self.command_byte
                    .insert(CommandByte::SYSTEM | CommandByte::DISABLED);
                self.status.insert(Status::SYSTEM);
                self.answer(SELF_TEST_PASSED);
            }
            Command::TestKeyboard => self.answer(INTERFACE_PASSED),
            Command::Disable => self.command_byte.insert(CommandByte::DISABLED),
            Command::Enable => self.command_byte.remove(CommandByte::DISABLED),
            Command::ReadInputPort => self.answer(INPUT_PORT),
            Command::ReadOutputPort => self.answer(self.output_port.bits()),
            Command::WriteOutputPort => self.expects = Expects::OutputPort,
            Command::WriteOutputBuffer | Command::WriteAuxOutputBuffer => {
                self.expects = Expects::Echo;
            }
            Command::WriteAux => self.expects = Expects::AuxByte,
            Command::Pulse(lines) => {
                return (lines & OutputPort::NO_RESET.bits() == 0).then_some(ResetLine);
            }
            Command::DisableAux | Command::EnableAux | Command::Unknown => {}
        }
        None
    }

    /// A write to 0x60.
    pub fn write_data(&mut self, value: u8) -> Option<ResetLine> {
        self.status.remove(Status::COMMAND);
        let expects = core::mem::replace(&mut self.expects, Expects::KeyboardByte);
        match expects {
            Expects::KeyboardByte | Expects::AuxByte => {
                self.answer(RESEND);
                self.status.insert(Status::TIME_OUT);
            }
            Expects::CommandByte => {
                self.command_byte =
                    CommandByte::from_bits_truncate(value) | CommandByte::AUX_DISABLED;
                self.status.set(
                    Status::SYSTEM,
                    self.command_byte.contains(CommandByte::SYSTEM),
                );
            }
            Expects::OutputPort => {
                self.output_port = OutputPort::from_bits_truncate(value) | OutputPort::NO_RESET;
                return (value & OutputPort::NO_RESET.bits() == 0).then_some(ResetLine);
            }
            Expects::Echo => self.answer(value),
        }
        None
    }

    fn answer(&mut self, value: u8) {
        self.output = value;
        self.status.insert(Status::OUTPUT_FULL);
        self.status.remove(Status::TIME_OUT);
    }

    /// The controller's state.
    #[must_use]
    pub fn save(&self) -> KeyboardStateV1 {
        KeyboardStateV1 {
            status: self.status.bits(),
            output: self.output,
            command_byte: self.command_byte.bits(),
            output_port: self.output_port.bits(),
            expects: self.expects,
        }
    }

    /// The controller in a saved state.
    ///
    /// # Errors
    ///
    /// [`StateError::Invalid`] for a state that the controller cannot be in.
    pub fn restore(state: &KeyboardStateV1) -> Result<Self, StateError> {
        let invalid = StateError::Invalid("8042: register");
        Ok(Self {
            status: Status::from_bits(state.status).ok_or(invalid)?,
            output: state.output,
            command_byte: CommandByte::from_bits(state.command_byte).ok_or(invalid)?,
            output_port: OutputPort::from_bits(state.output_port).ok_or(invalid)?,
            expects: state.expects,
        })
    }
}

impl Default for Keyboard {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a driver that waits for an answer gets.
    fn ask(keyboard: &mut Keyboard, command: u8) -> Option<u8> {
        assert_eq!(keyboard.write_command(command), None);
        (keyboard.status() & 1 != 0).then(|| keyboard.data())
    }

    #[test]
    fn answers_of_the_controller() {
        let mut keyboard = Keyboard::new();
        assert_eq!(keyboard.status(), 0x1C);
        assert_eq!(ask(&mut keyboard, 0xAA), Some(0x55));
        assert_eq!(ask(&mut keyboard, 0xAB), Some(0x00));
        assert_eq!(ask(&mut keyboard, 0xA9), Some(0x01));
        assert_eq!(ask(&mut keyboard, 0xC0), Some(0xBF));
        assert_eq!(ask(&mut keyboard, 0xD0), Some(0x03));
        assert_eq!(ask(&mut keyboard, 0xAE), None);
        assert_eq!(ask(&mut keyboard, 0x20), Some(0x64));
        assert_eq!(keyboard.status(), 0x1C);
    }

    #[test]
    fn the_command_byte_keeps_the_auxiliary_device_disabled() {
        let mut keyboard = Keyboard::new();
        assert_eq!(ask(&mut keyboard, 0x60), None);
        assert_eq!(keyboard.write_data(0x47), None);
        assert_eq!(ask(&mut keyboard, 0xA8), None);
        assert_eq!(ask(&mut keyboard, 0x20), Some(0x65));
    }

    #[test]
    fn a_keyboard_that_does_not_answer_is_answered_for() {
        let mut keyboard = Keyboard::new();
        keyboard.write_data(0xED);
        assert_eq!(keyboard.status(), 0x55);
        assert_eq!(keyboard.data(), 0xFE);
        assert_eq!(keyboard.status(), 0x14);
        keyboard.write_command(0xD4);
        keyboard.write_data(0xFF);
        assert_eq!(keyboard.data(), 0xFE);
        keyboard.write_command(0xD3);
        keyboard.write_data(0x5A);
        assert_eq!(
            keyboard.status() & 0x61,
            0x01,
            "not from an auxiliary device"
        );
        assert_eq!(keyboard.data(), 0x5A);
    }

    #[test]
    fn reset_by_pulse_and_by_the_output_port() {
        let mut keyboard = Keyboard::new();
        assert_eq!(keyboard.write_command(0xFE), Some(ResetLine));
        assert_eq!(keyboard.write_command(0xFF), None);
        assert_eq!(keyboard.write_command(0xF0), Some(ResetLine));
        keyboard.write_command(0xD1);
        assert_eq!(keyboard.write_data(0xDF), None);
        keyboard.write_command(0xD1);
        assert_eq!(keyboard.write_data(0xDE), Some(ResetLine));
        keyboard.write_command(0xD1);
        assert_eq!(keyboard.write_data(0x01), None);
        assert_eq!(ask(&mut keyboard, 0xD0), Some(0x01), "A20 is remembered");
    }

    #[test]
    fn save_and_restore() {
        let mut keyboard = Keyboard::new();
        keyboard.write_command(0xD1);
        let state = keyboard.save();
        assert_eq!(
            Keyboard::restore(&state).expect("its own state").save(),
            state
        );
        assert!(
            Keyboard::restore(&KeyboardStateV1 {
                status: 0x80,
                ..state
            })
            .is_err()
        );
    }
}
