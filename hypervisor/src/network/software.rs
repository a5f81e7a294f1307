//! What a sender left to be done to a frame and its taker cannot do.

use super::frame::Frame;
use alloc::vec::Vec;
use devices::virtio::Takes;
use net::{HEADERS_MAX, Offload, Segment, Segmenter, complete_checksum};
use spin::Mutex;

/// Gives a frame to a taker, as it is, or what comes of it once that is done which the taker cannot do, put together on
/// `workbench`. Returns whether all of it was taken; what is not sound is not.
pub(super) fn give(
    frame: &Frame<'_>,
    takes: Takes,
    workbench: &Mutex<Vec<u8>>,
    mut give: impl FnMut(&Frame<'_>) -> bool,
) -> bool {
    let needed = Takes::needed(&frame.offload, frame.head());
    if takes.contains(needed) {
        return give(frame);
    }
    let whole = frame.offload.segmentation.is_none();
    let mut workbench = workbench.lock();
    let done = |bytes: &[u8]| give(&Frame::of_bytes(bytes, Offload::default()));
    if whole {
        build(
            &mut workbench,
            frame.length(),
            |into| write_whole(frame, into),
            done,
        )
    } else {
        let mut done = done;
        cut(frame, |piece| {
            build(
                &mut workbench,
                piece.length(),
                |into| piece.write(into),
                &mut done,
            )
        })
    }
}

fn build(
    workbench: &mut Vec<u8>,
    length: usize,
    write: impl FnOnce(&mut [u8]) -> bool,
    give: impl FnOnce(&[u8]) -> bool,
) -> bool {
    workbench.clear();
    if workbench.try_reserve(length).is_err() {
        return false;
    }
    workbench.resize(length, 0);
    write(workbench) && give(workbench)
}

/// Writes a frame that is not cut into a buffer of its length, with its checksum; whether that could be done. If not, the
/// buffer holds zeroes.
pub(super) fn write_whole(frame: &Frame<'_>, into: &mut [u8]) -> bool {
    let read = frame.read(0, into).is_ok_and(|count| count == into.len());
    let sound = read
        && frame
            .offload
            .checksum
            .is_none_or(|checksum| complete_checksum(into, checksum).is_ok());
    if !sound {
        into.fill(0);
    }
    sound
}

/// A piece of a frame that is cut.
pub(super) struct Piece<'a> {
    frame: &'a Frame<'a>,
    segment: Segment<'a>,
    /// How many come behind it.
    pub(super) behind: usize,
}

impl Piece<'_> {
    /// Its length in bytes.
    pub(super) fn length(&self) -> usize {
        self.segment.headers.len() + self.segment.payload.len()
    }

    /// Writes it into a buffer of its length; whether that could be done. If not, the buffer holds zeroes.
    pub(super) fn write(&self, into: &mut [u8]) -> bool {
        let sound =
            self.write_parts(into) && complete_checksum(into, self.segment.checksum).is_ok();
        if !sound {
            into.fill(0);
        }
        sound
    }

    fn write_parts(&self, into: &mut [u8]) -> bool {
        let headers = self.segment.headers;
        let Some((front, back)) = into.split_at_mut_checked(headers.len()) else {
            return false;
        };
        front.copy_from_slice(headers);
        self.frame
            .read(self.segment.payload.start, back)
            .is_ok_and(|count| count == back.len())
    }
}

/// Cuts a frame; `take` gets the pieces in their order until it fails. Returns whether it got all of them.
pub(super) fn cut(frame: &Frame<'_>, mut take: impl FnMut(&Piece<'_>) -> bool) -> bool {
    let mut head = [0; HEADERS_MAX];
    let Ok(count) = frame.read(0, &mut head) else {
        return false;
    };
    let head = head.get(..count).unwrap_or(&[]);
    let Ok(mut segmenter) = Segmenter::new(head, frame.length(), &frame.offload) else {
        return false;
    };
    let mut behind = segmenter.count();
    while let Some(segment) = segmenter.next() {
        behind = behind.saturating_sub(1);
        let piece = Piece {
            frame,
            segment,
            behind,
        };
        if !take(&piece) {
            return false;
        }
    }
    true
}
