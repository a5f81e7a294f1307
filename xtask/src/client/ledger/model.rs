//! What an exchange must answer: subscribers, their lines and meters, as clients can know them from its earlier answers.
//!
//! How long a call lasted is known to the exchange alone. What it says of that is taken down where it can be true, and
//! must be told alike ever after.

use protocol::{Error, Line, Meter, Number, Outcome, Reply, Request, Tariff};
use std::collections::BTreeMap;
use std::time::Duration;

/// How much longer than here a call may have lasted there: clocks differ by this share ...
const FASTER: u32 = 10;
/// ... and ticks that a guest has missed come in bursts.
const BURST: Duration = Duration::from_secs(2);

/// When something was done there: between its first sending and its answer.
pub(super) type Moment = (Duration, Duration);

/// A call.
#[derive(Clone, Copy, Debug)]
struct Call {
    caller: Number,
    callee: Number,
    /// When it was made, or answered.
    since: Moment,
    answered: bool,
    /// The latest that was told of how long that is ago, in milliseconds.
    told: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Subscriber {
    call: Option<usize>,
    busy: bool,
    /// Of calls that are over. The connected time is as it was told last.
    meter: Meter,
    /// The least and the most that the connected time can be in milliseconds, from the pulses of calls that are over.
    connected: (u64, u64),
}

/// The state of an exchange.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    subscribers: BTreeMap<Number, Subscriber>,
    calls: Vec<Option<Call>>,
}

/// What was to come instead.
pub(super) type Expected = String;

/// The most milliseconds that can have passed there between two moments.
fn most(from: Moment, to: Moment) -> u64 {
    let here = to.1.saturating_sub(from.0);
    let there = here + here / FASTER + BURST;
    u64::try_from(there.as_millis()).unwrap_or(u64::MAX)
}

impl Model {
    /// Does what was asked at a moment, and compares what was answered.
    ///
    /// # Errors
    ///
    /// What was to come instead.
    pub(super) fn check(
        &mut self,
        at: Moment,
        request: Request,
        outcome: Outcome,
    ) -> Result<(), Expected> {
        let expected = match request {
            Request::Register(number) => self.register(number),
            Request::Call(from, to) => self.call(at, from, to),
            Request::Answer(number) => self.answer(at, number),
            Request::Clear(number) => return self.clear(at, number, outcome),
            Request::Status(number) => return self.status(at, number, outcome),
            Request::Charging(number) => return self.charging(at, number, outcome),
        };
        let expected = Outcome::from(expected);
        if outcome == expected {
            Ok(())
        } else {
            Err(shown(expected))
        }
    }

    /// Subscribers, calls that ring, calls that are connected, and the sums of all meters but for calls that are not over.
    pub(super) fn sums(&self) -> (u64, u64, u64, Meter) {
        let calls = self.calls.iter().flatten();
        let connected = calls.clone().filter(|call| call.answered).count() as u64;
        let meters = self.subscribers.values().map(|subscriber| subscriber.meter);
        let meter = meters.fold(Meter::default(), |sum, meter| Meter {
            pulses: sum.pulses + meter.pulses,
            connected: sum.connected + meter.connected,
            calls: sum.calls + meter.calls,
        });
        let ringing = calls.count() as u64 - connected;
        (self.subscribers.len() as u64, ringing, connected, meter)
    }

    fn find(&mut self, number: Number) -> Result<&mut Subscriber, Error> {
        let found = self.subscribers.get_mut(&number);
        found.ok_or(Error::Unknown(number))
    }

    fn call_of(&self, number: Number) -> Option<Call> {
        self.calls[self.subscribers.get(&number)?.call?]
    }

    fn line(&self, number: Number) -> Line {
        match self.call_of(number) {
            Some(call) if call.answered => Line::Connected,
            Some(call) if call.caller == number => Line::Dialling,
            Some(_) => Line::Ringing,
            None => match self.subscribers.get(&number) {
                Some(subscriber) if subscriber.busy => Line::Busy,
                _ => Line::Idle,
            },
        }
    }

    fn register(&mut self, number: Number) -> Result<Reply, Error> {
        if self.subscribers.contains_key(&number) {
            return Err(Error::Taken(number));
        }
        self.subscribers.insert(number, Subscriber::default());
        Ok(Reply::Registered(number))
    }

    fn call(&mut self, at: Moment, from: Number, to: Number) -> Result<Reply, Error> {
        self.find(from)?;
        self.find(to)?;
        if from == to {
            return Err(Error::SameNumber(from));
        }
        match self.line(from) {
            Line::Idle => {}
            line => return Err(Error::WrongState(from, line)),
        }
        if self.line(to) != Line::Idle {
            self.find(from)?.busy = true;
            return Ok(Reply::Busy(from, to));
        }
        let call = Some(self.calls.len());
        self.calls.push(Some(Call {
            caller: from,
            callee: to,
            since: at,
            answered: false,
            told: 0,
        }));
        self.find(from)?.call = call;
        self.find(to)?.call = call;
        Ok(Reply::Ringing(from, to))
    }

    fn answer(&mut self, at: Moment, number: Number) -> Result<Reply, Error> {
        let place = self.find(number)?.call;
        let line = self.line(number);
        let call = place.and_then(|place| self.calls[place].as_mut());
        let Some(call) = call.filter(|_| line == Line::Ringing) else {
            return Err(Error::WrongState(number, line));
        };
        (call.answered, call.since, call.told) = (true, at, 0);
        let caller = call.caller;
        self.find(caller)?.meter.calls += 1;
        let tariff = Tariff::between(caller, number);
        Ok(Reply::Connected(caller, number, tariff))
    }

    fn clear(&mut self, at: Moment, number: Number, outcome: Outcome) -> Result<(), Expected> {
        let (place, was_busy) = match self.find(number) {
            Ok(subscriber) => (subscriber.call, std::mem::take(&mut subscriber.busy)),
            Err(error) => return same(outcome, Outcome::Refused(error)),
        };
        let Some(call) = place.and_then(|place| self.calls[place].take()) else {
            let expected = if was_busy {
                Outcome::Done(Reply::Cleared(number, None))
            } else {
                Outcome::Refused(Error::WrongState(number, Line::Idle))
            };
            return same(outcome, expected);
        };
        for party in [call.caller, call.callee] {
            if let Some(subscriber) = self.subscribers.get_mut(&party) {
                subscriber.call = None;
            }
        }
        if !call.answered {
            return same(outcome, Outcome::Done(Reply::Cleared(number, None)));
        }
        let tariff = Tariff::between(call.caller, call.callee);
        let (least, most) = (
            tariff.pulses(call.told),
            tariff.pulses(most(call.since, at)),
        );
        let pulses = match outcome {
            Outcome::Done(Reply::Cleared(of, Some(pulses))) if of == number => pulses,
            _ => 0,
        };
        if !(least..=most).contains(&pulses) {
            return Err(format!("{number} cleared, {least} to {most} pulses"));
        }
        if let Some(caller) = self.subscribers.get_mut(&call.caller) {
            caller.meter.pulses += pulses;
            caller.connected.0 += (pulses - 1) * tariff.unit();
            caller.connected.1 += pulses * tariff.unit() - 1;
        }
        Ok(())
    }

    fn status(&mut self, at: Moment, number: Number, outcome: Outcome) -> Result<(), Expected> {
        let place = match self.find(number) {
            Ok(subscriber) => subscriber.call,
            Err(error) => return same(outcome, Outcome::Refused(error)),
        };
        let line = self.line(number);
        let Some(call) = place.and_then(|place| self.calls[place].as_mut()) else {
            return same(outcome, Outcome::Done(Reply::Status(number, line, None)));
        };
        let other = if call.caller == number {
            call.callee
        } else {
            call.caller
        };
        // Their time never runs backwards, wherever it runs.
        let times = call.told..=most(call.since, at);
        match outcome {
            Outcome::Done(Reply::Status(of, told, Some((with, time))))
                if (of, told, with) == (number, line, other) && times.contains(&time) =>
            {
                call.told = time;
                Ok(())
            }
            _ => {
                let (least, most) = times.into_inner();
                Err(format!(
                    "{number} {line} with {other} for {least} to {most} ms"
                ))
            }
        }
    }

    fn charging(&mut self, at: Moment, number: Number, outcome: Outcome) -> Result<(), Expected> {
        let call = self
            .call_of(number)
            .filter(|call| call.answered && call.caller == number);
        let subscriber = match self.find(number) {
            Ok(subscriber) => subscriber,
            Err(error) => return same(outcome, Outcome::Refused(error)),
        };
        let meter = subscriber.meter;
        let (mut connected, mut pulses) = (subscriber.connected, (meter.pulses, meter.pulses));
        connected.0 = connected.0.max(meter.connected);
        if let Some(call) = call {
            let tariff = Tariff::between(call.caller, call.callee);
            let most = most(call.since, at);
            pulses.0 += tariff.pulses(call.told);
            pulses.1 += tariff.pulses(most);
            connected.1 += most;
        }
        match outcome {
            Outcome::Done(Reply::Charging(of, told))
                if (of, told.calls) == (number, meter.calls)
                    && (pulses.0..=pulses.1).contains(&told.pulses)
                    && (connected.0..=connected.1).contains(&told.connected) =>
            {
                subscriber.meter.connected = told.connected;
                Ok(())
            }
            _ => Err(format!(
                "{number} {} to {} pulses, {} calls, {} to {} ms connected",
                pulses.0, pulses.1, meter.calls, connected.0, connected.1
            )),
        }
    }
}

fn same(outcome: Outcome, expected: Outcome) -> Result<(), Expected> {
    if outcome == expected {
        Ok(())
    } else {
        Err(shown(expected))
    }
}

/// An outcome in words.
pub(super) fn shown(outcome: Outcome) -> String {
    match outcome {
        Outcome::Done(reply) => reply.to_string(),
        Outcome::Refused(error) => format!("refused: {error}"),
        Outcome::Totals(totals) => format!("{totals:?}"),
        Outcome::Crowded => "no room for another client".into(),
    }
}
