//! Questions.

use crate::bytes::Reader;
use crate::datagram::Header;
use crate::{Datagram, Malformed, Number, Request};

const REGISTER: u8 = 1;
const CALL: u8 = 2;
const ANSWER: u8 = 3;
const CLEAR: u8 = 4;
const STATUS: u8 = 5;
const CHARGING: u8 = 6;
const TOTALS: u8 = 7;

/// What the server is to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// Something that the exchange does.
    Exchange(Request),
    /// The counters of the exchange and of the server.
    Totals,
}

/// A client's question.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Question {
    /// Who asks.
    pub client: u32,
    /// Which of the client's questions this is.
    pub number: u32,
    /// What is asked.
    pub operation: Operation,
}

impl Question {
    /// The question as a datagram.
    #[must_use]
    pub fn encode(&self) -> Datagram {
        let (kind, first, second) = match self.operation {
            Operation::Exchange(Request::Register(number)) => (REGISTER, Some(number), None),
            Operation::Exchange(Request::Call(from, to)) => (CALL, Some(from), Some(to)),
            Operation::Exchange(Request::Answer(number)) => (ANSWER, Some(number), None),
            Operation::Exchange(Request::Clear(number)) => (CLEAR, Some(number), None),
            Operation::Exchange(Request::Status(number)) => (STATUS, Some(number), None),
            Operation::Exchange(Request::Charging(number)) => (CHARGING, Some(number), None),
            Operation::Totals => (TOTALS, None, None),
        };
        let header = Header {
            kind,
            client: self.client,
            number: self.number,
        };
        let place = |number: Option<Number>| number.map_or(0, Number::get);
        Datagram::new(header.write().u32(place(first)).u32(place(second)))
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// If it is not a whole and right question.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(datagram);
        let header = Header::read(&mut reader)?;
        let of_one: Option<fn(Number) -> Request> = match header.kind {
            REGISTER => Some(Request::Register),
            ANSWER => Some(Request::Answer),
            CLEAR => Some(Request::Clear),
            STATUS => Some(Request::Status),
            CHARGING => Some(Request::Charging),
            _ => None,
        };
        let operation = match (header.kind, of_one) {
            (_, Some(request)) => {
                let number = reader.number()?;
                reader.no_number()?;
                Operation::Exchange(request(number))
            }
            (CALL, None) => Operation::Exchange(Request::Call(reader.number()?, reader.number()?)),
            (TOTALS, None) => {
                reader.no_number()?;
                reader.no_number()?;
                Operation::Totals
            }
            (kind, None) => return Err(Malformed::Kind(kind)),
        };
        reader.finish()?;
        Ok(Self {
            client: header.client,
            number: header.number,
            operation,
        })
    }
}
