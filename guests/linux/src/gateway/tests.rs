use super::*;
use protocol::{Answer, Line, Meter, Operation, Outcome, Question, Reply, Totals};
use server::Limits;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);
const QUICK: Limits = Limits {
    connections: 4,
    request: Duration::from_millis(300),
    stall: Duration::from_millis(300),
};

fn subscriber(number: u32) -> Number {
    Number::new(number).unwrap()
}

/// What a small exchange answers: it has the subscribers 101 and 202, who speak with each other.
fn exchange(operation: Operation) -> Outcome {
    use protocol::{Error, Request};
    let known = |number| [101, 202].map(subscriber).contains(&number);
    let reply = match operation {
        Operation::Totals => {
            return Outcome::Totals(Totals {
                uptime: 5000,
                subscribers: 2,
                connected: 1,
                ..Totals::default()
            });
        }
        Operation::Exchange(Request::Status(number)) if known(number) => {
            let other = subscriber(303 - number.get());
            Reply::Status(number, Line::Connected, Some((other, 1500)))
        }
        Operation::Exchange(Request::Charging(number)) if known(number) => {
            let meter = Meter {
                pulses: 7,
                connected: 21_000,
                calls: 1,
            };
            Reply::Charging(number, meter)
        }
        Operation::Exchange(Request::Status(number) | Request::Charging(number)) => {
            return Outcome::Refused(Error::Unknown(number));
        }
        other => panic!("{other:?}"),
    };
    Outcome::Done(reply)
}

/// An exchange that hears only what `hears` says of the questions' numbers, and sends strange things before each answer.
/// It serves until the test's process ends.
fn start_exchange(hears: impl Fn(u64) -> bool + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 100];
        for count in 0.. {
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            let question = Question::decode(&buffer[..length]).unwrap();
            if !hears(count) {
                continue;
            }
            let answer = Answer {
                client: question.client,
                number: question.number,
                outcome: exchange(question.operation),
            };
            let late = Answer {
                number: question.number.wrapping_sub(1),
                outcome: Outcome::Crowded,
                ..answer
            };
            let stranger = Answer {
                client: question.client.wrapping_add(1),
                ..late
            };
            for datagram in [
                &b"noise"[..],
                &[0xff; 1500],
                &late.encode(),
                &stranger.encode(),
                &answer.encode(),
                &answer.encode(),
            ] {
                socket.send_to(datagram, from).unwrap();
            }
        }
    });
    address
}

/// A gateway to an exchange there.
fn start(exchange: SocketAddr, limits: Limits) -> SocketAddr {
    let mut known = Known::default();
    for number in [202, 101, 404] {
        known.add(subscriber(number)).unwrap();
    }
    let mut gateway = Gateway::new(exchange, known).unwrap();
    gateway.exchange = Mutex::new(Exchange::new(exchange, [30 * MS; 4]).unwrap());
    let gateway = Arc::new(gateway);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        serve(&listener, limits, move |request| gateway.answer(request));
    });
    address
}

fn fetch(gateway: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(gateway).unwrap();
    stream.write_all(request).unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    response
}

/// The status, and the body.
fn get(gateway: SocketAddr, path: &str) -> (u16, Vec<u8>) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: gateway\r\n\r\n");
    let response = fetch(gateway, request.as_bytes());
    let end = response.windows(4).position(|part| part == b"\r\n\r\n");
    let (head, body) = response.split_at(end.unwrap() + 4);
    let head = String::from_utf8(head.to_vec()).unwrap();
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
    (head[9..12].parse().unwrap(), body.to_vec())
}

fn text(gateway: SocketAddr, path: &str) -> (u16, String) {
    let (status, body) = get(gateway, path);
    (status, String::from_utf8(body).unwrap())
}

#[test]
fn the_exchange_is_shown_to_programs() {
    let gateway = start(start_exchange(|_| true), QUICK);
    let (status, text) = text(gateway, "/exchange.json");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &json["answers"]), (200, &true.into()));
    assert_eq!(json["totals"]["uptime_ms"], 5000);
    assert_eq!(json["totals"]["connected"], 1);
    let subscribers = serde_json::json!([
        {"number": 101, "line": "connected", "other": 202, "since_ms": 1500, "pulses": 7, "calls": 1, "connected_ms": 21000},
        {"number": 202, "line": "connected", "other": 101, "since_ms": 1500, "pulses": 7, "calls": 1, "connected_ms": 21000},
        {"number": 404, "line": null},
    ]);
    assert_eq!(json["subscribers"], subscribers);
    assert_eq!(
        (&json["answered"], &json["repeated"]),
        (&6.into(), &0.into())
    );
    let latency = |name: &str| json["latency_us"][name].as_u64().unwrap();
    assert!(latency("least") <= latency("mean") && latency("mean") <= latency("most"));
    assert!(latency("most") > 0);
}

#[test]
fn the_exchange_is_shown_to_people_who_add_subscribers() {
    let gateway = start(start_exchange(|_| true), QUICK);
    let (status, page) = text(gateway, "/");
    assert_eq!(status, 200);
    for part in [
        "is in service",
        "<td>101<td>connected<td>202<td class=\"n\">7<td class=\"n\">1<td class=\"n\">21.0 s",
        "<td>404<td colspan=\"5\">not in service",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    assert!(!page.contains("<td>505"));
    assert!(text(gateway, "/?number=505").1.contains("<td>505"));
    assert!(text(gateway, "/").1.contains("<td>505"), "it stays");
    let page = text(gateway, "/?number=%3Cb%3E").1;
    assert!(page.contains("no subscriber") && !page.contains("%3C"));
    for number in 1000..1040 {
        text(gateway, &format!("/?number={number}"));
    }
    let page = text(gateway, "/?number=2000").1;
    assert!(page.contains("No more subscribers"));
}

#[test]
fn lost_datagrams_are_sent_again() {
    let gateway = start(start_exchange(|count| count % 3 == 2), QUICK);
    let json = text(gateway, "/exchange.json").1;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["answers"], &json["unanswered"]),
        (&true.into(), &0.into())
    );
    let repeated = json["repeated"].as_u64().unwrap();
    assert!(repeated >= 12, "two for each of six questions: {repeated}");
}

#[test]
fn a_silent_exchange_is_told_from_a_dead_gateway_and_comes_back() {
    let speaks = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&speaks);
    let gateway = start(start_exchange(move |_| flag.load(Ordering::Relaxed)), QUICK);
    let (status, why) = text(gateway, "/healthz");
    assert_eq!(
        (status, why.as_str()),
        (503, "the exchange does not answer\n")
    );
    let json = text(gateway, "/exchange.json").1;
    assert!(json.contains("\"answers\":false") && json.contains("\"unanswered\":1,"));
    assert!(text(gateway, "/").1.contains("No word from"));
    assert_eq!(get(gateway, "/blob/3").0, 200);
    speaks.store(true, Ordering::Relaxed);
    thread::sleep(1100 * MS);
    assert_eq!(text(gateway, "/healthz"), (200, "ok\n".to_owned()));
}

#[test]
fn an_exchange_that_nobody_runs_is_silent() {
    let unused = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = unused.local_addr().unwrap();
    drop(unused);
    assert_eq!(get(start(address, QUICK), "/healthz").0, 503);
}

#[test]
fn blobs_come_whole_with_their_checksum() {
    let gateway = start(start_exchange(|_| true), QUICK);
    for size in ["0", "1", "3M"] {
        let (status, blob) = get(gateway, &format!("/blob/{size}"));
        assert_eq!(status, 200);
        let sum = text(gateway, &format!("/blob/{size}.crc32"));
        assert_eq!(sum, (200, format!("{:08x}\n", crc32fast::hash(&blob))));
    }
    let head = fetch(gateway, b"HEAD /blob/1G HTTP/1.0\r\n\r\n");
    let head = String::from_utf8(head).unwrap();
    assert!(head.contains("Content-Length: 1073741824\r\n") && head.ends_with("\r\n\r\n"));
    for path in ["/blob/", "/blob/5G", "/blob/x.crc32", "/nothing"] {
        assert_eq!(get(gateway, path).0, 404, "{path}");
    }
}

#[test]
fn clients_that_misbehave_are_refused_and_hurt_nobody() {
    let gateway = start(start_exchange(|_| true), QUICK);
    let status = |request: &[u8]| {
        let response = String::from_utf8(fetch(gateway, request)).unwrap();
        response[9..12].parse::<u16>().unwrap()
    };
    assert_eq!(status(b"\x16\x03\x01\x00\n\n"), 400);
    assert_eq!(
        status(b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc"),
        413
    );
    assert_eq!(status(&[b'x'; 9000]), 431);
    let start = Instant::now();
    assert_eq!(status(b"GET / HTTP/1.0\r\n"), 408, "it stops in the middle");
    assert!(start.elapsed() >= QUICK.request);
    drop(TcpStream::connect(gateway).unwrap());
    assert_eq!(get(gateway, "/healthz").0, 200);
}

#[test]
fn a_request_that_trickles_in_is_cut_off_in_time() {
    let gateway = start(start_exchange(|_| true), QUICK);
    let mut stream = TcpStream::connect(gateway).unwrap();
    let start = Instant::now();
    while stream.write_all(b"a").is_ok() && start.elapsed() < 10 * QUICK.request {
        thread::sleep(20 * MS);
    }
    assert!(start.elapsed() < 10 * QUICK.request);
}

#[test]
fn too_many_connections_are_refused_and_those_that_stall_make_room() {
    let gateway = start(start_exchange(|_| true), QUICK);
    let stalled: Vec<_> = (0..QUICK.connections)
        .map(|_| {
            let mut stream = TcpStream::connect(gateway).unwrap();
            // More than the sockets' buffers take, and nobody reads it.
            stream.write_all(b"GET /blob/1G HTTP/1.0\r\n\r\n").unwrap();
            stream
        })
        .collect();
    thread::sleep(100 * MS);
    let mut refusal = String::new();
    let mut stream = TcpStream::connect(gateway).unwrap();
    stream.read_to_string(&mut refusal).unwrap();
    assert!(refusal.starts_with("HTTP/1.1 503 "), "{refusal}");
    let deadline = Instant::now() + Duration::from_secs(10);
    while get_if_room(gateway).is_none() {
        assert!(Instant::now() < deadline, "stalled connections stay");
        thread::sleep(50 * MS);
    }
    drop(stalled);
}

/// The health, unless there are too many connections.
fn get_if_room(gateway: SocketAddr) -> Option<()> {
    let mut stream = TcpStream::connect(gateway).ok()?;
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    response.starts_with("HTTP/1.1 200 ").then_some(())
}

#[test]
fn addresses_have_a_port_or_get_the_exchanges() {
    let parsed = |text| address(text).map(|address| address.to_string()).ok();
    assert_eq!(parsed("10.0.0.2").as_deref(), Some("10.0.0.2:5000"));
    assert_eq!(parsed("10.0.0.2:7").as_deref(), Some("10.0.0.2:7"));
    assert_eq!(parsed("exchange"), None);
}
