//! A client of the exchange, and calls that it makes.

use super::{PAIRS, ROUNDS, RTOS, SILENCE};
use crate::client::{Client, Retry};
use anyhow::{Context, Result, bail, ensure};
use protocol::{
    Answer, Datagram, Error, Line, Meter, Number, Operation, Outcome, PORT, Question, Reply,
    Request, Tariff, Totals,
};
use std::net::SocketAddrV4;

/// Every so many-th question is sent again.
const REPEATED: u64 = 7;

/// A client of the exchange.
pub(in crate::suite) struct Caller<'a> {
    station: &'a Client,
    identity: u32,
    retry: Retry,
    /// The last question's.
    number: u32,
    /// Questions.
    pub(in crate::suite) asked: u64,
    /// Those that were sent again, though they were answered.
    pub(in crate::suite) repeated: u64,
}

impl<'a> Caller<'a> {
    /// Its questions' numbers soon begin anew.
    pub(in crate::suite) const fn new(station: &'a Client, identity: u32, retry: Retry) -> Self {
        Self {
            station,
            identity,
            retry,
            number: u32::MAX - 100,
            asked: 0,
            repeated: 0,
        }
    }

    fn question(&self, operation: Operation) -> Datagram {
        let question = Question {
            client: self.identity,
            number: self.number,
            operation,
        };
        question.encode()
    }

    fn send(&self, question: &Datagram) -> Result<Vec<u8>> {
        let answer = self.station.udp_request(RTOS, PORT, question, self.retry)?;
        Ok(answer.bytes)
    }

    /// Asks the next question. Some are sent again, and must be answered alike.
    fn ask(&mut self, operation: Operation) -> Result<Outcome> {
        self.number = self.number.wrapping_add(1);
        self.asked += 1;
        let question = self.question(operation);
        let bytes = self.send(&question)?;
        if self.asked.is_multiple_of(REPEATED) {
            self.repeated += 1;
            let again = self.send(&question)?;
            ensure!(
                again == bytes,
                "the answers to one question differ: {bytes:?} and {again:?}"
            );
        }
        let answer = Answer::decode(&bytes)?;
        ensure!(
            (answer.client, answer.number) == (self.identity, self.number),
            "{answer:?} is no answer to question {} of {}",
            self.number,
            self.identity
        );
        Ok(answer.outcome)
    }

    fn expect(&mut self, request: Request, reply: Reply) -> Result<()> {
        let outcome = self.ask(Operation::Exchange(request))?;
        ensure!(
            outcome == Outcome::Done(reply),
            "{request:?} gave {outcome:?}, not {reply:?}"
        );
        Ok(())
    }

    pub(in crate::suite) fn totals(&mut self) -> Result<Totals> {
        match self.ask(Operation::Totals)? {
            Outcome::Totals(totals) => Ok(totals),
            other => bail!("the totals are {other:?}"),
        }
    }

    /// A question that comes after a later one gets no answer.
    pub(super) fn is_dropped_when_outdated(&self) -> Result<()> {
        let late = Question {
            client: self.identity,
            number: self.number.wrapping_sub(1),
            operation: Operation::Totals,
        };
        let port = self.station.udp(None)?;
        port.send_to(&late.encode(), SocketAddrV4::new(RTOS, PORT))?;
        ensure!(
            port.receive(SILENCE).is_none(),
            "an outdated question was answered"
        );
        Ok(())
    }
}

fn number(number: u32) -> Result<Number> {
    Number::new(number).context("no subscriber's number")
}

/// Registers subscribers, of whom the first calls the second and so on; the first number.
pub(super) fn register(caller: &mut Caller<'_>) -> Result<u32> {
    const FIRST: u32 = 1000;
    for pair in 0..PAIRS {
        register_pair(caller, FIRST + 2 * pair)?;
    }
    let taken = number(FIRST)?;
    let refused = caller.ask(Operation::Exchange(Request::Register(taken)))?;
    ensure!(
        refused == Outcome::Refused(Error::Taken(taken)),
        "registered twice: {refused:?}"
    );
    Ok(FIRST)
}

/// Registers a subscriber and the next.
pub(in crate::suite) fn register_pair(caller: &mut Caller<'_>, first: u32) -> Result<()> {
    for subscriber in [number(first)?, number(first + 1)?] {
        caller.expect(Request::Register(subscriber), Reply::Registered(subscriber))?;
    }
    Ok(())
}

/// A call from a subscriber to the next, from the dialling to the end; the pulses that it cost.
pub(in crate::suite) fn call(
    caller: &mut Caller<'_>,
    callee: &mut Caller<'_>,
    from: u32,
) -> Result<u64> {
    let (from, to) = (number(from)?, number(from + 1)?);
    caller.expect(Request::Call(from, to), Reply::Ringing(from, to))?;
    let outcome = callee.ask(Operation::Exchange(Request::Status(to)))?;
    let rings = matches!(
        outcome,
        Outcome::Done(Reply::Status(of, Line::Ringing, Some((other, _)))) if (of, other) == (to, from)
    );
    ensure!(rings, "{to} should ring: {outcome:?}");
    let tariff = Tariff::between(from, to);
    callee.expect(Request::Answer(to), Reply::Connected(from, to, tariff))?;
    let outcome = caller.ask(Operation::Exchange(Request::Call(from, to)))?;
    ensure!(
        outcome == Outcome::Refused(Error::WrongState(from, Line::Connected)),
        "{from} calls within a call: {outcome:?}"
    );
    let outcome = caller.ask(Operation::Exchange(Request::Clear(from)))?;
    let Outcome::Done(Reply::Cleared(of, Some(pulses))) = outcome else {
        bail!("{from} cleared: {outcome:?}");
    };
    ensure!(of == from && pulses > 0, "{from} cleared: {outcome:?}");
    let outcome = callee.ask(Operation::Exchange(Request::Clear(to)))?;
    ensure!(
        outcome == Outcome::Refused(Error::WrongState(to, Line::Idle)),
        "{to} clears again: {outcome:?}"
    );
    Ok(pulses)
}

/// A subscriber's meter shows all his calls and no more.
pub(super) fn charged(caller: &mut Caller<'_>, from: u32, pulses: u64) -> Result<()> {
    let from = number(from)?;
    let outcome = caller.ask(Operation::Exchange(Request::Charging(from)))?;
    let fits = |of: Number, meter: Meter| {
        (of, meter.pulses, meter.calls) == (from, pulses, u64::from(ROUNDS))
    };
    match outcome {
        Outcome::Done(Reply::Charging(of, meter)) if fits(of, meter) => Ok(()),
        other => bail!("{from} made {ROUNDS} calls for {pulses} pulses, not {other:?}"),
    }
}
