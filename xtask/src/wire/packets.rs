//! Reads captures of this program's own (see [`super::capture`]), from a file that may still be written.

use super::capture::{COMMENT, ETHERNET, INTERFACE, MAGIC, PACKET, SECTION};
use std::fmt;
use std::time::Duration;

/// A block's kind, its length, and the length again at its end.
const FRAMING: usize = 12;
/// A packet block's fields before the frame.
const HEAD: usize = 20;

/// A frame that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// The end that sent it.
    pub(crate) end: usize,
    /// When, counted from 1970.
    pub(crate) time: Duration,
    /// Its bytes from the destination's address on, without the checksum.
    pub(crate) bytes: Vec<u8>,
    /// What the wire did to it, where it did something.
    pub(crate) comment: String,
}

/// Why a file is no capture of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CaptureError {
    /// It does not begin as one, or in the other order of bytes.
    Start,
    /// The block that begins at this byte is of no kind that we write.
    Kind(usize, u32),
    /// The block that begins at this byte does not fit together.
    Block(usize),
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("it begins as no pcapng file of this host's byte order"),
            Self::Kind(at, kind) => write!(f, "the block at byte {at} has the kind {kind:#x}"),
            Self::Block(at) => write!(f, "the block at byte {at} does not fit together"),
        }
    }
}

impl std::error::Error for CaptureError {}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*field))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_le_bytes(*field))
}

/// All frames of a capture. A last block that is not whole yet is left out.
///
/// # Errors
///
/// Where it is no capture of ours.
pub(crate) fn read(file: &[u8]) -> Result<Vec<Packet>, CaptureError> {
    let (mut packets, mut interfaces, mut at) = (Vec::new(), 0, 0);
    while let (Some(kind), Some(length)) = (word(file, at), word(file, at + 4)) {
        if (kind == SECTION) != (at == 0) {
            return Err(CaptureError::Start);
        }
        let length = length as usize;
        if length < FRAMING || !length.is_multiple_of(4) {
            return Err(CaptureError::Block(at));
        }
        let Some(block) = at.checked_add(length).and_then(|end| file.get(at..end)) else {
            break;
        };
        let body = &block[8..length - 4];
        if word(block, length - 4) != word(block, 4) {
            return Err(CaptureError::Block(at));
        }
        match kind {
            SECTION if word(body, 0) == Some(MAGIC) => {}
            SECTION => return Err(CaptureError::Start),
            INTERFACE if half(body, 0) == Some(ETHERNET) => interfaces += 1,
            PACKET => {
                let read = packet(body).filter(|packet| packet.end < interfaces);
                packets.push(read.ok_or(CaptureError::Block(at))?);
            }
            kind => return Err(CaptureError::Kind(at, kind)),
        }
        at += length;
    }
    Ok(packets)
}

/// Reads a packet block. Its times are nanoseconds, as our interfaces say.
fn packet(body: &[u8]) -> Option<Packet> {
    let nanoseconds = u64::from(word(body, 4)?) << 32 | u64::from(word(body, 8)?);
    let length = word(body, 12)? as usize;
    let bytes = body.get(HEAD..HEAD.checked_add(length)?)?;
    let options = body.get(HEAD + length.checked_next_multiple_of(4)?..)?;
    let comment = match half(options, 0) {
        None => String::new(),
        Some(COMMENT) => {
            let length = usize::from(half(options, 2)?);
            String::from_utf8(options.get(4..4 + length)?.to_vec()).ok()?
        }
        Some(_) => return None,
    };
    Some(Packet {
        end: word(body, 0)? as usize,
        time: Duration::from_nanos(nanoseconds),
        bytes: bytes.to_vec(),
        comment,
    })
}

#[cfg(test)]
mod tests {
    use super::super::capture::Capture;
    use super::*;
    use proptest::prelude::*;

    fn capture(frames: &[&[u8]]) -> Vec<u8> {
        let mut file = Vec::new();
        let mut capture = Capture::new(&mut file).unwrap();
        for frame in frames {
            let time = Duration::new(1_000_000_000, 5);
            capture.add(1, time, frame, "lost").unwrap();
        }
        file
    }

    #[test]
    fn a_capture_that_is_being_written_is_read_as_far_as_it_goes() {
        let (one, two) = (capture(&[b"one"]), capture(&[b"one", b"two!"]));
        for length in one.len()..two.len() {
            assert_eq!(read(&two[..length]).unwrap().len(), 1, "{length}");
        }
        assert_eq!(read(&two).unwrap()[1].bytes, b"two!");
        assert_eq!(read(&[]), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_capture_is_refused() {
        let good = capture(&[b"frame"]);
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            read(&bytes).unwrap_err()
        };
        assert_eq!(with(0, 1), CaptureError::Start);
        assert_eq!(with(8, 0), CaptureError::Start);
        assert_eq!(with(4, 30), CaptureError::Block(0));
        assert_eq!(with(24, 29), CaptureError::Block(0));
        assert_eq!(with(28, 9), CaptureError::Kind(28, 9));
        assert_eq!(read(b"GET / HTTP/1.1\r\n"), Err(CaptureError::Start));
        // The packet says that it comes from an end that there is not.
        let packet = good.len() - 52;
        assert_eq!(word(&good, packet), Some(PACKET));
        assert_eq!(with(packet + 8, 2), CaptureError::Block(packet));
        assert_eq!(with(packet + 20, 200), CaptureError::Block(packet));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(tail: Vec<u8>, at in 0_usize..120, byte: u8) {
            let mut bytes = capture(&[b"frame", b"another"]);
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            let _ = read(&bytes);
            bytes.extend(&tail);
            let _ = read(&bytes);
        }
    }
}
