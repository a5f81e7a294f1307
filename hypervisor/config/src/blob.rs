//! The binary form of a board, as it travels to the hypervisor in a boot module.
//!
//! ```text
//! offset  size  what
//!      0     8  magic "UNDRSTDY"
//!      8     4  version, little-endian, as all numbers here
//!     12     4  length of the payload in bytes; nothing follows it
//!     16     4  CRC-32 (IEEE) of bytes 0 to 15 and of the payload
//!     20     n  payload: the board in postcard's encoding
//! ```
//!
//! [`decode`] trusts none of it: after the checksum it still checks every limit of the board, so
//! that the hypervisor can rely on a decoded board however the bytes came about.

use crate::board::Board;
use crate::validate::Problem;
use alloc::vec::Vec;
use core::fmt;

/// The first bytes of every blob.
pub const MAGIC: [u8; 8] = *b"UNDRSTDY";
/// The version that this code writes, and the only one that it reads.
pub const VERSION: u32 = 4;
/// Bytes before the payload.
pub const HEADER_LEN: usize = 20;
/// The longest blob that is read: far above what the limits of a board allow.
pub const LEN_MAX: usize = 1024 * 1024;

const CRC_AT: usize = 16;

/// Why a blob was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobError {
    /// Shorter than the header.
    TooShort {
        /// Its length.
        len: usize,
    },
    /// Longer than [`LEN_MAX`].
    TooLong {
        /// Its length.
        len: usize,
    },
    /// Does not begin with [`MAGIC`].
    NotABoard,
    /// Written by another version.
    Version {
        /// The version it names.
        found: u32,
    },
    /// The header's length is not that of the payload.
    Length {
        /// What the header says.
        header: u32,
        /// What follows the header.
        found: usize,
    },
    /// The checksum does not hold.
    Checksum {
        /// What the header says.
        header: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// The payload is not the encoding of a board.
    Encoding,
    /// The payload goes on behind the board.
    Trailing {
        /// Bytes left over.
        len: usize,
    },
    /// A board came out that breaks a rule.
    Board(Problem),
}

impl fmt::Display for BlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { len } => {
                write!(f, "the board blob has {len} bytes, fewer than its header")
            }
            Self::TooLong { len } => {
                write!(
                    f,
                    "the board blob has {len} bytes, more than the {LEN_MAX} allowed"
                )
            }
            Self::NotABoard => f.write_str("this is not a board blob: it lacks the magic bytes"),
            Self::Version { found } => write!(
                f,
                "the board blob has version {found}, this hypervisor reads version {VERSION}; \
                 build image and blob together"
            ),
            Self::Length { header, found } => write!(
                f,
                "the board blob is cut off or padded: its header says {header} bytes, {found} follow"
            ),
            Self::Checksum { header, computed } => write!(
                f,
                "the board blob is corrupt: its checksum is {header:#010x}, its bytes give {computed:#010x}"
            ),
            Self::Encoding => f.write_str("the board blob does not encode a board"),
            Self::Trailing { len } => {
                write!(f, "the board blob has {len} bytes behind the board")
            }
            Self::Board(problem) => write!(f, "the board is not valid: {problem}"),
        }
    }
}

impl core::error::Error for BlobError {}

/// Writes a board as a blob.
///
/// # Panics
///
/// Never for a board that [`Board::validate`] accepts; one with strings of gigabytes would.
#[must_use]
pub fn encode(board: &Board) -> Vec<u8> {
    let payload = postcard::to_allocvec(board).expect("a board is plain data");
    let len = u32::try_from(payload.len()).expect("a board is far smaller than 4 GiB");
    let mut blob = Vec::with_capacity(HEADER_LEN + payload.len());
    blob.extend_from_slice(&MAGIC);
    blob.extend_from_slice(&VERSION.to_le_bytes());
    blob.extend_from_slice(&len.to_le_bytes());
    let crc = checksum(&blob, &payload);
    blob.extend_from_slice(&crc.to_le_bytes());
    blob.extend_from_slice(&payload);
    blob
}

/// Reads a blob back, believing nothing.
///
/// # Errors
///
/// A [`BlobError`] that says what is wrong with it.
pub fn decode(blob: &[u8]) -> Result<Board, BlobError> {
    if blob.len() > LEN_MAX {
        return Err(BlobError::TooLong { len: blob.len() });
    }
    let (Some(head), Some(payload)) = (blob.get(..CRC_AT), blob.get(HEADER_LEN..)) else {
        return Err(BlobError::TooShort { len: blob.len() });
    };
    if head[..MAGIC.len()] != MAGIC {
        return Err(BlobError::NotABoard);
    }
    let version = word(blob, 8);
    if version != VERSION {
        return Err(BlobError::Version { found: version });
    }
    let header = word(blob, 12);
    if usize::try_from(header) != Ok(payload.len()) {
        return Err(BlobError::Length {
            header,
            found: payload.len(),
        });
    }
    let (header, computed) = (word(blob, CRC_AT), checksum(head, payload));
    if header != computed {
        return Err(BlobError::Checksum { header, computed });
    }
    let (board, rest) =
        postcard::take_from_bytes::<Board>(payload).map_err(|_| BlobError::Encoding)?;
    if !rest.is_empty() {
        return Err(BlobError::Trailing { len: rest.len() });
    }
    board.validate().map_err(BlobError::Board)?;
    Ok(board)
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}

/// The little-endian word at `at`; the caller has checked that the blob reaches so far.
fn word(blob: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([blob[at], blob[at + 1], blob[at + 2], blob[at + 3]])
}
