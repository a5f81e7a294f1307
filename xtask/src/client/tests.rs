use super::*;
use crate::wire::{Action, Share, Target};
use std::io::{Read, Write};
use std::net::SocketAddrV4;

const SOON: Duration = Duration::from_secs(20);
const MS: Duration = Duration::from_millis(1);
const ONE: Station = Station::new([10, 0, 0, 1]);
const OTHER: Station = Station::new([10, 0, 0, 2]);

fn pair() -> (Wire, Client, Client) {
    let wire = Wire::lay().unwrap();
    let one = Client::attach(&wire, ONE).unwrap();
    let other = Client::attach(&wire, OTHER).unwrap();
    (wire, one, other)
}

/// Bytes that tell where they belong.
fn content(length: usize) -> Vec<u8> {
    let words = (0..length.div_ceil(4) as u32).flat_map(|word| (word * 7).to_be_bytes());
    words.take(length).collect()
}

/// Sends so many bytes from the one to the other and returns what arrived there. The end of the stream is not waited for:
/// smoltcp 0.14 does not repeat a lost FIN once doubled acknowledgements have come while it was the only thing under way.
fn transfer(one: &Client, other: &Client, length: usize) -> Vec<u8> {
    let listening = other.listen(7, SOON);
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut stream = listening.accepted();
            let mut received = vec![0; length];
            stream.read_exact(&mut received).unwrap();
            received
        });
        let mut stream = one.connect(OTHER.address, 7, SOON).unwrap();
        stream.write_all(&content(length)).unwrap();
        receiver.join().unwrap()
    })
}

#[test]
fn stations_answer_pings_of_every_size() {
    let (_wire, one, _other) = pair();
    for size in [0, 1, 56, 1472] {
        assert!(one.ping(OTHER.address, size, SOON).unwrap() < SOON);
    }
    let nobody = Ipv4Addr::new(10, 0, 0, 9);
    assert!(one.ping(nobody, 56, 50 * MS).is_err());
}

#[test]
fn a_delay_shows_in_the_time_of_a_ping() {
    let (wire, one, _other) = pair();
    wire.set(Target::All, Action::Delay(20 * MS));
    one.ping(OTHER.address, 56, SOON).unwrap();
    let took = one.ping(OTHER.address, 56, SOON).unwrap();
    assert!(took >= 40 * MS, "{took:?}");
}

#[test]
fn bytes_arrive_whole_through_loss_doubling_and_disorder() {
    let (wire, one, other) = pair();
    wire.set(Target::All, Action::Loss(Share::percent(5)));
    wire.set(Target::All, Action::Duplicate(Share::percent(5)));
    wire.set(Target::All, Action::Reorder(Share::percent(5)));
    const LENGTH: usize = 2 << 20;
    assert!(transfer(&one, &other, LENGTH) == content(LENGTH));
    let counts = wire.counts(0);
    assert!(counts.lost > 20 && counts.duplicated > 20 && counts.overtaken > 20);
}

#[test]
fn changed_bits_are_noticed() {
    let (wire, one, other) = pair();
    wire.set(Target::All, Action::Corrupt(Share::percent(3)));
    const LENGTH: usize = 1 << 20;
    assert!(transfer(&one, &other, LENGTH) == content(LENGTH));
    assert!(wire.counts(0).corrupted > 10);
}

#[test]
fn a_connection_goes_on_after_a_cut() {
    let (wire, one, other) = pair();
    let listening = other.listen(7, SOON);
    thread::scope(|scope| {
        let echo = scope.spawn(|| {
            let mut stream = listening.accepted();
            let mut buffer = [0; 6];
            for _ in 0..2 {
                stream.read_exact(&mut buffer).unwrap();
                stream.write_all(&buffer).unwrap();
            }
        });
        let mut stream = one.connect(OTHER.address, 7, SOON).unwrap();
        let mut buffer = [0; 6];
        stream.write_all(b"before").unwrap();
        stream.read_exact(&mut buffer).unwrap();
        wire.set(Target::All, Action::Cut);
        stream.write_all(b"behind").unwrap();
        thread::sleep(300 * MS);
        assert!(
            one.ping(OTHER.address, 1, 50 * MS).is_err(),
            "it is not cut"
        );
        wire.set(Target::All, Action::Restore);
        stream.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"behind");
        echo.join().unwrap();
    });
    assert!(wire.counts(0).cut > 0);
}

#[test]
fn a_port_where_nobody_listens_refuses_and_one_that_is_cut_off_is_silent() {
    let (wire, one, _other) = pair();
    let error = one.connect(OTHER.address, 9, SOON).unwrap_err();
    assert!(error.to_string().contains("refuses"), "{error}");
    wire.set(Target::To(1), Action::Cut);
    let error = one.connect(OTHER.address, 9, 50 * MS).unwrap_err();
    assert!(error.to_string().contains("did not answer"), "{error}");
}

#[test]
fn a_question_is_asked_until_it_is_answered() {
    let (wire, one, other) = pair();
    let port = other.udp(Some(5000)).unwrap();
    one.ping(OTHER.address, 1, SOON).unwrap();
    let retry = Retry {
        attempts: 50,
        wait: 100 * MS,
    };
    wire.set(Target::From(0), Action::Cut);
    thread::scope(|scope| {
        scope.spawn(|| {
            let (question, from) = port.receive(SOON).unwrap();
            assert_eq!(question, b"how many?");
            // An answer from elsewhere does not count.
            let stranger = other.udp(Some(5001)).unwrap();
            stranger.send_to(b"none", from).unwrap();
            port.send_to(b"two", from).unwrap();
        });
        scope.spawn(|| {
            thread::sleep(250 * MS);
            wire.set(Target::From(0), Action::Restore);
        });
        let answer = one
            .udp_request(OTHER.address, 5000, b"how many?", retry)
            .unwrap();
        assert_eq!(answer.bytes, b"two");
        assert!(answer.attempts > 2 && answer.took >= 200 * MS, "{answer:?}");
    });
    let retry = Retry {
        attempts: 2,
        wait: 10 * MS,
    };
    let error = one.udp_request(OTHER.address, 6000, b"?", retry);
    assert!(error.unwrap_err().to_string().contains("none of 2"));
    let broadcast = SocketAddrV4::new(Ipv4Addr::BROADCAST, 0);
    assert!(port.send_to(b"x", broadcast).is_err(), "no port");
}

#[test]
fn a_page_is_fetched() {
    let (_wire, one, other) = pair();
    let listening = other.listen(80, SOON);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = listening.accepted();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            assert!(request.starts_with(b"GET /status HTTP/1.1\r\nHost: 10.0.0.2:80\r\n"));
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")
                .unwrap();
        });
        let page = one.http_text(OTHER.address, 80, "/status", SOON).unwrap();
        assert_eq!(page, (200, "fine".to_owned()));
    });
}

#[test]
fn stations_of_a_vlan_hear_each_other_and_nobody_else() {
    let wire = Wire::lay().unwrap();
    let on = |station: Station, vlan| Client::attach(&wire, Station { vlan, ..station }).unwrap();
    let (one, _two) = (on(ONE, Some(7)), on(OTHER, Some(7)));
    let (three, _four) = (
        on(Station::new([10, 0, 0, 3]), None),
        on(Station::new([10, 0, 0, 4]), Some(8)),
    );
    one.ping(OTHER.address, 1472, SOON).unwrap();
    for address in [3, 4] {
        let address = Ipv4Addr::new(10, 0, 0, address);
        assert!(one.ping(address, 56, 50 * MS).is_err());
    }
    assert!(three.ping(OTHER.address, 56, 50 * MS).is_err());
    let tagged = wire.wait_for(|frame| frame.bytes[12..16] == [0x81, 0, 0, 7], SOON);
    assert_eq!(tagged.unwrap().bytes[6..12], ONE.mac);
}
