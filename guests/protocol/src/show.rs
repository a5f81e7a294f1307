//! What the exchange says, as text.

use core::fmt::{self, Display, Formatter};

use crate::{Error, Line, Meter, Number, Reply, Tariff};

impl Display for Number {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl Display for Line {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Dialling => "dialling",
            Self::Ringing => "ringing",
            Self::Connected => "connected",
            Self::Busy => "busy",
        })
    }
}

impl Display for Tariff {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Trunk => "trunk",
            Self::Service => "service",
        })
    }
}

impl Display for Meter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            pulses,
            connected,
            calls,
        } = self;
        write!(
            f,
            "{pulses} pulses, {calls} calls, {}.{:03} s connected",
            connected / 1000,
            connected % 1000
        )
    }
}

impl Display for Reply {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registered(number) => write!(f, "{number} registered"),
            Self::Ringing(from, to) => write!(f, "{from} calls {to}, ringing"),
            Self::Busy(from, to) => write!(f, "{from} calls {to}, busy"),
            Self::Connected(from, to, tariff) => {
                write!(f, "{from} and {to} connected, {tariff} tariff")
            }
            Self::Cleared(number, None) => write!(f, "{number} cleared"),
            Self::Cleared(number, Some(pulses)) => write!(f, "{number} cleared, {pulses} pulses"),
            Self::Status(number, line, None) => write!(f, "{number} {line}"),
            Self::Status(number, line, Some((other, time))) => {
                write!(
                    f,
                    "{number} {line} with {other} for {}.{:03} s",
                    time / 1000,
                    time % 1000
                )
            }
            Self::Charging(number, meter) => write!(f, "{number} {meter}"),
        }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(number) => write!(f, "{number} unknown"),
            Self::Taken(number) => write!(f, "{number} already registered"),
            Self::Full => write!(f, "no room for another subscriber"),
            Self::WrongState(number, line) => write!(f, "{number} is {line}"),
            Self::SameNumber(number) => write!(f, "{number} cannot call itself"),
        }
    }
}
