//! Frames of any bytes that are to be cut in any way: refused, or cut into a bounded number of pieces whose payloads are all of
//! the frame's, and whose checksums are inside.
#![no_main]

use libfuzzer_sys::fuzz_target;
use net::{
    HEADERS_MAX, Offload, PIECES_MAX, PartialChecksum, Segmentation, SegmentationKind, Segmenter,
    complete_checksum,
};

fuzz_target!(|bytes: &[u8]| {
    let Some(([kind, start, offset, size_low, size_high, blocks], frame)) =
        bytes.split_first_chunk()
    else {
        return;
    };
    let kind = match kind % 3 {
        0 => SegmentationKind::Tcp4,
        1 => SegmentationKind::Tcp6,
        _ => SegmentationKind::Udp,
    };
    let checksum = PartialChecksum {
        start: u16::from(*start),
        offset: u16::from(*offset),
    };
    let offload = Offload {
        checksum: Some(checksum),
        segmentation: Some(Segmentation {
            kind,
            size: u16::from_le_bytes([*size_low, *size_high]),
            congestion: false,
        }),
        verified: false,
    };
    // The headers are what is hostile; payload is cheap.
    let mut frame = frame.to_vec();
    frame.resize(frame.len() + 256 * usize::from(*blocks), 0x5A);
    let head = &frame[..frame.len().min(HEADERS_MAX)];
    if let Ok(mut segmenter) = Segmenter::new(head, frame.len(), &offload) {
        let count = segmenter.count();
        let (mut pieces, mut end) = (0, None);
        while let Some(segment) = segmenter.next() {
            let headers = segment.headers.len();
            assert_eq!(segment.payload.start, end.unwrap_or(headers));
            end = Some(segment.payload.end);
            let mut piece = [segment.headers, &frame[segment.payload]].concat();
            assert!(complete_checksum(&mut piece, segment.checksum).is_ok());
            let place = usize::from(segment.checksum.start + segment.checksum.offset);
            assert!(place + 2 <= headers);
            pieces += 1;
        }
        assert_eq!(end, Some(frame.len()));
        assert!(pieces == count && (1..=PIECES_MAX).contains(&count));
    }
    let inside = usize::from(checksum.start) + usize::from(checksum.offset) + 2 <= frame.len();
    assert_eq!(complete_checksum(&mut frame, checksum).is_ok(), inside);
});
