//! Frames are cut into what a parser of another make takes for the same stream, with checksums that are right.

use etherparse::{
    IpHeaders, IpNumber, Ipv4Header, Ipv6Extensions, Ipv6Header, Ipv6RawExtHeader, NetHeaders,
    PacketBuilder, PacketHeaders, TcpHeader, TransportHeader, VlanId,
};
use net::{
    BadOffload, HEADERS_MAX, Offload, PIECES_MAX, PartialChecksum, Segmentation, SegmentationKind,
    Segmenter, complete_checksum,
};
use proptest::prelude::*;

/// A frame that is to be cut.
#[derive(Clone, Debug)]
struct Whole {
    frame: Vec<u8>,
    /// Where the transport's header and the payload begin.
    transport: usize,
    payload: usize,
    offload: Offload,
}

/// What it is made of.
#[derive(Clone, Debug)]
struct Recipe {
    tag: Option<u16>,
    v6: bool,
    /// Words of options of IPv4, or bytes behind the first ones of IPv6's options for the destination.
    options: usize,
    /// A TCP header, or else one of UDP.
    tcp: Option<TcpHeader>,
    id: u16,
    payload: Vec<u8>,
    size: u16,
}

fn tcp_header() -> impl Strategy<Value = TcpHeader> {
    let fields = (any::<u32>(), any::<u32>(), any::<u16>(), any::<[bool; 8]>());
    (fields, 0usize..11).prop_map(|((sequence, acknowledged, window, flags), options)| {
        let mut header = TcpHeader::new(1234, 80, sequence, window);
        header.acknowledgment_number = acknowledged;
        [
            header.fin, header.syn, header.rst, header.psh, header.ack, header.urg, header.ece,
            header.cwr,
        ] = flags;
        // Operations that say nothing.
        header
            .set_options_raw(&vec![1; options * 4])
            .expect("they fit");
        header
    })
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let payload = prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(any::<u8>(), 1..5000),
    ];
    let outside = (
        prop::option::of(1u16..4095),
        any::<bool>(),
        0usize..5,
        any::<u16>(),
    );
    (
        outside,
        prop::option::of(tcp_header()),
        payload,
        40u16..2000,
    )
        .prop_map(|((tag, v6, options, id), tcp, payload, size)| Recipe {
            tag,
            v6,
            options,
            tcp,
            id,
            payload,
            size,
        })
}

fn ip(recipe: &Recipe) -> IpHeaders {
    let protocol = match recipe.tcp {
        Some(_) => IpNumber::TCP,
        None => IpNumber::UDP,
    };
    if recipe.v6 {
        let header = Ipv6Header {
            hop_limit: 64,
            source: [0x11; 16],
            destination: [0x22; 16],
            ..Ipv6Header::default()
        };
        let options = vec![1; 6 + 8 * recipe.options];
        let options = Ipv6RawExtHeader::new_raw(protocol, &options).expect("a multiple of 8");
        let extensions = Ipv6Extensions {
            destination_options: Some(options).filter(|_| recipe.options > 0),
            ..Ipv6Extensions::default()
        };
        return IpHeaders::Ipv6(header, extensions);
    }
    let mut header = Ipv4Header::new(0, 64, protocol, [10, 0, 0, 1], [10, 0, 0, 2]).expect("short");
    header.identification = recipe.id;
    let options = vec![1_u8; 4 * recipe.options];
    header.options = options.as_slice().try_into().expect("a multiple of 4");
    IpHeaders::Ipv4(header, Default::default())
}

fn whole(recipe: &Recipe) -> Whole {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let (mut frame, payload) = (Vec::new(), &recipe.payload);
    macro_rules! build {
        ($builder:expr) => {
            match recipe.tcp.clone() {
                Some(header) => $builder.tcp_header(header).write(&mut frame, payload),
                None => $builder.udp(1234, 53).write(&mut frame, payload),
            }
        };
    }
    match recipe.tag {
        Some(vlan) => {
            let vlan = VlanId::try_new(vlan).expect("a VLAN");
            build!(builder.single_vlan(vlan).ip(ip(recipe)))
        }
        None => build!(builder.ip(ip(recipe))),
    }
    .expect("it fits");
    let start = frame.len() - payload.len();
    let own = recipe.tcp.as_ref().map_or(8, TcpHeader::header_len);
    let (kind, offset) = match (&recipe.tcp, recipe.v6) {
        (Some(_), false) => (SegmentationKind::Tcp4, 16),
        (Some(_), true) => (SegmentationKind::Tcp6, 16),
        (None, _) => (SegmentationKind::Udp, 6),
    };
    Whole {
        transport: start - own,
        payload: start,
        offload: Offload {
            checksum: Some(PartialChecksum {
                start: (start - own) as u16,
                offset,
            }),
            segmentation: Some(Segmentation {
                kind,
                size: recipe.size,
                congestion: false,
            }),
            verified: false,
        },
        frame,
    }
}

/// The pieces of a frame, each whole.
fn cut(frame: &[u8], offload: &Offload) -> Result<Vec<Vec<u8>>, BadOffload> {
    let head = &frame[..frame.len().min(HEADERS_MAX)];
    let mut segmenter = Segmenter::new(head, frame.len(), offload)?;
    let mut pieces = Vec::new();
    loop {
        let left = segmenter.count();
        let Some(segment) = segmenter.next() else {
            assert_eq!(left, 0);
            return Ok(pieces);
        };
        let mut piece = [segment.headers, &frame[segment.payload]].concat();
        complete_checksum(&mut piece, segment.checksum)?;
        pieces.push(piece);
        assert_eq!(segmenter.count(), left - 1);
    }
}

/// The checksum of a packet's transport, as another make has it.
fn checksum(net: &NetHeaders, transport: &TransportHeader, payload: &[u8]) -> u16 {
    let result = match (net, transport) {
        (NetHeaders::Ipv4(ip, _), TransportHeader::Tcp(tcp)) => tcp.calc_checksum_ipv4(ip, payload),
        (NetHeaders::Ipv6(ip, _), TransportHeader::Tcp(tcp)) => tcp.calc_checksum_ipv6(ip, payload),
        (NetHeaders::Ipv4(ip, _), TransportHeader::Udp(udp)) => udp.calc_checksum_ipv4(ip, payload),
        (NetHeaders::Ipv6(ip, _), TransportHeader::Udp(udp)) => udp.calc_checksum_ipv6(ip, payload),
        other => panic!("{other:?}"),
    };
    result.expect("it is short")
}

proptest! {
    #[test]
    fn pieces_make_up_the_frame(recipe in recipe()) {
        let whole = whole(&recipe);
        let pieces = cut(&whole.frame, &whole.offload).expect("a sound frame");
        prop_assert_eq!(pieces.len(), recipe.payload.len().div_ceil(recipe.size.into()).max(1));
        let (before, last) = (PacketHeaders::from_ethernet_slice(&whole.frame).unwrap(), pieces.len() - 1);
        let mut payload = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            let parsed = PacketHeaders::from_ethernet_slice(piece).expect("a sound piece");
            prop_assert_eq!(&parsed.link, &before.link);
            prop_assert_eq!(parsed.vlan_ids(), before.vlan_ids());
            let own = parsed.payload.slice();
            prop_assert_eq!(own.len(), piece.len() - whole.payload);
            let (Some(network), Some(mut transport)) = (parsed.net, parsed.transport) else {
                panic!("headers are missing");
            };
            let expected = checksum(&network, &transport, own);
            let (mut network, Some(mut first)) = (network, before.net.clone()) else { panic!() };
            match (&mut network, &mut first) {
                (NetHeaders::Ipv4(ip, _), NetHeaders::Ipv4(first, _)) => {
                    prop_assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                    prop_assert_eq!(ip.identification, recipe.id.wrapping_add(at as u16));
                    prop_assert_eq!(usize::from(ip.total_len), piece.len() - whole.transport + ip.header_len());
                    // All else is as it was.
                    (ip.header_checksum, ip.identification) = (first.header_checksum, first.identification);
                    ip.total_len = first.total_len;
                }
                (NetHeaders::Ipv6(ip, extensions), NetHeaders::Ipv6(first, _)) => {
                    let length = extensions.header_len() + piece.len() - whole.transport;
                    prop_assert_eq!(usize::from(ip.payload_length), length);
                    ip.payload_length = first.payload_length;
                }
                other => panic!("{other:?}"),
            }
            prop_assert_eq!(network, first);
            match (&mut transport, &recipe.tcp) {
                (TransportHeader::Tcp(tcp), Some(first)) => {
                    prop_assert!(tcp.checksum == expected || tcp.checksum == 0xFFFF && expected == 0);
                    prop_assert_eq!(tcp.sequence_number, first.sequence_number.wrapping_add(payload.len() as u32));
                    prop_assert_eq!(tcp.fin, first.fin && at == last);
                    prop_assert_eq!(tcp.psh, first.psh && at == last);
                    prop_assert_eq!(tcp.cwr, first.cwr && at == 0);
                    (tcp.checksum, tcp.sequence_number) = (first.checksum, first.sequence_number);
                    (tcp.fin, tcp.psh, tcp.cwr) = (first.fin, first.psh, first.cwr);
                    prop_assert_eq!(&*tcp, first);
                }
                (TransportHeader::Udp(udp), None) => {
                    prop_assert_eq!(udp.checksum, expected);
                    prop_assert_eq!(usize::from(udp.length), 8 + own.len());
                    prop_assert_eq!((udp.source_port, udp.destination_port), (1234, 53));
                }
                other => panic!("{other:?}"),
            }
            prop_assert!(own.len() <= recipe.size.into());
            payload.extend_from_slice(own);
        }
        prop_assert_eq!(payload, recipe.payload);
    }

    #[test]
    fn headers_that_lie_are_refused_or_harmless(
        recipe in recipe(),
        changes in prop::collection::vec((0usize..HEADERS_MAX, any::<u8>()), 1..4),
        start in prop::option::of(any::<u16>()),
        offset in prop::option::of(any::<u16>()),
        size in any::<u16>(),
        kept in prop::option::of(0usize..HEADERS_MAX),
    ) {
        let mut whole = whole(&recipe);
        for (at, byte) in changes {
            if let Some(place) = whole.frame.get_mut(at) {
                *place = byte;
            }
        }
        whole.frame.truncate(kept.unwrap_or(usize::MAX));
        if let Some(checksum) = &mut whole.offload.checksum {
            checksum.start = start.unwrap_or(checksum.start);
            checksum.offset = offset.unwrap_or(checksum.offset);
        }
        if let Some(segmentation) = &mut whole.offload.segmentation {
            segmentation.size = size;
        }
        if let Ok(pieces) = cut(&whole.frame, &whole.offload) {
            prop_assert!(pieces.len() <= PIECES_MAX);
            let headers = |piece: &Vec<u8>| piece.len() > whole.transport;
            prop_assert!(pieces.iter().all(headers));
        }
    }
}

/// A sound frame of 1000 bytes of payload.
fn plain(v6: bool, tcp: bool, size: u16) -> Whole {
    whole(&Recipe {
        tag: None,
        v6,
        options: 0,
        tcp: tcp.then(|| TcpHeader::new(1234, 80, 5, 100)),
        id: 7,
        payload: vec![9; 1000],
        size,
    })
}

#[test]
fn work_is_in_proportion() {
    let pieces = |size| {
        cut(
            &plain(false, true, size).frame,
            &plain(false, true, size).offload,
        )
    };
    assert_eq!(pieces(8).map(|pieces| pieces.len()), Ok(125));
    for size in [1, 7] {
        assert_eq!(pieces(size), Err(BadOffload::Size));
    }
    assert_eq!(pieces(0), Err(BadOffload::Size));
    assert_eq!(pieces(u16::MAX), Err(BadOffload::Size));
}

#[test]
fn what_cannot_be_cut_is_refused() {
    let (network, refused) = (14, Err(BadOffload::Headers));
    // A byte, and what it is for IPv4: its version, its length, more pieces to come, where this one belongs, its protocol.
    for (at, byte) in [
        (0, 0x65),
        (0, 0x44),
        (0, 0x46),
        (6, 0x20),
        (6, 1),
        (7, 1),
        (9, 17),
    ] {
        let mut whole = plain(false, true, 500);
        whole.frame[network + at] = byte;
        assert_eq!(cut(&whole.frame, &whole.offload), refused, "{at} {byte:#x}");
    }
    // For IPv6: its version, its protocol, a fragment's header, another that leads elsewhere.
    for (at, byte) in [(0, 0x45), (6, 17), (6, 44), (6, 60)] {
        let mut whole = plain(true, true, 500);
        whole.frame[network + at] = byte;
        assert_eq!(cut(&whole.frame, &whole.offload), refused, "{at} {byte:#x}");
    }
    // The kind is another, or the checksum's place.
    let whole = plain(false, true, 500);
    for kind in [SegmentationKind::Tcp6, SegmentationKind::Udp] {
        let mut offload = whole.offload;
        offload.segmentation.as_mut().expect("it has one").kind = kind;
        assert_eq!(cut(&whole.frame, &offload), refused, "{kind:?}");
    }
    let mut offload = whole.offload;
    offload.checksum.as_mut().expect("it has one").offset = 6;
    assert_eq!(cut(&whole.frame, &offload), Err(BadOffload::Checksum));
    // TCP's own length: shorter than it can be, and beyond the frame.
    for byte in [0x40, 0xF0] {
        let mut whole = plain(false, true, 500);
        whole.frame[whole.transport + 12] = byte;
        whole.frame.truncate(whole.payload + 8);
        assert_eq!(cut(&whole.frame, &whole.offload), refused, "{byte:#x}");
    }
}
