//! Fields one after another, big-endian.

use crate::{Line, Malformed, Number, Tariff};

/// Writes fields into a place of fixed size.
#[derive(Debug)]
pub(crate) struct Writer<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Writer<N> {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: [0; N],
            length: 0,
        }
    }

    /// Adds bytes; all datagrams' kinds fit by their definition.
    fn put(mut self, bytes: &[u8]) -> Self {
        for byte in bytes {
            self.bytes[self.length] = *byte;
            self.length += 1;
        }
        self
    }

    pub(crate) fn u8(self, value: u8) -> Self {
        self.put(&[value])
    }

    pub(crate) fn u16(self, value: u16) -> Self {
        self.put(&value.to_be_bytes())
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.put(&value.to_be_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.put(&value.to_be_bytes())
    }

    pub(crate) fn number(self, number: Number) -> Self {
        self.u32(number.get())
    }

    pub(crate) fn line(self, line: Line) -> Self {
        self.u8(match line {
            Line::Idle => 0,
            Line::Dialling => 1,
            Line::Ringing => 2,
            Line::Connected => 3,
            Line::Busy => 4,
        })
    }

    pub(crate) fn tariff(self, tariff: Tariff) -> Self {
        self.u8(match tariff {
            Tariff::Local => 0,
            Tariff::Trunk => 1,
            Tariff::Service => 2,
        })
    }

    pub(crate) const fn finish(self) -> ([u8; N], usize) {
        (self.bytes, self.length)
    }
}

/// Reads fields.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(*field)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.take().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.take().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.take().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.take().map(u64::from_be_bytes)
    }

    pub(crate) fn number(&mut self) -> Result<Number, Malformed> {
        let number = self.u32()?;
        Number::new(number).ok_or(Malformed::Number(number))
    }

    /// Reads the place of a number that this kind of question does not need.
    pub(crate) fn no_number(&mut self) -> Result<(), Malformed> {
        match self.u32()? {
            0 => Ok(()),
            _ => Err(Malformed::Reserved),
        }
    }

    pub(crate) fn line(&mut self) -> Result<Line, Malformed> {
        Ok(match self.u8()? {
            0 => Line::Idle,
            1 => Line::Dialling,
            2 => Line::Ringing,
            3 => Line::Connected,
            4 => Line::Busy,
            other => return Err(Malformed::Line(other)),
        })
    }

    pub(crate) fn tariff(&mut self) -> Result<Tariff, Malformed> {
        Ok(match self.u8()? {
            0 => Tariff::Local,
            1 => Tariff::Trunk,
            2 => Tariff::Service,
            other => return Err(Malformed::Tariff(other)),
        })
    }

    pub(crate) const fn finish(self) -> Result<(), Malformed> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Malformed::Long)
        }
    }
}
