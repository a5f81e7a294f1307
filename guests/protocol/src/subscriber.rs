//! What the exchange knows: subscribers, their lines, what can be asked for them and what is said.

/// A subscriber's number: one to eight digits, none of them a leading zero.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Number(u32);

impl Number {
    /// Checks a number.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        (1..=99_999_999).contains(&number).then_some(Self(number))
    }

    /// Reads a number's digits.
    #[must_use]
    pub fn parse(digits: &str) -> Option<Self> {
        let plain = digits.bytes().all(|digit| digit.is_ascii_digit()) && !digits.starts_with('0');
        if plain {
            Self::new(digits.parse().ok()?)
        } else {
            None
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    fn digits(self) -> u32 {
        self.0.ilog10() + 1
    }

    fn first_digit(self) -> u32 {
        self.0 / 10_u32.pow(self.digits() - 1)
    }
}

/// What a subscriber's line is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Line {
    /// The receiver is down.
    Idle,
    /// The subscriber has dialled and hears the other line ring.
    Dialling,
    /// The telephone rings.
    Ringing,
    /// Two subscribers speak.
    Connected,
    /// The subscriber hears the busy tone, until he clears.
    Busy,
}

/// How fast the pulses come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tariff {
    /// Within an area: numbers of equal length and first digit.
    Local,
    /// Between areas.
    Trunk,
    /// To a number that begins with 9.
    Service,
}

impl Tariff {
    /// The tariff of a call.
    #[must_use]
    pub fn between(from: Number, to: Number) -> Self {
        if to.first_digit() == 9 {
            Self::Service
        } else if (from.digits(), from.first_digit()) == (to.digits(), to.first_digit()) {
            Self::Local
        } else {
            Self::Trunk
        }
    }

    /// Milliseconds of connected time that one pulse pays for.
    #[must_use]
    pub const fn unit(self) -> u64 {
        match self {
            Self::Local => 3000,
            Self::Trunk => 1000,
            Self::Service => 250,
        }
    }

    /// Pulses for a connected time: the first comes with the answer.
    #[must_use]
    pub const fn pulses(self, connected: u64) -> u64 {
        connected / self.unit() + 1
    }
}

/// What a subscriber has used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Meter {
    /// Pulses to pay for.
    pub pulses: u64,
    /// Milliseconds of connected time, of calls he made.
    pub connected: u64,
    /// Calls he made that were answered.
    pub calls: u64,
}

/// What can be asked of the exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Request {
    /// Gives a line a number.
    Register(Number),
    /// The first calls the second.
    Call(Number, Number),
    /// A ringing subscriber answers.
    Answer(Number),
    /// A subscriber puts the receiver down.
    Clear(Number),
    /// What a subscriber's line is doing.
    Status(Number),
    /// What a subscriber has to pay for.
    Charging(Number),
}

/// What the exchange answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reply {
    /// The number is in service.
    Registered(Number),
    /// The second telephone rings.
    Ringing(Number, Number),
    /// The caller hears the busy tone: the other line is engaged, or no path is free.
    Busy(Number, Number),
    /// The call stands.
    Connected(Number, Number, Tariff),
    /// The line is idle; the pulses are those of the call that ended, if one did.
    Cleared(Number, Option<u64>),
    /// The line, the other party, and the milliseconds since the call was made or answered.
    Status(Number, Line, Option<(Number, u64)>),
    /// The subscriber's meter.
    Charging(Number, Meter),
}

/// Why the exchange refuses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Error {
    /// Nobody has this number.
    Unknown(Number),
    /// Somebody has this number.
    Taken(Number),
    /// The table is full.
    Full,
    /// The line is doing something else.
    WrongState(Number, Line),
    /// A subscriber cannot call himself.
    SameNumber(Number),
}
