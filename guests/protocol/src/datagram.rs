//! What all datagrams have in common.

use core::fmt;
use core::ops::Deref;

use crate::bytes::{Reader, Writer};
use crate::{ANSWER_LENGTH_MAX, MAGIC, VERSION};

/// A datagram as it goes on the wire; it dereferences to its bytes.
#[derive(Clone, Copy)]
pub struct Datagram {
    bytes: [u8; ANSWER_LENGTH_MAX],
    length: usize,
}

impl Datagram {
    pub(crate) const fn new(writer: Writer<ANSWER_LENGTH_MAX>) -> Self {
        let (bytes, length) = writer.finish();
        Self { bytes, length }
    }
}

impl Deref for Datagram {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl fmt::Debug for Datagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl PartialEq for Datagram {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Datagram {}

/// Why a datagram is none of this protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Malformed {
    /// It ends before its last field.
    Short,
    /// Something follows its last field.
    Long,
    /// It does not begin with [`MAGIC`].
    Magic(u32),
    /// It is of another version.
    Version(u8),
    /// There is no such kind of question, or of answer.
    Kind(u8),
    /// A place that must be zero is not.
    Reserved,
    /// No subscriber can have this number.
    Number(u32),
    /// There is no line of this code.
    Line(u8),
    /// There is no tariff of this code.
    Tariff(u8),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("it is too short"),
            Self::Long => f.write_str("it is too long"),
            Self::Magic(magic) => write!(f, "it begins with {magic:#010x}"),
            Self::Version(version) => write!(f, "it is of version {version}"),
            Self::Kind(kind) => write!(f, "there is no kind {kind:#04x}"),
            Self::Reserved => f.write_str("a place that must be zero is not"),
            Self::Number(number) => write!(f, "{number} is no subscriber's number"),
            Self::Line(code) => write!(f, "there is no line {code}"),
            Self::Tariff(code) => write!(f, "there is no tariff {code}"),
        }
    }
}

impl core::error::Error for Malformed {}

/// How every datagram begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) kind: u8,
    pub(crate) client: u32,
    pub(crate) number: u32,
}

impl Header {
    pub(crate) fn write(self) -> Writer<ANSWER_LENGTH_MAX> {
        let Self {
            kind,
            client,
            number,
        } = self;
        let writer = Writer::new().u32(MAGIC).u8(VERSION).u8(kind).u16(0);
        writer.u32(client).u32(number)
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let magic = reader.u32()?;
        if magic != MAGIC {
            return Err(Malformed::Magic(magic));
        }
        let version = reader.u8()?;
        if version != VERSION {
            return Err(Malformed::Version(version));
        }
        let kind = reader.u8()?;
        if reader.u16()? != 0 {
            return Err(Malformed::Reserved);
        }
        Ok(Self {
            kind,
            client: reader.u32()?,
            number: reader.u32()?,
        })
    }
}
