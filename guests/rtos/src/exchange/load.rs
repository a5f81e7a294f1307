//! A load: random calls among subscribers of its own, the same for the same seed.

use core::fmt::{self, Display, Formatter};

use super::{Error, Exchange, Line, Number, Reply, Request};

/// The subscribers of a load, from this number on.
const FIRST: u32 = 40_000;
const COUNT: u32 = 64;
/// The invariants are checked after so many operations.
const CHECK_EVERY: u64 = 64;

/// What came of a load.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Summary {
    /// Calls made: the sum of the next three.
    pub calls: u64,
    /// Calls that were answered.
    pub answered: u64,
    /// Calls that met the busy tone.
    pub busy: u64,
    /// Calls given up before the answer.
    pub abandoned: u64,
    /// Operations on the exchange.
    pub operations: u64,
    /// Pulses of the calls that were answered.
    pub pulses: u64,
}

/// Calls still to be made, and what came of the others.
#[derive(Clone, Debug)]
pub struct Load {
    random: u32,
    left: u64,
    clearing: u32,
    summary: Summary,
}

impl Load {
    /// Puts the load's subscribers into service.
    ///
    /// # Errors
    /// If the exchange has no room for them.
    pub fn new(exchange: &mut Exchange, calls: u64, seed: u32) -> Result<Self, Error> {
        for number in (FIRST..FIRST + COUNT).filter_map(Number::new) {
            match exchange.handle(0, Request::Register(number)) {
                Ok(_) | Err(Error::Taken(_)) => {}
                Err(error) => return Err(error),
            }
        }
        // The generator must not start from zero.
        Ok(Self {
            random: seed | 1 << 31,
            left: calls,
            clearing: 0,
            summary: Summary::default(),
        })
    }

    fn draw(&mut self, below: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.random % below
    }

    /// Does the next operation; the summary once all is done and every line is idle again.
    ///
    /// # Errors
    /// What is wrong with the exchange.
    pub fn step(
        &mut self,
        exchange: &mut Exchange,
        now: u64,
    ) -> Result<Option<Summary>, &'static str> {
        if self.summary.operations.is_multiple_of(CHECK_EVERY) {
            exchange.check()?;
        }
        let number = if self.left > 0 {
            FIRST + self.draw(COUNT)
        } else if self.clearing < COUNT {
            self.clearing += 1;
            FIRST + self.clearing - 1
        } else {
            exchange.check()?;
            return Ok(Some(self.summary));
        };
        let number = Number::new(number).ok_or("a subscriber has no number")?;
        let line = exchange.line(number).ok_or("a subscriber has gone")?;
        let request = match (line, self.left > 0) {
            (Line::Idle, true) if self.draw(3) == 0 => {
                let other = FIRST + (number.get() - FIRST + 1 + self.draw(COUNT - 1)) % COUNT;
                let other = Number::new(other).ok_or("a subscriber has no number")?;
                Request::Call(number, other)
            }
            (Line::Idle, false) => return Ok(None),
            (Line::Dialling, true) if self.draw(4) > 0 => Request::Status(number),
            (Line::Ringing, true) if self.draw(4) > 0 => Request::Answer(number),
            (Line::Idle, true) => Request::Status(number),
            (Line::Connected, true) if self.draw(3) > 0 => Request::Status(number),
            _ => Request::Clear(number),
        };
        self.summary.operations += 1;
        let reply = exchange
            .handle(now, request)
            .map_err(|_| "a request that fits the line was refused")?;
        self.count(line, reply);
        Ok(None)
    }

    fn count(&mut self, line: Line, reply: Reply) {
        let summary = &mut self.summary;
        match reply {
            Reply::Ringing(..) => {
                summary.calls += 1;
                self.left -= 1;
            }
            Reply::Busy(..) => {
                summary.calls += 1;
                summary.busy += 1;
                self.left -= 1;
            }
            Reply::Connected(..) => summary.answered += 1,
            Reply::Cleared(_, Some(pulses)) => summary.pulses += pulses,
            Reply::Cleared(_, None) if line != Line::Busy => summary.abandoned += 1,
            _ => {}
        }
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            calls,
            answered,
            busy,
            abandoned,
            operations,
            pulses,
        } = self;
        write!(
            f,
            "{calls} calls: {answered} answered, {busy} busy, {abandoned} abandoned; \
             {operations} operations, {pulses} pulses"
        )
    }
}
