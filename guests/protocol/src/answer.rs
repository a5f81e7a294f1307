//! Answers.

use crate::bytes::{Reader, Writer};
use crate::datagram::Header;
use crate::{ANSWER_LENGTH_MAX, Datagram, Error, Malformed, Meter, Reply};

const REGISTERED: u8 = 0x81;
const RINGING: u8 = 0x82;
const BUSY: u8 = 0x83;
const CONNECTED: u8 = 0x84;
const CLEARED: u8 = 0x85;
const CLEARED_CONNECTED: u8 = 0x86;
const STATUS: u8 = 0x87;
const STATUS_OF_CALL: u8 = 0x88;
const CHARGING: u8 = 0x89;
const TOTALS: u8 = 0x8a;
const UNKNOWN: u8 = 0xa0;
const TAKEN: u8 = 0xa1;
const FULL: u8 = 0xa2;
const WRONG_STATE: u8 = 0xa3;
const SAME_NUMBER: u8 = 0xa4;
const CROWDED: u8 = 0xb0;

/// Counters, all of them since the start of the system.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Milliseconds.
    pub uptime: u64,
    /// Questions that were executed, this one included.
    pub executed: u64,
    /// Questions that were answered again and not executed again.
    pub duplicates: u64,
    /// Questions that came after a later one of the same client, and were dropped.
    pub outdated: u64,
    /// Datagrams that were no questions, and were dropped.
    pub malformed: u64,
    /// Questions of clients for which there was no room.
    pub crowded: u64,
    /// Subscribers in service.
    pub subscribers: u64,
    /// Calls that ring now.
    pub ringing: u64,
    /// Calls that are connected now.
    pub connected: u64,
    /// Calls that were answered, by whichever way they were asked for.
    pub calls: u64,
    /// Pulses on all meters.
    pub pulses: u64,
}

impl Totals {
    /// The length of all of them in a datagram.
    pub(crate) const LENGTH: usize = 11 * 8;

    fn write(self, writer: Writer<ANSWER_LENGTH_MAX>) -> Writer<ANSWER_LENGTH_MAX> {
        let Self {
            uptime,
            executed,
            duplicates,
            outdated,
            malformed,
            crowded,
            subscribers,
            ringing,
            connected,
            calls,
            pulses,
        } = self;
        [
            uptime,
            executed,
            duplicates,
            outdated,
            malformed,
            crowded,
            subscribers,
            ringing,
            connected,
            calls,
            pulses,
        ]
        .into_iter()
        .fold(writer, Writer::u64)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            uptime: reader.u64()?,
            executed: reader.u64()?,
            duplicates: reader.u64()?,
            outdated: reader.u64()?,
            malformed: reader.u64()?,
            crowded: reader.u64()?,
            subscribers: reader.u64()?,
            ringing: reader.u64()?,
            connected: reader.u64()?,
            calls: reader.u64()?,
            pulses: reader.u64()?,
        })
    }
}

/// What came of a question.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The exchange did it.
    Done(Reply),
    /// The exchange refused; its state is unchanged.
    Refused(Error),
    /// The counters.
    Totals(Totals),
    /// The server has no room for another client. Nothing was executed, and the answer is not kept.
    Crowded,
}

impl From<Result<Reply, Error>> for Outcome {
    fn from(result: Result<Reply, Error>) -> Self {
        match result {
            Ok(reply) => Self::Done(reply),
            Err(error) => Self::Refused(error),
        }
    }
}

/// The server's answer to a question.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Answer {
    /// Who asked.
    pub client: u32,
    /// Which of the client's questions is answered.
    pub number: u32,
    /// What came of it.
    pub outcome: Outcome,
}

impl Answer {
    /// The answer as a datagram.
    #[must_use]
    pub fn encode(&self) -> Datagram {
        let of = |kind| {
            let header = Header {
                kind,
                client: self.client,
                number: self.number,
            };
            header.write()
        };
        Datagram::new(match self.outcome {
            Outcome::Done(Reply::Registered(number)) => of(REGISTERED).number(number),
            Outcome::Done(Reply::Ringing(from, to)) => of(RINGING).number(from).number(to),
            Outcome::Done(Reply::Busy(from, to)) => of(BUSY).number(from).number(to),
            Outcome::Done(Reply::Connected(from, to, tariff)) => {
                of(CONNECTED).number(from).number(to).tariff(tariff)
            }
            Outcome::Done(Reply::Cleared(number, None)) => of(CLEARED).number(number),
            Outcome::Done(Reply::Cleared(number, Some(pulses))) => {
                of(CLEARED_CONNECTED).number(number).u64(pulses)
            }
            Outcome::Done(Reply::Status(number, line, None)) => {
                of(STATUS).number(number).line(line)
            }
            Outcome::Done(Reply::Status(number, line, Some((other, time)))) => {
                let writer = of(STATUS_OF_CALL).number(number).line(line);
                writer.number(other).u64(time)
            }
            Outcome::Done(Reply::Charging(number, meter)) => {
                let Meter {
                    pulses,
                    connected,
                    calls,
                } = meter;
                let writer = of(CHARGING).number(number);
                writer.u64(pulses).u64(connected).u64(calls)
            }
            Outcome::Totals(totals) => totals.write(of(TOTALS)),
            Outcome::Refused(Error::Unknown(number)) => of(UNKNOWN).number(number),
            Outcome::Refused(Error::Taken(number)) => of(TAKEN).number(number),
            Outcome::Refused(Error::Full) => of(FULL),
            Outcome::Refused(Error::WrongState(number, line)) => {
                of(WRONG_STATE).number(number).line(line)
            }
            Outcome::Refused(Error::SameNumber(number)) => of(SAME_NUMBER).number(number),
            Outcome::Crowded => of(CROWDED),
        })
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// If it is not a whole and right answer.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(datagram);
        let header = Header::read(&mut reader)?;
        let from = &mut reader;
        let outcome = match header.kind {
            REGISTERED => Outcome::Done(Reply::Registered(from.number()?)),
            RINGING => Outcome::Done(Reply::Ringing(from.number()?, from.number()?)),
            BUSY => Outcome::Done(Reply::Busy(from.number()?, from.number()?)),
            CONNECTED => {
                let (caller, callee) = (from.number()?, from.number()?);
                Outcome::Done(Reply::Connected(caller, callee, from.tariff()?))
            }
            CLEARED => Outcome::Done(Reply::Cleared(from.number()?, None)),
            CLEARED_CONNECTED => Outcome::Done(Reply::Cleared(from.number()?, Some(from.u64()?))),
            STATUS => Outcome::Done(Reply::Status(from.number()?, from.line()?, None)),
            STATUS_OF_CALL => {
                let (number, line) = (from.number()?, from.line()?);
                let other = (from.number()?, from.u64()?);
                Outcome::Done(Reply::Status(number, line, Some(other)))
            }
            CHARGING => {
                let number = from.number()?;
                let meter = Meter {
                    pulses: from.u64()?,
                    connected: from.u64()?,
                    calls: from.u64()?,
                };
                Outcome::Done(Reply::Charging(number, meter))
            }
            TOTALS => Outcome::Totals(Totals::read(from)?),
            UNKNOWN => Outcome::Refused(Error::Unknown(from.number()?)),
            TAKEN => Outcome::Refused(Error::Taken(from.number()?)),
            FULL => Outcome::Refused(Error::Full),
            WRONG_STATE => Outcome::Refused(Error::WrongState(from.number()?, from.line()?)),
            SAME_NUMBER => Outcome::Refused(Error::SameNumber(from.number()?)),
            CROWDED => Outcome::Crowded,
            kind => return Err(Malformed::Kind(kind)),
        };
        reader.finish()?;
        Ok(Self {
            client: header.client,
            number: header.number,
            outcome,
        })
    }
}
