use super::*;
use std::ops::Range;

const SOON: Duration = Duration::from_secs(10);
const MS: Duration = Duration::from_millis(1);

fn card(plug: Plug) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, plug.port)).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
        .connect((Ipv4Addr::LOCALHOST, plug.remote()))
        .unwrap();
    socket
}

#[test]
fn frames_come_out_at_the_other_end_whole_and_are_kept() {
    let wire = Wire::lay().unwrap();
    let cards = [wire.plug().unwrap(), wire.plug().unwrap()].map(card);
    let mut buffer = vec![0; FRAME_MAX];
    for (from, length) in [(0, 60), (1, 1514), (0, 9014)] {
        let sent = vec![from as u8 + 1; length];
        cards[from].send(&sent).unwrap();
        let received = cards[1 - from].recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..received], sent);
    }
    assert_eq!((wire.counts(0).sent, wire.counts(1).sent), (2, 1));
    assert_eq!((wire.counts(0).delivered, wire.counts(1).delivered), (1, 2));
    let short = wire.wait_for(|frame| frame.bytes.len() == 60, LOOK);
    assert_eq!(short.unwrap().from, 0);
    assert_eq!(wire.wait_for(|frame| frame.bytes.is_empty(), LOOK), None);
}

#[test]
fn a_frame_that_comes_later_is_waited_for() {
    let wire = Wire::lay().unwrap();
    let [one, _other] = [wire.tap(), wire.tap()];
    let sender = thread::spawn(move || {
        for number in 0..KEPT + 10 {
            one.send(&number.to_be_bytes());
        }
    });
    let last = (KEPT + 9).to_be_bytes();
    let found = wire.wait_for(|frame| frame.bytes == last, SOON);
    assert_eq!(found.unwrap().from, 0);
    sender.join().unwrap();
    let first = wire.wait_for(|frame| frame.bytes == [0; 8], Duration::ZERO);
    assert_eq!(first, None, "only the last ones are kept");
}

#[test]
fn wires_side_by_side_have_ports_of_their_own_and_give_them_back() {
    let wires = [Wire::lay().unwrap(), Wire::lay().unwrap()];
    let mut plugs: Vec<_> = wires
        .iter()
        .flat_map(|wire| [wire.plug().unwrap().port, wire.plug().unwrap().port])
        .collect();
    let last = plugs[3];
    plugs.sort_unstable();
    plugs.dedup();
    assert_eq!(plugs.len(), 4);
    drop(wires);
    assert!(UdpSocket::bind((Ipv4Addr::LOCALHOST, last + 1)).is_ok());
}

#[test]
fn late_frames_come_late_and_in_order() {
    let wire = Wire::lay().unwrap();
    let [one, other] = [wire.tap(), wire.tap()];
    wire.set(Target::From(0), Action::Delay(50 * MS));
    let start = Instant::now();
    for number in 0..10 {
        one.send(&[number]);
    }
    assert_eq!(other.receive(Duration::ZERO), None);
    for number in 0..10 {
        assert_eq!(other.receive(SOON), Some(vec![number]));
        assert!(start.elapsed() >= 50 * MS);
    }
    other.send(&[77]);
    assert_eq!(one.receive(Duration::ZERO), Some(vec![77]), "no fault here");
}

#[test]
fn a_tap_finds_what_it_looks_for_and_may_leave() {
    let wire = Wire::lay().unwrap();
    let [one, other, gone] = [wire.tap(), wire.tap(), wire.tap()];
    drop(gone);
    one.send(&[1, 2]);
    one.send(&[3, 4]);
    let third = |bytes: &[u8]| (bytes.first() == Some(&3)).then(|| bytes[1]);
    assert_eq!(other.find(SOON, third), Some(4));
    assert_eq!(other.find(MS, third), None);
    assert_eq!(other.end(), 1);
}

#[test]
fn a_flood_keeps_its_rate() {
    let wire = Wire::lay().unwrap();
    let [one, _other] = [wire.tap(), wire.tap()];
    let start = Instant::now();
    assert_eq!(one.flood(&[0; 60], 10_000, 100 * MS), 1_000);
    assert!(start.elapsed() >= 100 * MS);
    assert_eq!(wire.counts(1).delivered, 1_000);
}

#[test]
fn a_script_is_played_in_time() {
    const CUT: Range<Duration> = Duration::from_millis(100)..Duration::from_millis(200);
    let wire = Wire::lay().unwrap();
    let [one, other] = [wire.tap(), wire.tap()];
    // The host may pause this thread anywhere, so all that is known of any moment is what lies before and behind it.
    let before = Instant::now();
    wire.play("at 100ms cut\nat 200ms restore".parse().unwrap());
    let behind = Instant::now();
    let (mut must, mut must_not) = (Vec::new(), Vec::new());
    for number in 0_usize.. {
        let earliest = behind.elapsed();
        one.send(&number.to_be_bytes());
        let latest = before.elapsed();
        if CUT.start <= earliest && latest < CUT.end {
            must_not.push(number);
        } else if latest < CUT.start || earliest >= CUT.end {
            must.push(number);
        }
        if earliest > CUT.end + 50 * MS {
            break;
        }
        thread::sleep(MS);
    }
    let received = std::iter::from_fn(|| other.receive(Duration::ZERO));
    let received: Vec<_> = received
        .map(|bytes| usize::from_be_bytes(bytes.try_into().unwrap()))
        .collect();
    assert!(must.iter().all(|number| received.contains(number)));
    assert!(must_not.iter().all(|number| !received.contains(number)));
    assert!(!must.is_empty() && wire.counts(0).cut >= must_not.len() as u64);
}

#[test]
fn a_capture_tells_what_was_sent_by_whom_and_what_became_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wire.pcapng");
    let wire = Wire::lay().unwrap();
    let [one, other] = [wire.tap(), wire.tap()];
    wire.capture(&file).unwrap();
    let packet = |payload: &[u8]| {
        let mut bytes = Vec::new();
        etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(1000, 2000)
            .write(&mut bytes, payload)
            .unwrap();
        bytes
    };
    one.send(&packet(b"hello"));
    wire.set(Target::All, Action::Cut);
    other.send(&packet(b"nobody"));
    wire.set(Target::All, Action::Restore);
    wire.set(Target::All, Action::Duplicate(Share::percent(100)));
    one.send(&packet(b"twice"));
    let packets = packets::read(&std::fs::read(&file).unwrap()).unwrap();
    let told: Vec<_> = packets
        .iter()
        .map(|packet| {
            let parsed = etherparse::SlicedPacket::from_ethernet(&packet.bytes).unwrap();
            let Some(etherparse::TransportSlice::Udp(udp)) = parsed.transport else {
                panic!("{parsed:?}");
            };
            (packet.end, udp.payload().to_vec(), packet.comment.as_str())
        })
        .collect();
    let expected = [
        (0, b"hello".to_vec(), ""),
        (1, b"nobody".to_vec(), "lost: cut"),
        (0, b"twice".to_vec(), "duplicated"),
    ];
    assert_eq!(told, expected);
    assert!(packets.is_sorted_by_key(|packet| packet.time));
}
