//! One 8259A.

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

use crate::pc::StateError;

bitflags! {
    /// Initialization command word 1, at the command port.
    #[derive(Copy, Clone, Debug)]
    struct Icw1: u8 {
        /// ICW4 follows.
        const ICW4 = 1 << 0;
        /// This controller is alone: no ICW3.
        const SINGLE = 1 << 1;
        /// Marks the word as an ICW1.
        const INIT = 1 << 4;
    }

    /// Initialization command word 4, and the modes it selects.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    struct Icw4: u8 {
        /// 8086 mode. A PC has no other processor, so the vector is always that of this mode.
        const X86 = 1 << 0;
        /// Automatic end of interrupt.
        const AUTO_EOI = 1 << 1;
        /// Buffered master. Buffering concerns pins that a PC does not use.
        const BUFFERED_MASTER = 1 << 2;
        /// Buffered.
        const BUFFERED = 1 << 3;
        /// Special fully nested mode.
        const FULLY_NESTED = 1 << 4;
    }

    /// Operation command word 3, at the command port.
    #[derive(Copy, Clone, Debug)]
    struct Ocw3: u8 {
        /// Read ISR rather than IRR; counts only with `READ`.
        const IN_SERVICE = 1 << 0;
        /// `IN_SERVICE` is meant.
        const READ = 1 << 1;
        /// Poll command.
        const POLL = 1 << 2;
        /// Marks the word as an OCW3.
        const OCW3 = 1 << 3;
        /// Special mask mode on; counts only with `MASK_MODE`.
        const SPECIAL_MASK = 1 << 5;
        /// `SPECIAL_MASK` is meant.
        const MASK_MODE = 1 << 6;
    }

    /// Modes that operation command words select.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    struct Modes: u8 {
        /// The command port reads ISR.
        const READ_IN_SERVICE = 1 << 0;
        /// The next read is a poll.
        const POLL = 1 << 1;
        /// Special mask mode.
        const SPECIAL_MASK = 1 << 2;
        /// Priorities rotate at an automatic end of interrupt.
        const ROTATE_AUTO = 1 << 3;
        /// ICW1 said that there is no cascade.
        const SINGLE = 1 << 4;
        /// ICW1 said that ICW4 follows.
        const WANTS_ICW4 = 1 << 5;
    }
}

/// What operation command word 2 asks for, in its bits 7 to 5 (R, SL, EOI).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Ocw2 {
    RotateAutoOff,
    Eoi,
    Nothing,
    SpecificEoi,
    RotateAutoOn,
    RotateEoi,
    SetPriority,
    RotateSpecificEoi,
}

impl Ocw2 {
    const fn decode(value: u8) -> Self {
        match value >> 5 {
            0 => Self::RotateAutoOff,
            1 => Self::Eoi,
            2 => Self::Nothing,
            3 => Self::SpecificEoi,
            4 => Self::RotateAutoOn,
            5 => Self::RotateEoi,
            6 => Self::SetPriority,
            _ => Self::RotateSpecificEoi,
        }
    }
}

/// What the data port expects.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expects {
    /// OCW1, the mask.
    Mask,
    /// ICW2, the vector base.
    Icw2,
    /// ICW3, the cascade.
    Icw3,
    /// ICW4, modes.
    Icw4,
}

/// The request inputs of one controller: lines, their sense and the latches behind them.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Inputs {
    /// Levels of the lines.
    lines: u8,
    /// Requests (IRR). For a level-sensitive input this is its line; for an edge-sensitive one, a rise that was not
    /// acknowledged while the line stayed high.
    requests: u8,
    /// Inputs that are level-sensitive.
    level: u8,
}

impl Inputs {
    pub(super) const fn with_lines(lines: u8) -> Self {
        Self {
            lines,
            requests: 0,
            level: 0,
        }
    }

    pub(super) const fn lines(&self) -> u8 {
        self.lines
    }

    /// Drives the line whose bit is set; returns whether its level changed.
    #[inline]
    pub(super) fn set(&mut self, bit: u8, level: bool) -> bool {
        if (self.lines & bit != 0) == level {
            return false;
        }
        if level {
            self.lines |= bit;
            self.requests |= bit;
        } else {
            self.lines &= !bit;
            self.requests &= !bit;
        }
        true
    }

    pub(super) const fn level_sensitive(&self) -> u8 {
        self.level
    }

    pub(super) fn set_level_sensitive(&mut self, level: u8) {
        self.level = level;
        self.requests |= self.lines & level;
    }

    /// The latch of an acknowledged input falls; a level-sensitive input still requests while its line is high.
    #[inline]
    fn taken(&mut self, bit: u8) {
        self.requests &= !bit | self.level;
    }

    /// ICW1 clears the edge latches.
    fn clear_latches(&mut self) {
        self.requests = self.lines & self.level;
    }
}

/// The saved state of one controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChipStateV1 {
    /// Levels of the inputs.
    pub lines: u8,
    /// Interrupt request register.
    pub requests: u8,
    /// Edge/level control register.
    pub level: u8,
    /// In-service register.
    pub in_service: u8,
    /// Interrupt mask register.
    pub mask: u8,
    /// Vector of input 0; a multiple of 8.
    pub vector_base: u8,
    /// ICW3.
    pub cascade: u8,
    /// Modes of ICW4.
    pub icw4: u8,
    /// Modes of the operation command words.
    pub modes: u8,
    /// The input of lowest priority, 0 to 7.
    pub lowest: u8,
    /// What the data port expects.
    pub expects: Expects,
}

/// One 8259A.
#[derive(Clone, Debug)]
pub(super) struct Chip {
    pub(super) inputs: Inputs,
    in_service: u8,
    mask: u8,
    vector_base: u8,
    cascade: u8,
    icw4: Icw4,
    modes: Modes,
    /// The input of lowest priority; the next one up, modulo 8, has the highest.
    lowest: u8,
    expects: Expects,
}

/// The level of the highest priority in `set`, 0 being the highest, or 8 in an empty set.
#[inline]
const fn first_rank(set: u8, lowest: u8) -> u32 {
    set.rotate_right(lowest as u32 + 1).trailing_zeros()
}

impl Chip {
    pub(super) const fn new(vector_base: u8, cascade: u8) -> Self {
        Self {
            inputs: Inputs::with_lines(0),
            in_service: 0,
            mask: 0xFF,
            vector_base,
            cascade,
            icw4: Icw4::X86,
            modes: Modes::empty(),
            lowest: 7,
            expects: Expects::Mask,
        }
    }

    #[inline]
    pub(super) const fn mask(&self) -> u8 {
        self.mask
    }

    /// What the command port reads.
    #[inline]
    pub(super) const fn status(&self) -> u8 {
        if self.modes.contains(Modes::READ_IN_SERVICE) {
            self.in_service
        } else {
            self.inputs.requests
        }
    }

    #[inline]
    pub(super) const fn polling(&self) -> bool {
        self.modes.contains(Modes::POLL)
    }

    /// Whether ICW3 says that a slave hangs on `input`.
    #[inline]
    pub(super) const fn cascaded(&self, input: u8) -> bool {
        !self.modes.contains(Modes::SINGLE) && self.cascade & (1 << (input & 7)) != 0
    }

    #[inline]
    pub(super) const fn vector(&self, input: u8) -> u8 {
        self.vector_base | (input & 7)
    }

    /// The rank of the request that the controller passes on, or 8.
    #[inline]
    fn pending_rank(&self) -> u32 {
        let requests = self.inputs.requests & !self.mask;
        if requests == 0 {
            return 8;
        }
        let mut blocking = self.in_service;
        if self.modes.contains(Modes::SPECIAL_MASK) {
            blocking &= !self.mask;
        }
        let request = first_rank(requests, self.lowest);
        let service = first_rank(blocking, self.lowest);
        // In the special fully nested mode a slave may interrupt its own service with a higher request of its own.
        let nested = request == service
            && self.icw4.contains(Icw4::FULLY_NESTED)
            && self.cascaded(self.input_of(request));
        if request < service || nested {
            request
        } else {
            8
        }
    }

    /// The input whose priority has `rank`.
    #[inline]
    const fn input_of(&self, rank: u32) -> u8 {
        (self.lowest.wrapping_add(1).wrapping_add(rank as u8)) & 7
    }

    /// The INT output.
    #[inline]
    pub(super) fn interrupt(&self) -> bool {
        self.pending_rank() < 8
    }

    /// Takes the pending request into service. `None`: there is none any more.
    fn take(&mut self) -> Option<u8> {
        let rank = self.pending_rank();
        if rank >= 8 {
            return None;
        }
        let input = self.input_of(rank);
        let bit = 1 << input;
        self.inputs.taken(bit);
        if self.icw4.contains(Icw4::AUTO_EOI) {
            if self.modes.contains(Modes::ROTATE_AUTO) {
                self.lowest = input;
            }
        } else {
            self.in_service |= bit;
        }
        Some(input)
    }

    /// An interrupt acknowledge: the input taken into service, or 7 if the request is gone.
    pub(super) fn acknowledge(&mut self) -> u8 {
        self.take().unwrap_or(7)
    }

    /// The read that follows a poll command: bit 7 tells whether there was a request, bits 2 to 0 which.
    pub(super) fn poll(&mut self) -> u8 {
        self.modes.remove(Modes::POLL);
        self.take().map_or(7, |input| 0x80 | input)
    }

    pub(super) fn write_command(&mut self, value: u8) {
        if value & Icw1::INIT.bits() != 0 {
            self.initialize(Icw1::from_bits_truncate(value));
        } else if value & Ocw3::OCW3.bits() != 0 {
            self.operate(Ocw3::from_bits_truncate(value));
        } else {
            self.end_of_interrupt(Ocw2::decode(value), value & 7);
        }
    }

    /// ICW1. Its LTIM bit is not looked at: PIIX4 has the edge/level control registers instead.
    fn initialize(&mut self, word: Icw1) {
        self.inputs.clear_latches();
        self.in_service = 0;
        self.mask = 0;
        self.lowest = 7;
        self.icw4 = Icw4::X86;
        self.modes = Modes::empty();
        self.modes.set(Modes::SINGLE, word.contains(Icw1::SINGLE));
        self.modes.set(Modes::WANTS_ICW4, word.contains(Icw1::ICW4));
        self.expects = Expects::Icw2;
    }

    fn operate(&mut self, word: Ocw3) {
        if word.contains(Ocw3::READ) {
            self.modes
                .set(Modes::READ_IN_SERVICE, word.contains(Ocw3::IN_SERVICE));
        }
        if word.contains(Ocw3::POLL) {
            self.modes.insert(Modes::POLL);
        }
        if word.contains(Ocw3::MASK_MODE) {
            self.modes
                .set(Modes::SPECIAL_MASK, word.contains(Ocw3::SPECIAL_MASK));
        }
    }

    fn end_of_interrupt(&mut self, command: Ocw2, input: u8) {
        match command {
            Ocw2::Nothing => {}
            Ocw2::RotateAutoOff => self.modes.remove(Modes::ROTATE_AUTO),
            Ocw2::RotateAutoOn => self.modes.insert(Modes::ROTATE_AUTO),
            Ocw2::SetPriority => self.lowest = input,
            Ocw2::SpecificEoi => self.in_service &= !(1 << input),
            Ocw2::RotateSpecificEoi => {
                self.in_service &= !(1 << input);
                self.lowest = input;
            }
            Ocw2::Eoi | Ocw2::RotateEoi => {
                // In the special mask mode a masked in-service bit is out of reach.
                let candidates = if self.modes.contains(Modes::SPECIAL_MASK) {
                    self.in_service & !self.mask
                } else {
                    self.in_service
                };
                let rank = first_rank(candidates, self.lowest);
                if rank < 8 {
                    let input = self.input_of(rank);
                    self.in_service &= !(1 << input);
                    if command == Ocw2::RotateEoi {
                        self.lowest = input;
                    }
                }
            }
        }
    }

    pub(super) fn write_data(&mut self, value: u8) {
        self.expects = match self.expects {
            Expects::Mask => {
                self.mask = value;
                Expects::Mask
            }
            Expects::Icw2 => {
                self.vector_base = value & 0xF8;
                if self.modes.contains(Modes::SINGLE) {
                    self.after_cascade()
                } else {
                    Expects::Icw3
                }
            }
            Expects::Icw3 => {
                self.cascade = value;
                self.after_cascade()
            }
            Expects::Icw4 => {
                self.icw4 = Icw4::from_bits_truncate(value);
                Expects::Mask
            }
        };
    }

    fn after_cascade(&self) -> Expects {
        if self.modes.contains(Modes::WANTS_ICW4) {
            Expects::Icw4
        } else {
            Expects::Mask
        }
    }

    pub(super) fn save(&self) -> ChipStateV1 {
        ChipStateV1 {
            lines: self.inputs.lines,
            requests: self.inputs.requests,
            level: self.inputs.level,
            in_service: self.in_service,
            mask: self.mask,
            vector_base: self.vector_base,
            cascade: self.cascade,
            icw4: self.icw4.bits(),
            modes: self.modes.bits(),
            lowest: self.lowest,
            expects: self.expects,
        }
    }

    /// A controller in a saved state; `senses` are the inputs that may be level-sensitive.
    pub(super) fn restore(state: &ChipStateV1, senses: u8) -> Result<Self, StateError> {
        let inputs = Inputs {
            lines: state.lines,
            requests: state.requests,
            level: state.level,
        };
        if inputs.level & !senses != 0 {
            return Err(StateError::Invalid("8259: sense"));
        }
        if inputs.requests & !inputs.lines != 0
            || inputs.lines & inputs.level & !inputs.requests != 0
        {
            return Err(StateError::Invalid("8259: requests without a line"));
        }
        if state.vector_base & 7 != 0 || state.lowest > 7 {
            return Err(StateError::Invalid("8259: vector or priority"));
        }
        Ok(Self {
            inputs,
            in_service: state.in_service,
            mask: state.mask,
            vector_base: state.vector_base,
            cascade: state.cascade,
            icw4: Icw4::from_bits(state.icw4).ok_or(StateError::Invalid("8259: ICW4"))?,
            modes: Modes::from_bits(state.modes).ok_or(StateError::Invalid("8259: modes"))?,
            lowest: state.lowest,
            expects: state.expects,
        })
    }
}
