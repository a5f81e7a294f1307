//! Scenarios, and random requests against what must always hold.

use proptest::prelude::*;

use super::{
    CALLS, Error, Exchange, Line, Load, Meter, Number, RING_LIMIT, Reply, Request, SUBSCRIBERS,
    Tariff,
};

fn number(number: u32) -> Number {
    Number::new(number).unwrap()
}

fn with(numbers: &[u32]) -> Exchange {
    let mut exchange = Exchange::new();
    for &each in numbers {
        exchange.handle(0, Request::Register(number(each))).unwrap();
    }
    exchange
}

fn meter(exchange: &mut Exchange, of: u32) -> Meter {
    match exchange.handle(0, Request::Charging(number(of))) {
        Ok(Reply::Charging(_, meter)) => meter,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_call_from_start_to_end() {
    let (a, b, c) = (number(101), number(202), number(150));
    let mut exchange = with(&[101, 202, 150]);
    assert_eq!(
        exchange.handle(0, Request::Register(a)),
        Err(Error::Taken(a))
    );
    assert_eq!(
        exchange.handle(10, Request::Call(a, b)),
        Ok(Reply::Ringing(a, b))
    );
    assert_eq!(
        (exchange.line(a), exchange.line(b)),
        (Some(Line::Dialling), Some(Line::Ringing))
    );
    assert_eq!(
        exchange.handle(15, Request::Call(c, b)),
        Ok(Reply::Busy(c, b))
    );
    assert_eq!(
        exchange.handle(16, Request::Call(c, a)),
        Err(Error::WrongState(c, Line::Busy))
    );
    assert_eq!(
        exchange.handle(17, Request::Clear(c)),
        Ok(Reply::Cleared(c, None))
    );
    assert_eq!(
        exchange.handle(20, Request::Answer(a)),
        Err(Error::WrongState(a, Line::Dialling))
    );
    assert_eq!(
        exchange.handle(1000, Request::Answer(b)),
        Ok(Reply::Connected(a, b, Tariff::Trunk))
    );
    assert_eq!(exchange.traffic(), (0, 1));
    assert_eq!(
        exchange.handle(3500, Request::Status(b)),
        Ok(Reply::Status(b, Line::Connected, Some((a, 2500))))
    );
    assert_eq!(
        exchange.handle(3500, Request::Clear(b)),
        Ok(Reply::Cleared(b, Some(3)))
    );
    assert_eq!(
        meter(&mut exchange, 101),
        Meter {
            pulses: 3,
            connected: 2500,
            calls: 1
        }
    );
    assert_eq!(meter(&mut exchange, 202), Meter::default());
    assert_eq!(exchange.line(a), Some(Line::Idle));
    exchange.check().unwrap();
}

#[test]
fn refusals() {
    let (a, nobody) = (number(101), number(999));
    let mut exchange = with(&[101]);
    assert_eq!(
        exchange.handle(0, Request::Call(a, nobody)),
        Err(Error::Unknown(nobody))
    );
    assert_eq!(
        exchange.handle(0, Request::Call(a, a)),
        Err(Error::SameNumber(a))
    );
    assert_eq!(
        exchange.handle(0, Request::Clear(a)),
        Err(Error::WrongState(a, Line::Idle))
    );
    for each in 0..SUBSCRIBERS as u32 - 1 {
        exchange
            .handle(0, Request::Register(number(1000 + each)))
            .unwrap();
    }
    assert_eq!(
        exchange.handle(0, Request::Register(nobody)),
        Err(Error::Full)
    );
}

#[test]
fn no_path_is_busy_and_no_answer_ends() {
    let mut exchange = Exchange::new();
    for each in 0..=CALLS as u32 * 2 + 1 {
        exchange
            .handle(0, Request::Register(number(1000 + each)))
            .unwrap();
    }
    for each in 0..CALLS as u32 {
        let (a, b) = (number(1000 + 2 * each), number(1001 + 2 * each));
        assert_eq!(
            exchange.handle(5, Request::Call(a, b)),
            Ok(Reply::Ringing(a, b))
        );
    }
    let (a, b) = (
        number(1000 + 2 * CALLS as u32),
        number(1001 + 2 * CALLS as u32),
    );
    assert_eq!(
        exchange.handle(5, Request::Call(a, b)),
        Ok(Reply::Busy(a, b))
    );
    exchange.tick(5 + RING_LIMIT - 1);
    assert_eq!(exchange.traffic(), (CALLS, 0));
    exchange.tick(5 + RING_LIMIT);
    assert_eq!(exchange.traffic(), (0, 0));
    assert_eq!(
        (exchange.line(number(1000)), exchange.line(number(1001))),
        (Some(Line::Busy), Some(Line::Idle))
    );
    exchange.check().unwrap();
}

#[test]
fn tariffs() {
    let between = |a, b| Tariff::between(number(a), number(b));
    assert_eq!(between(101, 199), Tariff::Local);
    assert_eq!(between(101, 202), Tariff::Trunk);
    assert_eq!(between(101, 1010), Tariff::Trunk);
    assert_eq!(between(901, 900), Tariff::Service);
    assert_eq!(
        (
            Tariff::Local.pulses(0),
            Tariff::Local.pulses(2999),
            Tariff::Local.pulses(3000)
        ),
        (1, 1, 2)
    );
}

#[test]
fn a_load_is_the_same_for_the_same_seed() {
    let run = |seed| {
        let mut exchange = with(&[101]);
        let mut load = Load::new(&mut exchange, 500, seed).unwrap();
        for now in 0.. {
            if let Some(summary) = load.step(&mut exchange, now * 7).unwrap() {
                assert_eq!(summary.calls, 500);
                assert_eq!(
                    summary.calls,
                    summary.answered + summary.busy + summary.abandoned
                );
                assert_eq!(exchange.traffic(), (0, 0));
                return summary;
            }
        }
        unreachable!("the load ends")
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

fn request() -> impl Strategy<Value = Request> {
    let number =
        || (0_usize..8).prop_map(|index| number([101, 102, 103, 201, 202, 901, 77, 5][index]));
    prop_oneof![
        1 => number().prop_map(Request::Register),
        4 => (number(), number()).prop_map(|(a, b)| Request::Call(a, b)),
        3 => number().prop_map(Request::Answer),
        2 => number().prop_map(Request::Clear),
        1 => number().prop_map(Request::Status),
    ]
}

proptest! {
    /// Whatever is asked, the tables agree, and each meter is exactly the sum of the calls that a plain
    /// ledger beside the exchange has seen.
    #[test]
    fn what_always_holds(steps in prop::collection::vec((request(), 0_u64..3000, any::<bool>()), 0..200)) {
        let mut exchange = with(&[101, 102, 103, 201, 202]);
        let mut now = 0;
        let mut open: Vec<(Number, Number, Tariff, u64)> = Vec::new();
        let mut ledger = std::collections::HashMap::<u32, Meter>::new();
        for (request, pause, tick) in steps {
            now += pause;
            if tick {
                exchange.tick(now);
            }
            let before = exchange.clone();
            let reply = exchange.handle(now, request);
            exchange.check().unwrap();
            match (request, reply) {
                (_, Ok(Reply::Connected(from, to, tariff))) => open.push((from, to, tariff, now)),
                (Request::Clear(who), Ok(Reply::Cleared(_, Some(pulses)))) => {
                    let at = open.iter().position(|&(from, to, ..)| who == from || who == to).unwrap();
                    let (from, _, tariff, since) = open.swap_remove(at);
                    prop_assert_eq!(pulses, (now - since) / tariff.unit() + 1);
                    let meter = ledger.entry(from.get()).or_default();
                    meter.pulses += pulses;
                    meter.connected += now - since;
                    meter.calls += 1;
                }
                (_, Err(_)) => prop_assert_eq!(format!("{before:?}"), format!("{exchange:?}"), "a refusal changes nothing"),
                _ => {}
            }
            prop_assert_eq!(exchange.traffic().1, open.len());
        }
        for (from, to, tariff, since) in open {
            exchange.handle(now, Request::Clear(to)).unwrap();
            let meter = ledger.entry(from.get()).or_default();
            meter.pulses += (now - since) / tariff.unit() + 1;
            meter.connected += now - since;
            meter.calls += 1;
        }
        for number in exchange.numbers().collect::<Vec<_>>() {
            prop_assert_eq!(meter(&mut exchange, number.get()), ledger.remove(&number.get()).unwrap_or_default());
        }
    }

    /// How often the charging task runs changes no bill.
    #[test]
    fn bills_do_not_depend_on_ticks(ticks in prop::collection::vec(1_u64..2000, 0..50), length in 0_u64..50_000) {
        let bill = |ticks: &[u64]| {
            let mut exchange = with(&[101, 202]);
            exchange.handle(0, Request::Call(number(101), number(202))).unwrap();
            exchange.handle(0, Request::Answer(number(202))).unwrap();
            let mut now = 0;
            for tick in ticks {
                now += tick;
                if now < length {
                    exchange.tick(now);
                }
            }
            exchange.handle(length, Request::Clear(number(101))).unwrap();
            meter(&mut exchange, 101)
        };
        prop_assert_eq!(bill(&ticks), bill(&[]));
    }
}
