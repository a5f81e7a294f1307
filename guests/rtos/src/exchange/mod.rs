//! The telephone exchange: subscribers, calls between them, and what they cost.
//!
//! The exchange is a plain value in static memory. Whoever drives it, the console or the network, sends a
//! [`Request`] with the time in milliseconds and gets a [`Reply`] or an [`Error`]; [`Exchange::tick`] keeps
//! the charging going in between.

mod charging;
mod load;
#[cfg(test)]
mod tests;

pub use load::{Load, Summary};
pub use protocol::{Error, Line, Meter, Number, Reply, Request, Tariff};

/// Subscribers the exchange has room for.
pub const SUBSCRIBERS: usize = 512;
/// Calls there can be at one time.
pub const CALLS: usize = 128;
/// A call that nobody answers ends after so many milliseconds.
pub const RING_LIMIT: u64 = 60_000;

#[derive(Clone, Copy, Debug)]
struct Subscriber {
    number: Number,
    /// The call he takes part in.
    call: Option<u16>,
    /// Whether he hears the busy tone.
    busy: bool,
    meter: Meter,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    caller: u16,
    callee: u16,
    tariff: Tariff,
    /// When it was made, or answered.
    since: u64,
    answered: bool,
    /// The connected time and the pulses that are on the meter already.
    metered: u64,
    pulses: u64,
}

/// The exchange.
#[derive(Clone, Debug)]
pub struct Exchange {
    subscribers: [Option<Subscriber>; SUBSCRIBERS],
    calls: [Option<Call>; CALLS],
}

impl Exchange {
    /// An exchange without subscribers.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            subscribers: [None; SUBSCRIBERS],
            calls: [None; CALLS],
        }
    }

    /// Does what is asked, at a time in milliseconds that never runs backwards.
    ///
    /// # Errors
    /// If the request does not fit the state; the state is then unchanged.
    pub fn handle(&mut self, now: u64, request: Request) -> Result<Reply, Error> {
        match request {
            Request::Register(number) => self.register(number),
            Request::Call(from, to) => self.call(now, from, to),
            Request::Answer(number) => self.answer(now, number),
            Request::Clear(number) => self.clear(now, number),
            Request::Status(number) => {
                let place = self.find(number)?;
                Ok(self.status(now, number, place))
            }
            Request::Charging(number) => {
                let place = self.find(number)?;
                let meter = self.subscribers[place].map(|subscriber| subscriber.meter);
                meter
                    .map(|meter| Reply::Charging(number, meter))
                    .ok_or(Error::Unknown(number))
            }
        }
    }

    /// The numbers in service.
    pub fn numbers(&self) -> impl Iterator<Item = Number> {
        self.subscribers
            .iter()
            .flatten()
            .map(|subscriber| subscriber.number)
    }

    /// The calls that ring, and those that are connected.
    #[must_use]
    pub fn traffic(&self) -> (usize, usize) {
        let connected = self
            .calls
            .iter()
            .flatten()
            .filter(|call| call.answered)
            .count();
        (self.calls.iter().flatten().count() - connected, connected)
    }

    /// What a line is doing; `None` if nobody has the number.
    #[must_use]
    pub fn line(&self, number: Number) -> Option<Line> {
        self.find(number).ok().map(|place| self.line_at(place))
    }

    fn register(&mut self, number: Number) -> Result<Reply, Error> {
        if self.find(number).is_ok() {
            return Err(Error::Taken(number));
        }
        let free = self
            .subscribers
            .iter_mut()
            .find(|place| place.is_none())
            .ok_or(Error::Full)?;
        *free = Some(Subscriber {
            number,
            call: None,
            busy: false,
            meter: Meter::default(),
        });
        Ok(Reply::Registered(number))
    }

    fn call(&mut self, now: u64, from: Number, to: Number) -> Result<Reply, Error> {
        let (caller, callee) = (self.find(from)?, self.find(to)?);
        if caller == callee {
            return Err(Error::SameNumber(from));
        }
        self.expect(caller, from, Line::Idle)?;
        let path = self.calls.iter().position(Option::is_none);
        let (Some(path), Line::Idle) = (path, self.line_at(callee)) else {
            self.set(caller, None, true);
            return Ok(Reply::Busy(from, to));
        };
        self.calls[path] = Some(Call {
            caller: caller as u16,
            callee: callee as u16,
            tariff: Tariff::between(from, to),
            since: now,
            answered: false,
            metered: 0,
            pulses: 0,
        });
        self.set(caller, Some(path as u16), false);
        self.set(callee, Some(path as u16), false);
        Ok(Reply::Ringing(from, to))
    }

    fn answer(&mut self, now: u64, number: Number) -> Result<Reply, Error> {
        let callee = self.find(number)?;
        self.expect(callee, number, Line::Ringing)?;
        let path = self
            .path(callee)
            .ok_or(Error::WrongState(number, Line::Idle))?;
        let Some(call) = &mut self.calls[path] else {
            return Err(Error::WrongState(number, Line::Idle));
        };
        call.answered = true;
        call.since = now;
        let (caller, tariff) = (usize::from(call.caller), call.tariff);
        if let Some(subscriber) = &mut self.subscribers[caller] {
            subscriber.meter.calls += 1;
        }
        self.meter(now, path);
        Ok(Reply::Connected(
            self.number_at(caller).unwrap_or(number),
            number,
            tariff,
        ))
    }

    fn clear(&mut self, now: u64, number: Number) -> Result<Reply, Error> {
        let place = self.find(number)?;
        let pulses = match (self.path(place), self.line_at(place)) {
            (Some(path), _) => self.end(now, path),
            (None, Line::Busy) => None,
            (None, line) => return Err(Error::WrongState(number, line)),
        };
        self.set(place, None, false);
        Ok(Reply::Cleared(number, pulses))
    }

    /// Ends a call: both lines are idle afterwards. Returns what it cost, if it was connected.
    fn end(&mut self, now: u64, path: usize) -> Option<u64> {
        self.meter(now, path);
        let call = self.calls[path].take()?;
        self.set(usize::from(call.caller), None, false);
        self.set(usize::from(call.callee), None, false);
        call.answered.then_some(call.pulses)
    }

    fn status(&self, now: u64, number: Number, place: usize) -> Reply {
        let other = self
            .path(place)
            .and_then(|path| self.calls[path])
            .and_then(|call| {
                let other = if usize::from(call.caller) == place {
                    call.callee
                } else {
                    call.caller
                };
                Some((
                    self.number_at(usize::from(other))?,
                    now.saturating_sub(call.since),
                ))
            });
        Reply::Status(number, self.line_at(place), other)
    }

    fn find(&self, number: Number) -> Result<usize, Error> {
        let has = |place: &Option<Subscriber>| {
            place.is_some_and(|subscriber| subscriber.number == number)
        };
        self.subscribers
            .iter()
            .position(has)
            .ok_or(Error::Unknown(number))
    }

    fn number_at(&self, place: usize) -> Option<Number> {
        self.subscribers[place].map(|subscriber| subscriber.number)
    }

    fn path(&self, place: usize) -> Option<usize> {
        self.subscribers[place]?.call.map(usize::from)
    }

    fn set(&mut self, place: usize, call: Option<u16>, busy: bool) {
        if let Some(subscriber) = &mut self.subscribers[place] {
            subscriber.call = call;
            subscriber.busy = busy;
        }
    }

    fn expect(&self, place: usize, number: Number, line: Line) -> Result<(), Error> {
        let actual = self.line_at(place);
        if actual == line {
            Ok(())
        } else {
            Err(Error::WrongState(number, actual))
        }
    }

    fn line_at(&self, place: usize) -> Line {
        let Some(subscriber) = self.subscribers[place] else {
            return Line::Idle;
        };
        match subscriber
            .call
            .and_then(|path| self.calls[usize::from(path)])
        {
            Some(call) if call.answered => Line::Connected,
            Some(call) if usize::from(call.caller) == place => Line::Dialling,
            Some(_) => Line::Ringing,
            None if subscriber.busy => Line::Busy,
            None => Line::Idle,
        }
    }

    /// What must always hold between the tables.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check(&self) -> Result<(), &'static str> {
        let mut parties = [0_u8; SUBSCRIBERS];
        for (path, call) in self.calls.iter().enumerate() {
            let Some(call) = call else { continue };
            if call.caller == call.callee {
                return Err("a subscriber is both ends of a call");
            }
            for place in [call.caller, call.callee] {
                parties[usize::from(place)] += 1;
                if self.path(usize::from(place)) != Some(path) {
                    return Err("a call's subscriber is not on that call");
                }
            }
            if call.answered && call.pulses != call.tariff.pulses(call.metered) {
                return Err("a call's pulses do not fit its connected time");
            }
            if !call.answered && call.pulses != 0 {
                return Err("a call costs before it is answered");
            }
        }
        for (place, subscriber) in self.subscribers.iter().enumerate() {
            let Some(subscriber) = subscriber else {
                continue;
            };
            if parties[place] != u8::from(subscriber.call.is_some()) {
                return Err("a subscriber is on more than one call, or on a call that is not");
            }
            if subscriber.busy && subscriber.call.is_some() {
                return Err("a subscriber hears the busy tone during a call");
            }
            if self.find(subscriber.number) != Ok(place) {
                return Err("two subscribers have one number");
            }
        }
        Ok(())
    }
}

impl Default for Exchange {
    fn default() -> Self {
        Self::new()
    }
}
