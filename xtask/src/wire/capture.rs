//! Captures that Wireshark opens: pcapng files (draft-ietf-opsawg-pcapng), with nanoseconds.
//!
//! Each end of the wire is an interface of the file. A frame is captured as it was sent, on the interface of its sender, with
//! what the wire did to it as a comment.

use anyhow::{Context, Result};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
/// Tells readers the order of bytes.
const MAGIC: u32 = 0x1a2b_3c4d;
const ETHERNET: u16 = 1;

/// Options of blocks.
const COMMENT: u16 = 1;
const INTERFACE_NAME: u16 = 2;
const RESOLUTION: u16 = 9;
/// Nanoseconds: ten to the power of minus this.
const NANOSECONDS: u8 = 9;

/// A capture file. It is whole after every frame.
#[derive(Debug)]
pub(super) struct Capture<W = File> {
    file: W,
    /// How many ends the file knows.
    ends: usize,
}

impl Capture {
    /// Begins a file.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let cannot = || format!("cannot write {}", path.display());
        let file = File::create(path).with_context(cannot)?;
        Self::new(file).with_context(cannot)
    }
}

impl<W: Write> Capture<W> {
    fn new(file: W) -> io::Result<Self> {
        let mut capture = Self { file, ends: 0 };
        let mut body = Vec::new();
        body.extend(MAGIC.to_le_bytes());
        // Version 1.0, and a section whose length is not told.
        body.extend([1, 0, 0, 0]);
        body.extend(u64::MAX.to_le_bytes());
        capture.block(SECTION, body)?;
        Ok(capture)
    }

    /// Adds a frame that an end sent at a time, counted from 1970.
    ///
    /// # Errors
    ///
    /// Where the disk is full.
    pub(super) fn add(
        &mut self,
        end: usize,
        time: Duration,
        frame: &[u8],
        comment: &str,
    ) -> io::Result<()> {
        while self.ends <= end {
            self.interface()?;
        }
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let mut body = Vec::new();
        body.extend((end as u32).to_le_bytes());
        body.extend(((nanoseconds >> 32) as u32).to_le_bytes());
        body.extend((nanoseconds as u32).to_le_bytes());
        // Captured, and as long as it was.
        body.extend((frame.len() as u32).to_le_bytes());
        body.extend((frame.len() as u32).to_le_bytes());
        padded(&mut body, frame);
        if !comment.is_empty() {
            option(&mut body, COMMENT, comment.as_bytes());
            option(&mut body, 0, &[]);
        }
        self.block(PACKET, body)
    }

    fn interface(&mut self) -> io::Result<()> {
        let mut body = Vec::new();
        body.extend(ETHERNET.to_le_bytes());
        // Reserved, and no limit to what is captured of a frame.
        body.extend([0; 2 + 4]);
        let name = format!("end {}", self.ends);
        option(&mut body, INTERFACE_NAME, name.as_bytes());
        option(&mut body, RESOLUTION, &[NANOSECONDS]);
        option(&mut body, 0, &[]);
        self.ends += 1;
        self.block(INTERFACE, body)
    }

    fn block(&mut self, kind: u32, body: Vec<u8>) -> io::Result<()> {
        let length = (body.len() as u32 + 12).to_le_bytes();
        let block = [&kind.to_le_bytes()[..], &length, &body, &length].concat();
        self.file.write_all(&block)
    }
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    padded(body, value);
}

/// Appends bytes and fills up to a multiple of 4.
fn padded(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend(bytes);
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A packet that is read from a capture.
    #[derive(Debug, PartialEq, Eq)]
    pub(in super::super) struct Packet {
        pub(in super::super) end: u32,
        pub(in super::super) nanoseconds: u64,
        pub(in super::super) bytes: Vec<u8>,
        pub(in super::super) comment: String,
    }

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Reads a capture, and checks on the way what every reader relies on.
    pub(in super::super) fn read(mut file: &[u8]) -> Vec<Packet> {
        let (mut packets, mut interfaces, mut first) = (Vec::new(), 0, true);
        while !file.is_empty() {
            let (kind, length) = (word(file, 0), word(file, 4) as usize);
            assert!(length.is_multiple_of(4) && word(file, length - 4) as usize == length);
            assert_eq!(kind == SECTION, first);
            first = false;
            let body = &file[8..length - 4];
            file = &file[length..];
            match kind {
                SECTION => assert_eq!(word(body, 0), MAGIC),
                INTERFACE => {
                    assert_eq!(word(body, 0), u32::from(ETHERNET));
                    assert!(body.windows(5).any(|part| part == [9, 0, 1, 0, 9]));
                    interfaces += 1;
                }
                PACKET => {
                    let end = word(body, 0);
                    assert!(end < interfaces);
                    let length = word(body, 12) as usize;
                    assert_eq!(word(body, 16) as usize, length);
                    let rest = &body[20 + length.next_multiple_of(4)..];
                    let comment = match rest {
                        [] => String::new(),
                        [1, 0, low, high, text @ ..] => {
                            let length = usize::from(u16::from_le_bytes([*low, *high]));
                            assert!(text[length.next_multiple_of(4)..] == [0; 4]);
                            String::from_utf8(text[..length].to_vec()).unwrap()
                        }
                        other => panic!("{other:?}"),
                    };
                    packets.push(Packet {
                        end,
                        nanoseconds: u64::from(word(body, 4)) << 32 | u64::from(word(body, 8)),
                        bytes: body[20..20 + length].to_vec(),
                        comment,
                    });
                }
                other => panic!("a block of the kind {other:#x}"),
            }
        }
        packets
    }

    #[test]
    fn what_is_captured_is_read_again() {
        let mut file = Vec::new();
        let mut capture = Capture::new(&mut file).unwrap();
        let time = Duration::new(1_000_000_000, 123_456_789);
        capture.add(1, time, b"hello", "").unwrap();
        capture.add(0, time, b"frames", "lost").unwrap();
        let packet = |end, bytes: &[u8], comment: &str| Packet {
            end,
            nanoseconds: 1_000_000_000_123_456_789,
            bytes: bytes.to_vec(),
            comment: comment.to_owned(),
        };
        assert_eq!(
            read(&file),
            [packet(1, b"hello", ""), packet(0, b"frames", "lost")]
        );
    }
}
