//! Known datagrams, and random ones there and back.

use proptest::prelude::*;

use crate::{
    ANSWER_LENGTH_MAX, Answer, Error, Line, Malformed, Meter, Number, Operation, Outcome,
    QUESTION_LENGTH, Question, Reply, Request, Tariff, Totals, is_later,
};

fn number(number: u32) -> Number {
    Number::new(number).unwrap()
}

#[test]
fn numbers_are_digits() {
    assert_eq!(Number::parse("101"), Some(number(101)));
    for wrong in [
        "",
        "0",
        "0101",
        "-1",
        "+1",
        "1a",
        "100000000",
        "99999999999999",
    ] {
        assert_eq!(Number::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn a_question_lies_as_specified() {
    let question = Question {
        client: 0x0102_0304,
        number: 0xfffe_fdfc,
        operation: Operation::Exchange(Request::Call(number(101), number(99_999_999))),
    };
    let datagram = *b"LX20\x01\x02\0\0\x01\x02\x03\x04\xff\xfe\xfd\xfc\0\0\0\x65\x05\xf5\xe0\xff";
    assert_eq!(*question.encode(), datagram);
    assert_eq!(datagram.len(), QUESTION_LENGTH);
    assert_eq!(Question::decode(&datagram), Ok(question));
}

#[test]
fn an_answer_lies_as_specified() {
    let reply = Reply::Status(number(7), Line::Connected, Some((number(8), 0x1_0000_0002)));
    let answer = Answer {
        client: 1,
        number: 2,
        outcome: Outcome::Done(reply),
    };
    let datagram =
        b"LX20\x01\x88\0\0\0\0\0\x01\0\0\0\x02\0\0\0\x07\x03\0\0\0\x08\0\0\0\x01\0\0\0\x02";
    assert_eq!(*answer.encode(), *datagram);
    assert_eq!(Answer::decode(datagram), Ok(answer));
}

#[test]
fn what_is_wrong_is_named() {
    let good = Question {
        client: 1,
        number: 2,
        operation: Operation::Exchange(Request::Answer(number(101))),
    };
    let good = good.encode();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = byte;
        Question::decode(&bytes).unwrap_err()
    };
    assert_eq!(with(0, b'l'), Malformed::Magic(0x6c58_3230));
    assert_eq!(with(4, 2), Malformed::Version(2));
    assert_eq!(with(5, 0x83), Malformed::Kind(0x83));
    assert_eq!(with(5, 0), Malformed::Kind(0));
    assert_eq!(with(7, 1), Malformed::Reserved);
    assert_eq!(with(19, 0), Malformed::Number(0));
    assert_eq!(with(23, 1), Malformed::Reserved);
    assert_eq!(with(5, 2), Malformed::Number(0));
    assert_eq!(with(5, 7), Malformed::Reserved);
    let mut long = good.to_vec();
    long.push(0);
    assert_eq!(Question::decode(&long), Err(Malformed::Long));
    for length in 0..good.len() {
        assert_eq!(Question::decode(&good[..length]), Err(Malformed::Short));
    }
    assert_eq!(Answer::decode(&good), Err(Malformed::Kind(3)));
}

#[test]
fn codes_of_lines_and_tariffs_end() {
    let answer = |outcome| Answer {
        client: 1,
        number: 2,
        outcome: Outcome::Done(outcome),
    };
    let mut status = answer(Reply::Status(number(1), Line::Busy, None))
        .encode()
        .to_vec();
    *status.last_mut().unwrap() += 1;
    assert_eq!(Answer::decode(&status), Err(Malformed::Line(5)));
    let connected = Reply::Connected(number(1), number(2), Tariff::Service);
    let mut connected = answer(connected).encode().to_vec();
    *connected.last_mut().unwrap() += 1;
    assert_eq!(Answer::decode(&connected), Err(Malformed::Tariff(3)));
}

#[test]
fn later_numbers_wrap() {
    assert!(is_later(2, 1) && !is_later(1, 2) && !is_later(5, 5));
    assert!(is_later(0, u32::MAX) && !is_later(u32::MAX, 0));
    assert!(is_later(1 << 30, 0) && !is_later(1 << 31, 0));
}

fn numbers() -> impl Strategy<Value = Number> {
    (1..=99_999_999_u32).prop_map(number)
}

fn lines() -> impl Strategy<Value = Line> {
    prop::sample::select(vec![
        Line::Idle,
        Line::Dialling,
        Line::Ringing,
        Line::Connected,
        Line::Busy,
    ])
}

fn operations() -> impl Strategy<Value = Operation> {
    prop_oneof![
        numbers().prop_map(Request::Register),
        (numbers(), numbers()).prop_map(|(from, to)| Request::Call(from, to)),
        numbers().prop_map(Request::Answer),
        numbers().prop_map(Request::Clear),
        numbers().prop_map(Request::Status),
        numbers().prop_map(Request::Charging),
    ]
    .prop_map(Operation::Exchange)
    .boxed()
    .prop_union(Just(Operation::Totals).boxed())
}

fn replies() -> impl Strategy<Value = Reply> {
    let tariffs = prop::sample::select(vec![Tariff::Local, Tariff::Trunk, Tariff::Service]);
    let others = prop::option::of((numbers(), any::<u64>()));
    let meters = any::<[u64; 3]>().prop_map(|[pulses, connected, calls]| Meter {
        pulses,
        connected,
        calls,
    });
    prop_oneof![
        numbers().prop_map(Reply::Registered),
        (numbers(), numbers()).prop_map(|(from, to)| Reply::Ringing(from, to)),
        (numbers(), numbers()).prop_map(|(from, to)| Reply::Busy(from, to)),
        (numbers(), numbers(), tariffs).prop_map(|(from, to, by)| Reply::Connected(from, to, by)),
        (numbers(), any::<Option<u64>>()).prop_map(|(of, pulses)| Reply::Cleared(of, pulses)),
        (numbers(), lines(), others).prop_map(|(of, line, other)| Reply::Status(of, line, other)),
        (numbers(), meters).prop_map(|(of, meter)| Reply::Charging(of, meter)),
    ]
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    let totals = any::<[u64; 11]>().prop_map(|counters| {
        let [
            uptime,
            executed,
            duplicates,
            outdated,
            malformed,
            crowded,
            ..,
        ] = counters;
        let [.., subscribers, ringing, connected, calls, pulses] = counters;
        Totals {
            uptime,
            executed,
            duplicates,
            outdated,
            malformed,
            crowded,
            subscribers,
            ringing,
            connected,
            calls,
            pulses,
        }
    });
    let errors = prop_oneof![
        numbers().prop_map(Error::Unknown),
        numbers().prop_map(Error::Taken),
        Just(Error::Full),
        (numbers(), lines()).prop_map(|(of, line)| Error::WrongState(of, line)),
        numbers().prop_map(Error::SameNumber),
    ];
    prop_oneof![
        replies().prop_map(Outcome::Done),
        errors.prop_map(Outcome::Refused),
        totals.prop_map(Outcome::Totals),
        Just(Outcome::Crowded),
    ]
}

proptest! {
    #[test]
    fn questions_come_back(client: u32, number: u32, operation in operations()) {
        let question = Question { client, number, operation };
        let datagram = question.encode();
        prop_assert_eq!(datagram.len(), QUESTION_LENGTH);
        prop_assert_eq!(Question::decode(&datagram), Ok(question));
        prop_assert!(Answer::decode(&datagram).is_err());
    }

    #[test]
    fn answers_come_back(client: u32, number: u32, outcome in outcomes()) {
        let answer = Answer { client, number, outcome };
        let datagram = answer.encode();
        prop_assert!(datagram.len() <= ANSWER_LENGTH_MAX);
        prop_assert_eq!(Answer::decode(&datagram), Ok(answer));
        prop_assert!(Question::decode(&datagram).is_err());
        prop_assert_eq!(Answer::decode(&datagram[..datagram.len() - 1]), Err(Malformed::Short));
    }

    /// There is one datagram for each meaning: what is read is written again as it was.
    #[test]
    fn changed_bytes_are_refused_or_mean_something_else(
        question in (any::<u32>(), any::<u32>(), operations()),
        changes in prop::collection::vec((0..QUESTION_LENGTH, any::<u8>()), 0..4),
    ) {
        let (client, number, operation) = question;
        let mut bytes = Question { client, number, operation }.encode().to_vec();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        if let Ok(read) = Question::decode(&bytes) {
            prop_assert_eq!(&*read.encode(), &bytes[..]);
        }
    }
}
