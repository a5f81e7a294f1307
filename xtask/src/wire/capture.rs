//! Captures that Wireshark opens: pcapng files (draft-ietf-opsawg-pcapng), with nanoseconds.
//!
//! Each end of the wire is an interface of the file. A frame is captured as it was sent, on the interface of its sender, with
//! what the wire did to it as a comment.

use anyhow::{Context, Result};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

pub(super) const SECTION: u32 = 0x0a0d_0d0a;
pub(super) const INTERFACE: u32 = 1;
pub(super) const PACKET: u32 = 6;
/// Tells readers the order of bytes.
pub(super) const MAGIC: u32 = 0x1a2b_3c4d;
pub(super) const ETHERNET: u16 = 1;

/// Options of blocks.
pub(super) const COMMENT: u16 = 1;
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
    pub(super) fn new(file: W) -> io::Result<Self> {
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
mod tests {
    use super::super::packets::{Packet, read};
    use super::*;

    #[test]
    fn what_is_captured_is_read_again() {
        let mut file = Vec::new();
        let mut capture = Capture::new(&mut file).unwrap();
        let time = Duration::new(1_000_000_000, 123_456_789);
        capture.add(1, time, b"hello", "").unwrap();
        capture.add(0, time, b"frames", "lost").unwrap();
        let packet = |end, bytes: &[u8], comment: &str| Packet {
            end,
            time,
            bytes: bytes.to_vec(),
            comment: comment.to_owned(),
        };
        assert_eq!(
            read(&file),
            Ok(vec![packet(1, b"hello", ""), packet(0, b"frames", "lost")])
        );
        // Both interfaces count in nanoseconds.
        let resolutions = file.windows(5).filter(|part| **part == [9, 0, 1, 0, 9]);
        assert_eq!(resolutions.count(), 2);
    }
}
