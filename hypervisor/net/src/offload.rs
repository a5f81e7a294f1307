//! What a sender left to be done to a frame.

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
