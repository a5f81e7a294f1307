//! What is left to be done to frames, in both directions.

use net::{PartialChecksum, Segmentation, SegmentationKind};

use super::*;
use crate::virtio::Takes;

/// A header of flags, kind of segmentation, its size, and the checksum's start and offset.
fn header(flags: u8, gso: u8, size: u16, start: u16, offset: u16) -> [u8; HEADER as usize] {
    let mut header = [0; HEADER as usize];
    header[0] = flags;
    header[1] = gso;
    header[4..6].copy_from_slice(&size.to_le_bytes());
    header[6..8].copy_from_slice(&start.to_le_bytes());
    header[8..10].copy_from_slice(&offset.to_le_bytes());
    header
}

fn offload(start: u16, offset: u16, cut: Option<(SegmentationKind, u16, bool)>) -> Offload {
    Offload {
        checksum: Some(PartialChecksum { start, offset }),
        segmentation: cut.map(|(kind, size, congestion)| Segmentation {
            kind,
            size,
            congestion,
        }),
        verified: false,
    }
}

#[test]
fn what_the_driver_leaves_is_passed_on() {
    use SegmentationKind::{Tcp4, Tcp6, Udp};
    let all = CSUM | HOST_TSO4 | HOST_TSO6 | HOST_ECN | HOST_USO;
    let mut bench = Bench::driven(CARD, all);
    let cases = [
        (header(1, 0, 0, 34, 16), tcp4(), offload(34, 16, None)),
        (
            header(1, 1, 1460, 34, 16),
            tcp4(),
            offload(34, 16, Some((Tcp4, 1460, false))),
        ),
        (
            header(1, 0x81, 1460, 34, 16),
            tcp4(),
            offload(34, 16, Some((Tcp4, 1460, true))),
        ),
        (
            header(1, 4, 1440, 54, 16),
            tcp6(),
            offload(54, 16, Some((Tcp6, 1440, false))),
        ),
        (
            header(1, 5, 1000, 34, 6),
            tcp4(),
            offload(34, 6, Some((Udp, 1000, false))),
        ),
        // Flags that are not the driver's, and a length of headers, mean nothing.
        (header(2, 0, 0, 0, 0), tcp4(), Offload::default()),
    ];
    for (header, head, expected) in cases {
        // As long as can be: 64 KiB of packet.
        let long = expected.segmentation.is_some();
        let mut bytes = head;
        bytes.resize(if long { 14 + 0xFFFF } else { 1514 }, 0xA5);
        bench.send(&header, &bytes);
        let sent = bench.world.sent.pop().expect("sent");
        assert_eq!(sent.offload, expected);
        assert!(sent.bytes == bytes);
    }
    assert_eq!(bench.pc.malformed_frames(NIC), 0);
}

#[test]
fn what_cannot_be_done_is_not_sent() {
    let all = CSUM | HOST_TSO4 | HOST_TSO6 | HOST_ECN | HOST_USO;
    let cases = [
        ("a checksum without agreement", 0, header(1, 0, 0, 34, 16)),
        ("in the Ethernet header", all, header(1, 0, 0, 13, 16)),
        ("on the Ethernet header", all, header(1, 0, 0, 14, 0)),
        ("in the IPv4 header", all, header(1, 0, 0, 33, 16)),
        ("where no checksum is", all, header(1, 0, 0, 34, 8)),
        ("behind the frame", all, header(1, 0, 0, 34, 19)),
        ("far behind", all, header(1, 0, 0, u16::MAX, u16::MAX)),
        ("no checksum to cut with", all, header(0, 1, 100, 34, 16)),
        ("cut without agreement", CSUM, header(1, 1, 100, 34, 16)),
        (
            "congestion without agreement",
            CSUM | HOST_TSO4,
            header(1, 0x81, 100, 34, 16),
        ),
        ("pieces of nothing", all, header(1, 1, 0, 34, 16)),
        ("IPv6 that is none", all, header(1, 4, 100, 34, 16)),
        ("fragments of UDP", all, header(1, 3, 100, 34, 16)),
        ("UDP with congestion", all, header(1, 0x85, 100, 34, 6)),
        ("congestion of nothing", all, header(1, 0x80, 100, 34, 16)),
        ("an unknown kind", all, header(1, 2, 100, 34, 16)),
    ];
    for (name, features, header) in cases {
        let mut bench = Bench::driven(CARD, features);
        bench.send(&header, &tcp4());
        assert!(bench.world.sent.is_empty(), "{name}");
        assert_eq!(bench.used(TRANSMIT), 1, "{name}");
        assert_eq!(bench.pc.malformed_frames(NIC), 1, "{name}");
    }
    // Neither IP at all, nor one that is not cut but long.
    let mut bench = Bench::driven(CARD, all);
    bench.send(&header(1, 5, 100, 34, 6), &frame(60));
    bench.send(&header(1, 0, 0, 34, 16), &[0; 2000]);
    bench.send(&header(1, 1, 100, 34, 16), &[0; 65_600]);
    assert_eq!(bench.pc.malformed_frames(NIC), 3);
    assert!(bench.world.sent.is_empty());
}

#[test]
fn a_tag_is_no_hindrance() {
    let mut bench = Bench::driven(CARD, CSUM | HOST_TSO4);
    let mut tagged = tcp4();
    tagged.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
    bench.send(&header(1, 1, 1000, 38, 16), &tagged);
    assert_eq!(bench.world.sent.len(), 1);
}

#[test]
fn the_driver_gets_what_it_takes() {
    use SegmentationKind::{Tcp4, Tcp6, Udp};
    let tso = GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN;
    let all = tso | GUEST_USO4 | GUEST_USO6;
    let with_length = |mut header: [u8; HEADER as usize], length: u16| {
        header[2..4].copy_from_slice(&length.to_le_bytes());
        header[10] = 1;
        header
    };
    let verified = Offload {
        verified: true,
        ..Offload::default()
    };
    let cases = [
        (tcp4(), verified, Takes::empty(), header(2, 0, 0, 0, 0), 0),
        (
            tcp4(),
            offload(34, 16, None),
            Takes::CHECKSUM,
            header(1, 0, 0, 34, 16),
            0,
        ),
        (
            tcp4(),
            offload(34, 16, Some((Tcp4, 1460, false))),
            Takes::CHECKSUM | Takes::TSO4,
            header(1, 1, 1460, 34, 16),
            34 + 32,
        ),
        (
            tcp6(),
            offload(54, 16, Some((Tcp6, 1440, true))),
            Takes::CHECKSUM | Takes::TSO6 | Takes::ECN,
            header(1, 0x84, 1440, 54, 16),
            54 + 20,
        ),
        (
            tcp4(),
            offload(34, 6, Some((Udp, 1000, false))),
            Takes::CHECKSUM | Takes::USO4,
            header(1, 5, 1000, 34, 6),
            34 + 8,
        ),
        (
            tcp6(),
            offload(54, 6, Some((Udp, 1000, false))),
            Takes::CHECKSUM | Takes::USO6,
            header(1, 5, 1000, 54, 6),
            54 + 8,
        ),
    ];
    let mut bench = Bench::driven(CARD, all);
    assert_eq!(bench.receiver().takes(), Takes::all());
    for (bytes, offload, needed, header, headers) in cases {
        assert_eq!(Takes::needed(&offload, &bytes), needed);
        bench.give(RECEIVE, 0, &[(BUFFERS, 2000)]);
        bench.deliver(&bytes, &offload, 0).expect("received");
        let header = with_length(header, headers);
        assert_eq!(bench.load(BUFFERS, 12), header, "{offload:?}");
        assert_eq!(bench.load(BUFFERS + 12, bytes.len()), bytes);
        // Each driver that takes less does not get it.
        for (feature, take) in [
            (GUEST_CSUM, Takes::CHECKSUM),
            (GUEST_TSO4, Takes::TSO4),
            (GUEST_TSO6, Takes::TSO6),
            (GUEST_ECN, Takes::ECN),
            (GUEST_USO4, Takes::USO4),
            (GUEST_USO6, Takes::USO6),
        ] {
            let features = match feature {
                GUEST_CSUM => 0,
                other => all & !other,
            };
            let mut bench = Bench::driven(CARD, features);
            bench.give(RECEIVE, 0, &[(BUFFERS, 2000)]);
            let result = bench.deliver(&bytes, &offload, 0);
            if needed.contains(take) {
                assert_eq!(result, Err(Refusal::Offload), "{take:?}");
            } else {
                assert!(result.is_ok() || feature == GUEST_CSUM, "{take:?}");
            }
        }
    }
}

#[test]
fn a_driver_without_checksums_is_told_of_none() {
    let mut bench = Bench::driven(CARD, 0);
    bench.give(RECEIVE, 0, &[(BUFFERS, 2000)]);
    let verified = Offload {
        verified: true,
        ..Offload::default()
    };
    bench.deliver(&tcp4(), &verified, 0).expect("received");
    assert_eq!(bench.load(BUFFERS, 1), [0]);
}
