use super::judge::{Fault, Summary};
use super::*;
use crate::client::{Client, Station};
use crate::wire::{Action, Share, Target, Wire};
use protocol::{Datagram, Error, Number, Operation, PORT, Reply, Request};
use rtos::exchange::Exchange;
use rtos::net::server::Server;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

const MS: Duration = Duration::from_millis(1);
const SOON: Duration = Duration::from_secs(20);
const EXCHANGE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// The legacy system's own exchange and server, which can be kept aside and put back.
#[derive(Clone)]
struct Board {
    exchange: Box<Exchange>,
    server: Box<Server>,
}

impl Board {
    fn new() -> Self {
        Self {
            exchange: Box::new(Exchange::new()),
            server: Box::new(Server::new()),
        }
    }

    fn serve(&mut self, now: u64, datagram: &[u8]) -> Option<Datagram> {
        self.server
            .serve(now, [10, 0, 0, 9], datagram, &mut self.exchange)
    }
}

/// What a board does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    None,
    /// It once goes on from a state that is older than what the clients have been told.
    Forgets,
    /// It once executes a question again that it has answered, and tells what comes of that.
    AnswersTwice,
    /// It once answers a call twice, behind the clients' backs.
    CountsTwice,
}

/// A board that takes one question after the other, without a wire.
struct Bench {
    board: Board,
    ledger: Ledger,
    now: Duration,
    number: u32,
}

impl Bench {
    fn new() -> Self {
        Self {
            board: Board::new(),
            ledger: Ledger::default(),
            now: Duration::ZERO,
            number: 0,
        }
    }

    fn send(&mut self, question: Question) {
        self.ledger.asked(self.now, question);
        self.now += 10 * MS;
        let now = u64::try_from(self.now.as_millis()).unwrap();
        let answer = self.board.serve(now, &question.encode());
        self.now += 10 * MS;
        if let Some(answer) = answer {
            self.ledger.heard(self.now, &answer);
        }
    }

    fn ask(&mut self, operation: Operation) -> Question {
        self.number += 1;
        let question = Question {
            client: 1,
            number: self.number,
            operation,
        };
        self.send(question);
        question
    }

    fn requests(&mut self, requests: &[Request]) {
        for request in requests {
            self.ask(Operation::Exchange(*request));
        }
    }

    fn faults(&self) -> Vec<String> {
        let faults = self.ledger.judge().unwrap_err();
        faults.iter().map(ToString::to_string).collect()
    }
}

fn number(number: u32) -> Number {
    Number::new(number).unwrap()
}

const fn requests(from: Number, to: Number) -> [Request; 6] {
    [
        Request::Call(from, to),
        Request::Status(to),
        Request::Answer(to),
        Request::Status(from),
        Request::Clear(to),
        Request::Charging(from),
    ]
}

/// A bench with two subscribers of whom the first has called the second.
fn called() -> Bench {
    let mut bench = Bench::new();
    bench.requests(&[
        Request::Register(number(101)),
        Request::Register(number(102)),
    ]);
    bench.requests(&requests(number(101), number(102)));
    bench
}

#[test]
fn what_an_exchange_says_is_explained() {
    let mut bench = called();
    let (own, other) = (number(101), number(102));
    // Refusals, busy lines and calls that nobody answers.
    bench.requests(&[
        Request::Register(own),
        Request::Call(own, own),
        Request::Call(own, number(9)),
        Request::Clear(own),
        Request::Answer(own),
        Request::Register(number(103)),
        Request::Call(own, other),
        Request::Call(number(103), own),
        Request::Status(number(103)),
        Request::Clear(number(103)),
        Request::Call(own, other),
        Request::Charging(other),
        Request::Clear(own),
        Request::Charging(number(9)),
        Request::Status(number(9)),
        Request::Clear(number(9)),
    ]);
    // A call that costs several pulses, and another after it.
    bench.requests(&[Request::Call(own, other), Request::Answer(other)]);
    bench.now += Duration::from_secs(10);
    bench.requests(&[
        Request::Charging(own),
        Request::Status(own),
        Request::Clear(own),
    ]);
    bench.requests(&requests(own, other));
    let last = bench.ask(Operation::Totals);
    bench.send(last);
    let summary = bench.ledger.judge().unwrap();
    assert_eq!(
        (summary.asked, summary.repeated, summary.totals),
        (36, 1, 1)
    );
    assert_eq!(summary.answered, summary.asked);
    assert_eq!(summary.gap, Duration::from_millis(10_020));
}

#[test]
fn an_exchange_that_has_forgotten_is_caught() {
    let mut bench = called();
    let old = bench.board.clone();
    bench.requests(&requests(number(101), number(102)));
    bench.board = old;
    bench.requests(&[Request::Charging(number(101))]);
    let faults = bench.faults();
    assert_eq!(faults.len(), 1);
    assert!(
        faults[0].contains("1 calls") && faults[0].contains("2 calls"),
        "{faults:?}"
    );
}

#[test]
fn one_that_forgets_a_call_in_progress_is_caught() {
    let mut bench = called();
    bench.requests(&[Request::Call(number(101), number(102))]);
    let old = bench.board.clone();
    bench.requests(&[Request::Answer(number(102))]);
    bench.board = old;
    bench.requests(&[Request::Status(number(101))]);
    assert!(
        bench.faults()[0].contains("dialling"),
        "{:?}",
        bench.faults()
    );
}

#[test]
fn one_whose_time_runs_backwards_is_caught() {
    let mut bench = called();
    let (own, other) = (number(101), number(102));
    bench.requests(&[Request::Call(own, other), Request::Answer(other)]);
    let old = bench.board.clone();
    let began = bench.now;
    bench.now += Duration::from_secs(5);
    bench.requests(&[Request::Status(own)]);
    assert!(bench.ledger.judge().is_ok());
    // It goes on as if the five seconds had never been.
    bench.board = old;
    let question = Question {
        client: 1,
        number: bench.number + 1,
        operation: Operation::Exchange(Request::Status(own)),
    };
    bench.ledger.asked(bench.now, question);
    let then = u64::try_from(began.as_millis()).unwrap() + 100;
    let answer = bench.board.serve(then, &question.encode()).unwrap();
    bench.ledger.heard(bench.now + 10 * MS, &answer);
    assert!(bench.faults()[0].contains("for 50"), "{:?}", bench.faults());
}

#[test]
fn one_that_does_not_do_what_it_has_said_is_caught() {
    let mut bench = called();
    let question = Question {
        client: 1,
        number: 100,
        operation: Operation::Exchange(Request::Register(number(103))),
    };
    let answer = Answer {
        client: 1,
        number: 100,
        outcome: Outcome::Done(Reply::Registered(number(103))),
    };
    bench.ledger.asked(bench.now, question);
    bench.ledger.heard(bench.now, &answer.encode());
    bench.number = 100;
    bench.requests(&[Request::Status(number(103))]);
    assert!(
        bench.faults()[0].contains("103 unknown"),
        "{:?}",
        bench.faults()
    );
}

#[test]
fn one_that_answers_twice_and_differently_is_caught() {
    let mut bench = called();
    let question = bench.ask(Operation::Exchange(Request::Register(number(103))));
    let answer = Answer {
        client: 1,
        number: question.number,
        outcome: Outcome::Refused(Error::Taken(number(103))),
    };
    bench.ledger.asked(bench.now, question);
    bench.ledger.heard(bench.now, &answer.encode());
    let faults = bench.faults();
    assert_eq!(faults.len(), 1);
    assert!(
        faults[0].contains("answered twice: \"103 registered\", then \"refused: 103 already"),
        "{faults:?}"
    );
}

#[test]
fn one_that_counts_twice_is_caught() {
    let mut bench = called();
    // A question is executed again, though the server keeps quiet about it.
    let now = u64::try_from(bench.now.as_millis()).unwrap();
    for request in [
        Request::Call(number(101), number(102)),
        Request::Answer(number(102)),
        Request::Clear(number(101)),
    ] {
        bench.board.exchange.handle(now, request).unwrap();
    }
    bench.requests(&[Request::Charging(number(101))]);
    assert!(
        bench.faults()[0].contains("not \"101 1 to 1 pulses, 1 calls"),
        "{:?}",
        bench.faults()
    );
}

#[test]
fn one_whose_totals_do_not_fit_is_caught() {
    let mut bench = called();
    let elsewhere = Question {
        client: 2,
        number: 1,
        operation: Operation::Exchange(Request::Register(number(7))),
    };
    bench.board.serve(1000, &elsewhere.encode()).unwrap();
    bench.ask(Operation::Totals);
    assert_eq!(
        bench.faults(),
        [
            "the exchange counts 10 questions executed, not 9",
            "the exchange counts 3 subscribers, not 2"
        ]
    );
}

#[test]
fn answers_to_nobody_and_noise_are_caught_and_a_skipped_question_too() {
    let mut bench = Bench::new();
    let answer = Answer {
        client: 7,
        number: 1,
        outcome: Outcome::Crowded,
    };
    assert_eq!(bench.ledger.heard(MS, &answer.encode()), None);
    assert_eq!(bench.ledger.heard(MS, b"noise"), None);
    let question = |number| Question {
        client: 1,
        number,
        operation: Operation::Totals,
    };
    bench.ledger.asked(MS, question(1));
    assert_eq!(bench.faults().len(), 2, "the last question may be open");
    bench.ledger.asked(MS, question(2));
    let faults = bench.faults();
    assert_eq!(
        faults,
        [
            "client 7 has asked no question 1, but was answered: no room for another client",
            "a datagram is no answer: it begins with 0x6e6f6973",
            "client 1 asked on without an answer to question 1"
        ]
    );
}

#[test]
fn a_second_is_summed_up() {
    let mut ledger = Ledger::default();
    let question = |number| Question {
        client: 1,
        number,
        operation: Operation::Totals,
    };
    let answer = |number| {
        let outcome = Outcome::Crowded;
        let client = 1;
        Answer {
            client,
            number,
            outcome,
        }
        .encode()
    };
    assert!(
        ledger
            .second(Duration::ZERO, MS)
            .to_string()
            .ends_with("last answer never")
    );
    for number in 1..=100 {
        let now = 100 * MS * number;
        ledger.asked(now, question(number));
        ledger.heard(now + MS * number, &answer(number));
    }
    // Sent three times, and answered by two datagrams.
    let now = Duration::from_secs(11);
    for _ in 0..3 {
        ledger.asked(now, question(101));
    }
    for _ in 0..2 {
        ledger.heard(now + 500 * MS, &answer(101));
    }
    let second = ledger.second(Duration::ZERO, Duration::from_secs(12));
    assert_eq!((second.answered, second.lost, second.repeated), (101, 1, 1));
    assert_eq!(
        [second.median, second.p99, second.max],
        [51 * MS, 100 * MS, 500 * MS]
    );
    assert_eq!(second.silence, Some(500 * MS));
    assert_eq!(ledger.second(now, now + 400 * MS).answered, 0);
    assert_eq!(
        ledger.longest_gap(),
        Some((1400 * MS, Duration::from_millis(10_100)))
    );
}

/// A station with an exchange on a wire that serves until it is told to end.
fn serve(station: &Client, defect: Defect, over: &AtomicBool, served: &Mutex<Board>) {
    let port = station.udp(Some(PORT)).unwrap();
    let start = Instant::now();
    let mut old = None;
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        let Some((bytes, from)) = port.receive(10 * MS) else {
            continue;
        };
        let now = u64::try_from(start.elapsed().as_millis()).unwrap();
        let mut board = served.lock().unwrap();
        count += 1;
        match (defect, count) {
            (Defect::Forgets, 100) => old = Some(board.clone()),
            (Defect::Forgets, 150) => *board = old.take().unwrap(),
            (Defect::AnswersTwice, 150) => *board.server = Server::new(),
            (Defect::CountsTwice, 150) => {
                let numbers: Vec<_> = board.exchange.numbers().collect();
                let idle = |number: &&Number| {
                    board.exchange.line(**number) == Some(protocol::Line::Ringing)
                };
                if let Some(ringing) = numbers.iter().find(idle).copied() {
                    board
                        .exchange
                        .handle(now, Request::Answer(ringing))
                        .unwrap();
                } else {
                    count -= 1;
                }
            }
            _ => {}
        }
        let answer = board.serve(now, &bytes);
        drop(board);
        if let Some(answer) = answer {
            let _ = port.send_to(&answer, from);
        }
    }
}

/// Lets callers ask over a bad wire, and judges.
fn over_a_bad_wire(defect: Defect) -> Result<Summary, Vec<Fault>> {
    let wire = Wire::lay().unwrap();
    let station = Client::attach(&wire, Station::new([10, 0, 0, 9])).unwrap();
    let server = Client::attach(&wire, Station::new(EXCHANGE.octets())).unwrap();
    let plan = Plan {
        exchange: SocketAddrV4::new(EXCHANGE, PORT),
        callers: 4,
        identity: 1,
        subscriber: 1000,
        pause: MS,
        wait: 30 * MS,
    };
    let (over, served) = (AtomicBool::new(false), Mutex::new(Board::new()));
    thread::scope(|scope| {
        scope.spawn(|| serve(&server, defect, &over, &served));
        wire.set(Target::All, Action::Loss(Share::percent(10)));
        wire.set(Target::All, Action::Duplicate(Share::percent(10)));
        let mut load = Load::start(&station, plan).unwrap();
        let deadline = Instant::now() + SOON;
        while load.second(SOON).answered < 300 && Instant::now() < deadline {
            thread::sleep(10 * MS);
        }
        load.halt(SOON).unwrap();
        load.inspect_all(SOON).unwrap();
        over.store(true, Ordering::Relaxed);
        load.ledger().judge()
    })
}

#[test]
fn callers_over_a_bad_wire_find_a_good_exchange_good() {
    let summary = over_a_bad_wire(Defect::None).map_err(|faults| faults[0].to_string());
    let summary = summary.unwrap();
    assert!(
        summary.asked >= 300 && summary.answered == summary.asked,
        "{summary}"
    );
    assert!(summary.repeated > 0 && summary.totals == 1, "{summary}");
}

#[test]
fn callers_over_a_bad_wire_catch_every_defect() {
    for defect in [Defect::Forgets, Defect::AnswersTwice, Defect::CountsTwice] {
        let faults = over_a_bad_wire(defect);
        assert!(faults.is_err(), "{defect:?}");
    }
}
