//! What boards say of themselves before they are paired.
//!
//! ```text
//!   0  nonce u128, round u32      the sender's offer
//!  20  nonce u128, round u32      the offer that it heard of the peer; zeroes if none
//!  40  format u16, zero u16
//!  44  configuration u128
//!  60  cpu u128
//!  76  tsc_hz u64
//!  84  software                   32 bytes of ASCII, filled up with zeroes
//! 116
//! ```

use core::fmt;
use core::num::NonZeroU128;

use crate::key::{Nonce, Offer};

/// The version of a board's software, for people: up to 32 printable ASCII characters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Software([u8; 32]);

impl Software {
    /// As much of `version` as there is room for; `?` for what is not printable ASCII.
    #[must_use]
    pub fn new(version: &str) -> Self {
        let mut bytes = [0; 32];
        for (place, character) in bytes.iter_mut().zip(version.chars()) {
            *place = match u8::try_from(character) {
                Ok(byte) if byte == b' ' || byte.is_ascii_graphic() => byte,
                _ => b'?',
            };
        }
        Self(bytes)
    }
}

impl fmt::Display for Software {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.0.iter().position(|byte| *byte == 0).unwrap_or(32);
        f.write_str(core::str::from_utf8(&self.0[..length]).unwrap_or("?"))
    }
}

impl fmt::Debug for Software {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// What a board is, as far as its peer must be the same or at least know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The version of what the link carries: its records, and saved state.
    pub format: u16,
    /// A digest of what of the board file must be equal.
    pub configuration: u128,
    /// A digest of the processor that guests see.
    pub cpu: u128,
    /// The rate of the time-stamp counter in Hz.
    pub tsc_hz: u64,
    /// The version of the software.
    pub software: Software,
}

/// The body of a Hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) offer: Offer,
    pub(super) heard: Option<Offer>,
    pub(super) facts: Facts,
}

/// Takes fields off the front of bytes, or puts them there.
struct Cursor<T>(T);

impl Cursor<&[u8]> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn offer(&mut self) -> Option<Option<Offer>> {
        let nonce = NonZeroU128::new(u128::from_le_bytes(self.take()?));
        let round = u32::from_le_bytes(self.take()?);
        Some(nonce.map(|nonce| Offer {
            nonce: Nonce(nonce),
            round,
        }))
    }
}

impl Cursor<&mut [u8]> {
    fn put<const N: usize>(&mut self, field: [u8; N]) -> Option<()> {
        let (place, rest) = core::mem::take(&mut self.0).split_first_chunk_mut()?;
        *place = field;
        self.0 = rest;
        Some(())
    }

    fn offer(&mut self, offer: Option<Offer>) -> Option<()> {
        self.put(offer.map_or(0, |it| it.nonce.0.get()).to_le_bytes())?;
        self.put(offer.map_or(0, |it| it.round).to_le_bytes())
    }
}

impl Hello {
    /// Bytes of the body.
    pub(super) const BYTES: usize = 116;

    /// Writes it to the start of `body`; none if that is too short.
    pub(super) fn encode(&self, body: &mut [u8]) -> Option<usize> {
        let facts = &self.facts;
        let mut to = Cursor(body.get_mut(..Self::BYTES)?);
        to.offer(Some(self.offer))?;
        to.offer(self.heard)?;
        to.put(facts.format.to_le_bytes())?;
        to.put([0, 0])?;
        to.put(facts.configuration.to_le_bytes())?;
        to.put(facts.cpu.to_le_bytes())?;
        to.put(facts.tsc_hz.to_le_bytes())?;
        to.put(facts.software.0)?;
        Some(Self::BYTES)
    }

    /// The Hello in `body`; none if it is not one of this version.
    pub(super) fn decode(body: &[u8]) -> Option<Self> {
        if body.len() != Self::BYTES {
            return None;
        }
        let mut from = Cursor(body);
        let offer = from.offer()??;
        let heard = from.offer()?;
        let format = u16::from_le_bytes(from.take()?);
        if from.take()? != [0, 0] {
            return None;
        }
        let facts = Facts {
            format,
            configuration: u128::from_le_bytes(from.take()?),
            cpu: u128::from_le_bytes(from.take()?),
            tsc_hz: u64::from_le_bytes(from.take()?),
            software: Software(from.take()?),
        };
        let Software(text) = &facts.software;
        let length = text.iter().position(|byte| *byte == 0).unwrap_or(32);
        let (shown, filler) = text.split_at(length);
        let printable = |byte: &u8| *byte == b' ' || byte.is_ascii_graphic();
        (shown.iter().all(printable) && filler.iter().all(|byte| *byte == 0)).then_some(Self {
            offer,
            heard,
            facts,
        })
    }
}
