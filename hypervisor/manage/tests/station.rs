//! The station on a wire with a client of another make: smoltcp's own, on the other end.

use manage::{Body, Content, Manage, ManageConfig, Page, Peer};
use net::MacAddress;
use proptest::prelude::*;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, Ipv4Address};
use std::cell::Cell;
use std::collections::VecDeque;

const STATION: [u8; 4] = [192, 0, 2, 1];
const CLIENT: [u8; 4] = [192, 0, 2, 2];
const STATION_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Frames that the station is given at a time.
const BATCH: usize = 4;

/// Pages of a known size each; counts how often one is written.
struct Pages {
    length: usize,
    written: Cell<u32>,
}

impl Content for Pages {
    fn write(&self, page: Page, to: &mut Body) {
        self.written.set(self.written.get() + 1);
        let start = match page {
            Page::Metrics => b'm',
            Page::Status => b's',
            Page::Capture => b'c',
        };
        to.push(&expected(start, self.length));
    }
}

const CONFIG: ManageConfig = ManageConfig {
    mac: STATION_MAC,
    address: STATION,
    prefix: 24,
    gateway: None,
    seed: 7,
    datagram_port: 7400,
};

fn station() -> Manage {
    Manage::new(&CONFIG)
}

/// The station, a client, and a wire that may lose frames.
struct World {
    manage: Manage,
    pages: Pages,
    client: Interface,
    sockets: SocketSet<'static>,
    to_client: VecDeque<Vec<u8>>,
    /// Milliseconds.
    now: u64,
    /// When the station wants to be looked at.
    next: Option<u64>,
    /// How often it was.
    turns: u32,
    /// Every so many frames one is lost; never, if 0.
    loses: u32,
    carried: u32,
}

impl World {
    fn new(length: usize) -> Self {
        let address = HardwareAddress::Ethernet(EthernetAddress(CLIENT_MAC));
        let mut client =
            Interface::new(Config::new(address), &mut Client::default(), Instant::ZERO);
        client.update_ip_addrs(|addresses| {
            let own = IpCidr::new(Ipv4Address::from(CLIENT).into(), 24);
            addresses.push(own).expect("room for one");
        });
        Self {
            manage: station(),
            pages: Pages {
                length,
                written: Cell::new(0),
            },
            client,
            sockets: SocketSet::new(Vec::new()),
            to_client: VecDeque::new(),
            now: 0,
            next: None,
            turns: 0,
            loses: 0,
            carried: 0,
        }
    }

    fn loses_this(&mut self) -> bool {
        self.carried += 1;
        self.loses != 0 && self.carried.is_multiple_of(self.loses)
    }

    fn turn(&mut self) {
        let mut sent = Vec::new();
        let written = self.pages.written.get();
        self.next = self
            .manage
            .turn(self.now, &self.pages, |frame| sent.push(frame.to_vec()));
        self.turns += 1;
        // Its processor is a guest's, too.
        assert!(sent.len() <= 8 && self.pages.written.get() <= written + 1);
        for frame in sent {
            if !self.loses_this() {
                self.to_client.push_back(frame);
            }
        }
    }

    /// A millisecond passes.
    fn step(&mut self) {
        self.now += 1;
        let time = Instant::from_millis(self.now as i64);
        let mut client = Client {
            received: core::mem::take(&mut self.to_client),
            sent: Vec::new(),
        };
        self.client.poll(time, &mut client, &mut self.sockets);
        for batch in client.sent.chunks(BATCH) {
            let mut came = false;
            for frame in batch {
                came |= !self.loses_this() && self.manage.receive(frame);
            }
            if came {
                self.turn();
            }
        }
        if self.next.is_some_and(|at| at <= self.now) {
            self.turn();
        }
    }

    fn connect(&mut self, port: u16) -> SocketHandle {
        let buffer = |size| tcp::SocketBuffer::new(vec![0; size]);
        let mut socket = tcp::Socket::new(buffer(4096), buffer(4096));
        let to = (Ipv4Address::from(STATION), 80);
        socket
            .connect(self.client.context(), to, port)
            .expect("a free socket");
        self.sockets.add(socket)
    }

    /// Sends what a client says, a few bytes each millisecond, and returns all that is answered up to the end.
    fn ask(&mut self, port: u16, said: &[u8]) -> Vec<u8> {
        let handle = self.connect(port);
        let (mut left, mut heard) = (said, Vec::new());
        for _ in 0..120_000 {
            self.step();
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
            if socket.may_send() && !left.is_empty() {
                let piece = &left[..left.len().min(7)];
                let count = socket.send_slice(piece).expect("it may send");
                left = &left[count..];
            }
            while socket.can_recv() {
                let more = socket.recv(|bytes| (bytes.len(), bytes.to_vec()));
                heard.extend(more.expect("it can receive"));
            }
            if socket.state() == tcp::State::CloseWait {
                socket.close();
            }
            if !socket.is_open() || socket.state() == tcp::State::TimeWait {
                break;
            }
        }
        heard
    }
}

/// The client's card.
#[derive(Default)]
struct Client {
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Sender<'a>(&'a mut Vec<Vec<u8>>);

impl Device for Client {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sender<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sender<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Sender(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sender<'_>> {
        Some(Sender(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, work: F) -> R {
        work(&self.0)
    }
}

impl TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, work: F) -> R {
        let mut frame = vec![0; length];
        let result = work(&mut frame);
        self.0.push(frame);
        result
    }
}

/// Status line, fields and body of an answer.
fn parts(answer: &[u8]) -> (String, String, Vec<u8>) {
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n");
    let (head, body) = answer.split_at(end.expect("fields end") + 4);
    let head = String::from_utf8(head.to_vec()).expect("fields are text");
    let (status, fields) = head.split_once("\r\n").expect("a status line");
    (status.to_owned(), fields.to_owned(), body.to_vec())
}

fn expected(start: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| start.wrapping_add((at % 251) as u8))
        .collect()
}

#[test]
fn pages_arrive_whole_whatever_is_lost() {
    for (length, loses) in [(10, 0), (1000, 3), (200_000, 0), (60_000, 7)] {
        for (path, start) in [
            ("/metrics", b'm'),
            ("/status", b's'),
            ("/capture.pcap?x", b'c'),
        ] {
            let mut world = World::new(length);
            world.loses = loses;
            let said = format!("GET {path} HTTP/1.1\r\nHost: board\r\n\r\n");
            let (status, fields, body) = parts(&world.ask(50_000, said.as_bytes()));
            assert_eq!(status, "HTTP/1.1 200 OK");
            assert!(
                fields.contains(&format!("Content-Length: {length}\r\n")),
                "{fields}"
            );
            assert!(body == expected(start, length), "{path} {length} {loses}");
            assert_eq!(world.pages.written.get(), 1);
        }
    }
}

#[test]
fn what_cannot_be_read_has_its_status() {
    let long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(4000));
    for (said, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK"),
        ("GET / HTTP/1.0\n\n", "HTTP/1.1 200 OK"),
        ("GET /nothing HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
        (
            "POST /metrics HTTP/1.1\r\n\r\n",
            "HTTP/1.1 405 Method Not Allowed",
        ),
        ("GET /metrics\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ("GET /metrics SMTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ("\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        (&long, "HTTP/1.1 431 Request Header Fields Too Large"),
    ] {
        let mut world = World::new(10);
        let (found, fields, body) = parts(&world.ask(50_000, said.as_bytes()));
        assert_eq!(found, status, "{said}");
        assert!(fields.contains(&format!("Content-Length: {}\r\n", body.len())));
        assert_eq!(world.pages.written.get(), 0);
    }
    let mut world = World::new(10);
    let (status, fields, body) = parts(&world.ask(50_000, b"HEAD /metrics HTTP/1.1\r\n\r\n"));
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(fields.contains("Content-Length: 10\r\n") && body.is_empty());
}

#[test]
fn slow_clients_do_not_keep_others_out() {
    let mut world = World::new(100);
    // All connections there are, by clients that say nothing.
    for port in 0..4 {
        world.connect(40_000 + port);
    }
    for _ in 0..15_000 {
        world.step();
    }
    let answer = world.ask(50_000, b"GET /status HTTP/1.1\r\n\r\n");
    assert_eq!(parts(&answer).2, expected(b's', 100));
}

#[test]
fn one_asks_after_the_other() {
    let mut world = World::new(100);
    for port in 0..20 {
        let answer = world.ask(50_000 + port, b"GET /status HTTP/1.1\r\n\r\n");
        assert!(!answer.is_empty(), "{port}");
        assert_eq!(parts(&answer).2, expected(b's', 100));
    }
    assert!(world.now < 1000);
}

/// Clients that ask for a page at the same time and take nothing of it yet.
fn ask_together(world: &mut World, count: u16) -> Vec<SocketHandle> {
    let handles: Vec<_> = (0..count).map(|at| world.connect(40_000 + at)).collect();
    for _ in 0..100 {
        world.step();
    }
    for handle in &handles {
        let socket = world.sockets.get_mut::<tcp::Socket<'_>>(*handle);
        let sent = socket.send_slice(b"GET /capture.pcap HTTP/1.1\r\n\r\n");
        sent.expect("it is connected");
    }
    for _ in 0..100 {
        world.step();
    }
    handles
}

#[test]
fn answers_together_have_a_bound() {
    let mut world = World::new(250_000);
    let handles = ask_together(&mut world, 4);
    let mut heard = vec![Vec::new(); 4];
    for _ in 0..20_000 {
        world.step();
        for (handle, heard) in handles.iter().zip(&mut heard) {
            let socket = world.sockets.get_mut::<tcp::Socket<'_>>(*handle);
            while socket.can_recv() {
                let more = socket.recv(|bytes| (bytes.len(), bytes.to_vec()));
                heard.extend(more.expect("it can receive"));
            }
        }
    }
    let whole = |answer: &Vec<u8>| {
        let (status, _, body) = parts(answer);
        match &*status {
            "HTTP/1.1 200 OK" => {
                assert!(body == expected(b'c', 250_000));
                true
            }
            other => {
                assert_eq!(other, "HTTP/1.1 503 Service Unavailable");
                false
            }
        }
    };
    assert_eq!(heard.iter().filter(|answer| whole(answer)).count(), 2);
}

#[test]
fn who_takes_a_byte_now_and_then_is_left() {
    let mut world = World::new(200_000);
    let handles = ask_together(&mut world, 4);
    for _ in 0..30 {
        for handle in &handles {
            let socket = world.sockets.get_mut::<tcp::Socket<'_>>(*handle);
            let _ = socket.recv(|bytes| (bytes.len().min(1), ()));
        }
        for _ in 0..1000 {
            world.step();
        }
    }
    for handle in &handles {
        let socket = world.sockets.get_mut::<tcp::Socket<'_>>(*handle);
        assert!(!socket.is_open());
    }
    let answer = world.ask(50_000, b"GET / HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
}

#[test]
fn datagrams_go_there_and_back() {
    let mut world = World::new(10);
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 4], vec![0; 400]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(9000).expect("a port");
    let handle = world.sockets.add(socket);
    let client = Peer {
        address: CLIENT,
        port: 9000,
    };
    assert!(world.manage.send_datagram(client, b"may I?"));
    world.turn();
    let mut answered = false;
    for _ in 0..5000 {
        world.step();
        let socket = world.sockets.get_mut::<udp::Socket<'_>>(handle);
        if let Ok((bytes, from)) = socket.recv() {
            assert_eq!((bytes, from.endpoint.port), (&b"may I?"[..], 7400));
            let from = from.endpoint;
            socket.send_slice(b"you may", from).expect("room");
            answered = true;
        }
        let mut came = None;
        if world
            .manage
            .take_datagram(|from, bytes| came = Some((from, bytes.to_vec())))
        {
            assert!(answered);
            assert_eq!(came, Some((client, b"you may".to_vec())));
            assert!(!world.manage.take_datagram(|_, _| {}));
            return;
        }
    }
    panic!("no answer came");
}

#[test]
fn a_station_without_a_port_sends_no_datagrams() {
    let config = ManageConfig {
        datagram_port: 0,
        ..CONFIG
    };
    let mut manage = Manage::new(&config);
    let to = Peer {
        address: CLIENT,
        port: 9000,
    };
    assert!(!manage.send_datagram(to, b"may I?"));
    assert!(!manage.take_datagram(|_, _| {}));
}

#[test]
fn frames_that_are_too_long_are_gone() {
    let mut world = World::new(100);
    for _ in 0..20 {
        assert!(world.manage.receive(&[0xFF; 1515]));
    }
    let answer = world.ask(50_000, b"GET /status HTTP/1.1\r\n\r\n");
    assert_eq!(parts(&answer).2, expected(b's', 100));
}

#[test]
fn it_sleeps_while_nobody_is_there() {
    let mut world = World::new(10);
    world.turn();
    assert_eq!(world.next, None);
    let answer = world.ask(50_000, b"GET /status HTTP/1.1\r\n\r\n");
    assert!(!answer.is_empty());
    for _ in 0..60_000 {
        world.step();
    }
    assert_eq!(world.next, None);
    let turns = world.turns;
    for _ in 0..60_000 {
        world.step();
    }
    assert_eq!(world.turns, turns);
}

proptest! {
    #[test]
    fn no_frames_harm_it(frames in prop::collection::vec(frame(), 0..50)) {
        let mut world = World::new(1000);
        for frame in frames {
            world.manage.receive(&frame);
            world.now += 100;
            world.turn();
        }
        // It still serves.
        let answer = world.ask(50_000, b"GET /status HTTP/1.1\r\n\r\n");
        prop_assert_eq!(parts(&answer).2, expected(b's', 1000));
    }
}

/// Frames for the station: of chance, and such that begin as ARP, ICMP or TCP to it.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let headers = [
        vec![],
        vec![0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1],
        [
            &[0x08, 0x00, 0x45, 0, 0, 60, 0, 0, 0, 0, 64, 1, 0, 0][..],
            &CLIENT,
            &STATION,
        ]
        .concat(),
        [
            &[0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0][..],
            &CLIENT,
            &STATION,
            &[0x90, 0, 0, 80],
        ]
        .concat(),
    ];
    let header = prop::sample::select(headers.to_vec());
    (header, prop::collection::vec(any::<u8>(), 0..100))
        .prop_map(|(header, rest)| [&STATION_MAC.0[..], &CLIENT_MAC, &header, &rest].concat())
}
