//! Call processing over UDP: what can be asked of the telephone exchange, what it says, and how that lies in a datagram.
//!
//! The exchange in the legacy system serves it at [`PORT`]; the gateway in Linux and the test clients ask.
//!
//! # Exchange of datagrams
//!
//! A client chooses an identity, best at random whenever it starts, and numbers its questions. Each question is one
//! datagram, and gets one answer with the client and the number of the question. Datagrams may be lost, doubled and
//! late: a client that waits in vain sends *the same* question again, and the server does nothing twice.
//!
//! * A client has one question under way at a time. Who wants more of them takes more identities.
//! * Numbers grow by any step, and wrap ([`is_later`]). The first may be any.
//! * The server keeps the last answer to each client. It repeats that to a question with the same number, whatever else
//!   the question says, drops one with an older number, and executes one with a later number.
//! * A client is known by its identity and its IP address. An answer goes to the port that its question came from.
//! * The server has room for a limited number of clients ([`CLIENTS`]), and forgets one only after [`MEMORY`]
//!   milliseconds of silence. Until there is room, it answers a new client with [`Outcome::Crowded`], and has executed
//!   nothing.
//! * What is not a whole and right question gets no answer at all.
//!
//! # Layout
//!
//! All numbers are big-endian, and all datagrams begin alike:
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 4 | [`MAGIC`] |
//! | 4 | 1 | [`VERSION`] |
//! | 5 | 1 | the kind: below 0x80 a question, from there on an answer |
//! | 6 | 2 | zero |
//! | 8 | 4 | the client |
//! | 12 | 4 | the question's number |
//!
//! A question goes on with two subscribers' numbers of 4 bytes; those that its kind does not need are zero:
//!
//! | kind | question | first | second |
//! | --- | --- | --- | --- |
//! | 1 | register | subscriber | |
//! | 2 | call | caller | callee |
//! | 3 | answer | callee | |
//! | 4 | clear | subscriber | |
//! | 5 | status | subscriber | |
//! | 6 | charging | subscriber | |
//! | 7 | totals | | |
//!
//! An answer goes on with the fields of its kind, and ends there. A subscriber's number and a tariff's or a line's code have
//! 4, 1 and 1 bytes; counters and times, which are milliseconds, have 8.
//!
//! | kind | answer | fields |
//! | --- | --- | --- |
//! | 0x81 | registered | subscriber |
//! | 0x82 | ringing | caller, callee |
//! | 0x83 | busy | caller, callee |
//! | 0x84 | connected | caller, callee, tariff |
//! | 0x85 | cleared, no connected call ended | subscriber |
//! | 0x86 | cleared | subscriber, pulses |
//! | 0x87 | status, no other party | subscriber, line |
//! | 0x88 | status | subscriber, line, other party, time since the call was made or answered |
//! | 0x89 | charging | subscriber, pulses, connected time, calls |
//! | 0x8a | totals | those of [`Totals`], in their order |
//! | 0xa0 | refused: unknown | subscriber |
//! | 0xa1 | refused: already registered | subscriber |
//! | 0xa2 | refused: no room for a subscriber | |
//! | 0xa3 | refused: wrong state | subscriber, line |
//! | 0xa4 | refused: calls itself | subscriber |
//! | 0xb0 | no room for another client | |
//!
//! Lines: 0 idle, 1 dialling, 2 ringing, 3 connected, 4 busy. Tariffs: 0 local, 1 trunk, 2 service.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod answer;
mod bytes;
mod datagram;
mod question;

mod show;
mod subscriber;
#[cfg(test)]
mod tests;

pub use answer::{Answer, Outcome, Totals};
pub use datagram::{Datagram, Malformed};
pub use question::{Operation, Question};
pub use subscriber::{Error, Line, Meter, Number, Reply, Request, Tariff};

/// The UDP port of the exchange.
pub const PORT: u16 = 5000;
/// How every datagram begins: "LX20".
pub const MAGIC: u32 = 0x4c58_3230;
/// The version of the layout.
pub const VERSION: u8 = 1;
/// The length of a question in bytes.
pub const QUESTION_LENGTH: usize = 24;
/// The length of the longest answer in bytes.
pub const ANSWER_LENGTH_MAX: usize = 16 + Totals::LENGTH;
/// Clients that the server knows at a time.
pub const CLIENTS: usize = 64;
/// Milliseconds for which the server keeps a silent client's last answer at least: no copy of a question may come later.
pub const MEMORY: u64 = 30_000;

/// Whether one number of a question is later than another: by less than half of all numbers (RFC 1982, 3.2).
#[must_use]
pub const fn is_later(number: u32, than: u32) -> bool {
    number.wrapping_sub(than).cast_signed() > 0
}
