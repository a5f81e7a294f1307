//! Makes frames, and looks into those that came.

use crate::key::{FrameKey, PairKey, TAG};
use crate::{Epoch, Path, Term};

use super::replay::ReplayWindow;
use super::{Dropped, Frame, HEADER_BYTES, Header, Kind, OVERHEAD, Sender};

/// Makes the frames of one sender on one path.
#[derive(Debug)]
pub struct Sealer {
    key: FrameKey,
    session: u64,
    sender: Sender,
    path: Path,
    /// Of the last frame.
    counter: u64,
}

impl Sealer {
    pub(crate) const fn new(key: FrameKey, session: u64, sender: Sender, path: Path) -> Self {
        Self {
            key,
            session,
            sender,
            path,
            counter: 0,
        }
    }

    /// Makes frames that are in no session: a Hello, or what the witness is asked and answers.
    #[must_use]
    pub fn outside_sessions(key: &PairKey, sender: Sender, path: Path) -> Self {
        Self::new(key.frames(), key.id(), sender, path)
    }

    /// Makes a frame at the start of `buffer`, whose body `fill` writes: it says what the body is and how many bytes it has.
    /// Returns the frame's length; none if `fill` has nothing to send, or says more bytes than it was shown.
    ///
    /// `buffer` is to have room for [`OVERHEAD`] and the body; `fill` sees at most 65535 bytes.
    pub fn seal(
        &mut self,
        term: Term,
        epoch: Epoch,
        buffer: &mut [u8],
        fill: impl FnOnce(&mut [u8]) -> Option<(Kind, usize)>,
    ) -> Option<usize> {
        let room = buffer
            .len()
            .checked_sub(OVERHEAD)?
            .min(usize::from(u16::MAX));
        let place = buffer.get_mut(HEADER_BYTES..HEADER_BYTES + room)?;
        let (kind, length) = fill(place)?;
        if length > room {
            return None;
        }
        self.counter += 1;
        let header = Header {
            kind,
            sender: self.sender,
            path: self.path,
            length: u16::try_from(length).ok()?,
            session: self.session,
            counter: self.counter,
            term,
            epoch,
        };
        *buffer.first_chunk_mut()? = header.encode();
        let (signed, rest) = buffer.split_at_mut_checked(HEADER_BYTES + length)?;
        *rest.first_chunk_mut()? = self.key.tag(signed);
        Some(signed.len() + TAG)
    }
}

/// Looks into the frames that one sender sends on one path.
#[derive(Debug)]
pub struct Opener {
    key: FrameKey,
    session: u64,
    path: Path,
    /// Who does not send these frames but gets them.
    own: Option<Sender>,
    /// None outside of sessions, where an old frame is as good as a new one.
    window: Option<ReplayWindow>,
}

impl Opener {
    pub(crate) fn new(key: FrameKey, session: u64, own: Sender, path: Path) -> Self {
        Self {
            key,
            session,
            path,
            own: Some(own),
            window: Some(ReplayWindow::default()),
        }
    }

    /// Looks into frames that are in no session. The same frame may come again and again: what it says must bear that.
    #[must_use]
    pub fn outside_sessions(key: &PairKey, path: Path) -> Self {
        Self {
            key: key.frames(),
            session: key.id(),
            path,
            own: None,
            window: None,
        }
    }

    /// The frame in `bytes`, if it is one of these: of this session and path, with a tag that holds, and not come before.
    ///
    /// # Errors
    ///
    /// Why it is none. Nothing was noted of it then.
    pub fn open<'a>(&mut self, bytes: &'a [u8]) -> Result<Frame<'a>, Dropped> {
        self.open_headed(Header::decode(bytes)?, bytes)
    }

    /// [`Self::open`] for the frame in `bytes`, whose header is decoded.
    pub(crate) fn open_headed<'a>(
        &mut self,
        header: Header,
        bytes: &'a [u8],
    ) -> Result<Frame<'a>, Dropped> {
        if header.session != self.session {
            return Err(Dropped::Session(header.session));
        }
        if self.own == Some(header.sender) {
            return Err(Dropped::Own);
        }
        let end = HEADER_BYTES + usize::from(header.length);
        let (signed, rest) = bytes.split_at_checked(end).ok_or(Dropped::Malformed)?;
        let tag = rest.first_chunk().ok_or(Dropped::Malformed)?;
        if !self.key.holds(signed, *tag) {
            return Err(Dropped::Tag);
        }
        // From here on, the one who has the key said so.
        if header.path != self.path {
            return Err(Dropped::Path);
        }
        if let Some(window) = &mut self.window
            && !window.first_time(header.counter)
        {
            return Err(Dropped::Replay);
        }
        Ok(Frame {
            sender: header.sender,
            kind: header.kind,
            term: header.term,
            epoch: header.epoch,
            body: signed.get(HEADER_BYTES..).unwrap_or(&[]),
        })
    }
}
