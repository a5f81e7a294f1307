//! What a sender left to be done to a frame.

use core::fmt;

/// A checksum that covers the frame from `start` to its end and is to be stored at `start + offset`, where the sum of the
/// pseudo-header is now (VIRTIO 1.2, 5.1.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Where it begins, in bytes from the frame's start.
    pub start: u16,
    /// Where it is stored, in bytes from there.
    pub offset: u16,
}

/// What a frame that is too long for the wire carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentationKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over either.
    Udp,
}

/// How a frame that is too long for the wire is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// What it carries.
    pub kind: SegmentationKind,
    /// Most bytes of payload in a piece, not 0.
    pub size: u16,
    /// The TCP header has CWR set, which only the first piece keeps (RFC 3168, 6.1.2).
    pub congestion: bool,
}

/// What is left to be done to a frame by whoever takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// A checksum to be completed.
    pub checksum: Option<PartialChecksum>,
    /// Cutting; each piece needs its checksum then.
    pub segmentation: Option<Segmentation>,
    /// The checksums inside were found right by hardware.
    pub verified: bool,
}

/// Why what was left to be done cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadOffload {
    /// The checksum is not inside the frame, or there is none in a frame that is to be cut.
    Checksum,
    /// The frame's headers are not those of what it is said to carry.
    Headers,
    /// Pieces without payload, or too many of them.
    Size,
}

impl fmt::Display for BadOffload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Checksum => "the checksum is not inside the frame",
            Self::Headers => "the frame's headers are not what it is said to carry",
            Self::Size => "the frame is to be cut into pieces without payload, or into too many",
        })
    }
}

impl core::error::Error for BadOffload {}
