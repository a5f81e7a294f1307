//! A frame on its way from one port to others, wherever its bytes are.

use crate::memory::{GuestMemory, OutOfBounds};
use devices::OutsideMemory;
use devices::virtio::{Part, Payload};
use net::{HEADERS_MAX, Offload, PartialChecksum};

/// Bytes behind a frame's head.
#[derive(Clone, Copy)]
pub(crate) enum Rest<'a> {
    /// In the hypervisor's own memory.
    Bytes(&'a [u8]),
    /// In a guest's, in parts that are inside it.
    Guest(&'a GuestMemory, &'a [Part]),
}

impl Rest<'_> {
    fn length(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Guest(_, parts) => parts.iter().map(|part| part.length as usize).sum(),
        }
    }
}

/// A frame. Its head, with all headers, is in the hypervisor's own memory, whoever sent it: what is decided on is what arrives.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    /// The Ethernet header in another form than it came in, which may be empty.
    header: &'a [u8],
    /// How much of the head that stands in for.
    replaced: usize,
    head: &'a [u8],
    rest: Rest<'a>,
    length: usize,
    pub(crate) offload: Offload,
}

impl<'a> Frame<'a> {
    pub(crate) fn new(head: &'a [u8], rest: Rest<'a>, offload: Offload) -> Self {
        Self {
            header: &[],
            replaced: 0,
            head,
            rest,
            length: head.len() + rest.length(),
            offload,
        }
    }

    /// A frame in one piece.
    pub(crate) fn of_bytes(bytes: &'a [u8], offload: Offload) -> Self {
        Self::new(bytes, Rest::Bytes(&[]), offload)
    }

    /// Bytes from the destination address on.
    pub(crate) const fn length(&self) -> usize {
        self.length
    }

    /// The first bytes as they came: all headers that anybody looks at, or the whole frame.
    pub(crate) const fn head(&self) -> &'a [u8] {
        self.head
    }

    /// The same frame with `header` in place of its first `replaced` bytes.
    pub(crate) fn with_header(&self, header: &'a [u8], replaced: usize) -> Self {
        let (grown, shrunk) = (header.len(), replaced.min(self.head.len()));
        let mut offload = self.offload;
        // Counted from the frame's start.
        offload.checksum = offload.checksum.map(|checksum| PartialChecksum {
            start: (usize::from(checksum.start) + grown).saturating_sub(shrunk) as u16,
            ..checksum
        });
        Self {
            header,
            replaced: shrunk,
            head: self.head,
            rest: self.rest,
            length: self.length + grown - shrunk,
            offload,
        }
    }

    /// Copies bytes from `offset` on, as far as there are any; returns how many.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`], if the sender's memory does not reach so far.
    pub(crate) fn read(&self, offset: usize, into: &mut [u8]) -> Result<usize, OutOfBounds> {
        let mut done = 0;
        self.pieces(offset, into.len(), |piece, at, length| {
            let target = into.get_mut(at..at + length).unwrap_or(&mut []);
            done += target.len();
            match piece {
                Piece::Bytes(bytes) => {
                    target.copy_from_slice(bytes);
                    Ok(())
                }
                Piece::Guest(memory, address) => memory.read(address, target),
            }
        })?;
        Ok(done)
    }

    /// Copies bytes from `offset` on to `address` in a guest's memory.
    fn transfer(&self, offset: usize, memory: &GuestMemory, into: Part) -> Result<(), OutOfBounds> {
        self.pieces(offset, into.length as usize, |piece, at, length| {
            let address = into.address.saturating_add(at as u64);
            match piece {
                Piece::Bytes(bytes) => memory.write(address, bytes),
                Piece::Guest(source, from) => memory.transfer(address, source, from, length),
            }
        })
    }

    /// Visits `length` bytes from `offset` on, piece by piece: each with its place behind `offset` and its length.
    fn pieces(
        &self,
        offset: usize,
        length: usize,
        mut visit: impl FnMut(Piece<'a>, usize, usize) -> Result<(), OutOfBounds>,
    ) -> Result<(), OutOfBounds> {
        let mut window = Window {
            skip: offset,
            done: 0,
            left: length,
        };
        let mut bytes = |bytes: &'a [u8], window: &mut Window| match window.cut(bytes.len()) {
            Some((from, at, count)) => {
                let piece = bytes.get(from..from + count).unwrap_or(&[]);
                visit(Piece::Bytes(piece), at, count)
            }
            None => Ok(()),
        };
        bytes(self.header, &mut window)?;
        bytes(self.head.get(self.replaced..).unwrap_or(&[]), &mut window)?;
        match self.rest {
            Rest::Bytes(rest) => bytes(rest, &mut window),
            Rest::Guest(memory, parts) => {
                for part in parts {
                    if let Some((from, at, count)) = window.cut(part.length as usize) {
                        let address = part.address.saturating_add(from as u64);
                        visit(Piece::Guest(memory, address), at, count)?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// What is still wanted of a frame: `left` bytes behind the next `skip`, to be put behind the first `done`.
struct Window {
    skip: usize,
    done: usize,
    left: usize,
}

impl Window {
    /// Passes over a piece of this length. Returns what of it is wanted: from where in the piece, to where, and how much.
    fn cut(&mut self, length: usize) -> Option<(usize, usize, usize)> {
        let from = self.skip.min(length);
        self.skip -= from;
        let count = (length - from).min(self.left);
        let at = self.done;
        self.done += count;
        self.left -= count;
        (count > 0).then_some((from, at, count))
    }
}

/// Bytes that lie together.
enum Piece<'a> {
    Bytes(&'a [u8]),
    Guest(&'a GuestMemory, u64),
}

/// A frame for a guest.
pub(super) struct ForGuest<'a> {
    frame: Frame<'a>,
    memory: &'a GuestMemory,
    /// The first bytes as they arrive, if they are not those that came.
    head: Option<([u8; HEADERS_MAX], usize)>,
}

impl<'a> ForGuest<'a> {
    /// A frame for the guest whose memory this is.
    pub(super) fn new(frame: Frame<'a>, memory: &'a GuestMemory) -> Self {
        let rewritten = frame.replaced > 0;
        let head = rewritten.then(|| {
            let mut head = [0; HEADERS_MAX];
            // What cannot be read is found out as it is copied.
            let count = frame.read(0, &mut head).unwrap_or(0);
            (head, count)
        });
        Self {
            frame,
            memory,
            head,
        }
    }
}

impl Payload for ForGuest<'_> {
    fn length(&self) -> u32 {
        self.frame.length() as u32
    }

    fn head(&self) -> &[u8] {
        match &self.head {
            Some((head, count)) => head.get(..*count).unwrap_or(&[]),
            None => self.frame.head(),
        }
    }

    fn copy(&self, offset: u32, into: Part) -> Result<(), OutsideMemory> {
        self.frame
            .transfer(offset as usize, self.memory, into)
            .map_err(|error| OutsideMemory(error.address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::fake;
    use proptest::prelude::*;

    /// A frame in pieces, and the bytes that it is to show.
    fn check(
        header: &[u8],
        replaced: usize,
        head: &[u8],
        parts: &[(u64, u32)],
        offset: usize,
        length: usize,
    ) -> Result<(), TestCaseError> {
        let source = fake::memory(4096);
        let bytes: Vec<u8> = (0..4096).map(|at| (at % 251) as u8).collect();
        source.write(0, &bytes).unwrap();
        let parts: Vec<_> = parts
            .iter()
            .map(|(address, length)| Part {
                address: *address,
                length: *length,
            })
            .collect();
        let frame = Frame::new(head, Rest::Guest(&source, &parts), Offload::default())
            .with_header(header, replaced);
        let mut whole = header.to_vec();
        whole.extend_from_slice(&head[replaced.min(head.len())..]);
        for part in &parts {
            let at = part.address as usize;
            whole.extend_from_slice(&bytes[at..at + part.length as usize]);
        }
        prop_assert_eq!(frame.length(), whole.len());
        let expected: Vec<_> = whole.iter().skip(offset).take(length).copied().collect();
        let mut read = vec![0; length];
        let count = frame.read(offset, &mut read).unwrap();
        prop_assert_eq!(&read[..count], &expected[..]);
        let target = fake::memory(8192);
        target.scrub(0..8192);
        let into = Part {
            address: 100,
            length: length as u32,
        };
        ForGuest::new(frame, &target)
            .copy(offset as u32, into)
            .unwrap();
        let mut copied = vec![0; length + 1];
        target.read(100, &mut copied).unwrap();
        prop_assert_eq!(&copied[..count], &expected[..]);
        prop_assert!(copied[count..].iter().all(|byte| *byte == 0));
        Ok(())
    }

    proptest! {
        #[test]
        fn a_frame_in_pieces_reads_as_one(
            header in prop::collection::vec(any::<u8>(), 0..20),
            replaced in 0usize..20,
            head in prop::collection::vec(any::<u8>(), 0..200),
            parts in prop::collection::vec((0u64..2048, 0u32..2048), 0..5),
            offset in 0usize..3000,
            length in 0usize..3000,
        ) {
            check(&header, replaced, &head, &parts, offset, length)?;
        }
    }

    #[test]
    fn a_tag_moves_the_checksums_place() {
        let offload = Offload {
            checksum: Some(PartialChecksum {
                start: 34,
                offset: 16,
            }),
            ..Offload::default()
        };
        let head = [7; 60];
        let frame = Frame::of_bytes(&head, offload);
        let start = |frame: Frame<'_>| frame.offload.checksum.map(|checksum| checksum.start);
        assert_eq!(start(frame.with_header(&[0; 18], 14)), Some(38));
        assert_eq!(start(frame.with_header(&[0; 14], 18)), Some(30));
        assert_eq!(frame.with_header(&[0; 18], 14).length(), 64);
    }
}
