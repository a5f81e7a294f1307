//! Callers that ask an exchange without end, and write all of it into a ledger.

use super::Ledger;
use super::second::Second;
use crate::client::{Client, UdpPort};
use anyhow::{Context, Result, bail};
use protocol::{Number, Operation, Outcome, Question, Request};
use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What is asked, of whom, and how fast.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// The exchange.
    pub(crate) exchange: SocketAddrV4,
    /// Callers, each with two subscribers: 1 to [`protocol::CLIENTS`].
    pub(crate) callers: u32,
    /// The identity of the first caller; the others follow.
    pub(crate) identity: u32,
    /// The number of the first subscriber; the others follow.
    pub(crate) subscriber: u32,
    /// How long a caller waits between an answer and its next question.
    pub(crate) pause: Duration,
    /// How long an answer is waited for before the question is sent again.
    pub(crate) wait: Duration,
}

/// Callers at work. Dropping them ends that.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Caller>>,
    /// Those that are not at work any more.
    idle: Vec<Caller>,
}

#[derive(Debug)]
struct Shared {
    plan: Plan,
    start: Instant,
    ledger: Mutex<Ledger>,
    /// No new question is asked any more, and none is waited for longer than until then.
    give_up: Mutex<Option<Instant>>,
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_up(&self) -> MutexGuard<'_, Option<Instant>> {
        self.give_up.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Load {
    /// Starts the callers.
    ///
    /// # Errors
    ///
    /// Where a number is no subscriber's, or no thread can be started.
    pub(crate) fn start(station: &Client, plan: Plan) -> Result<Self> {
        let shared = Arc::new(Shared {
            plan,
            start: Instant::now(),
            ledger: Mutex::default(),
            give_up: Mutex::default(),
        });
        let mut load = Self {
            shared: Arc::clone(&shared),
            threads: Vec::new(),
            idle: Vec::new(),
        };
        for index in 0..plan.callers {
            let subscriber = |more| {
                let number = Number::new(plan.subscriber + 2 * index + more);
                number.context("no subscriber's number")
            };
            let mut caller = Caller {
                shared: Arc::clone(&shared),
                port: station.udp(None)?,
                identity: plan.identity + index,
                number: 0,
                own: subscriber(0)?,
                other: subscriber(1)?,
            };
            let thread = thread::Builder::new().name("caller".into());
            let work = move || {
                caller.work();
                caller
            };
            let thread = thread.spawn(work).context("cannot start a thread")?;
            load.threads.push(thread);
        }
        Ok(load)
    }

    /// How the exchange answered within the last stretch of time.
    pub(crate) fn second(&self, length: Duration) -> Second {
        let now = self.shared.start.elapsed();
        self.shared.ledger().second(now.saturating_sub(length), now)
    }

    /// Lets the callers ask nothing new, and waits so long for the answers that are due.
    ///
    /// # Errors
    ///
    /// Where a caller failed.
    pub(crate) fn halt(&mut self, patience: Duration) -> Result<()> {
        *self.shared.give_up() = Some(Instant::now() + patience);
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(caller) => self.idle.push(caller),
                Err(_) => bail!("a caller panicked"),
            }
        }
        Ok(())
    }

    /// Asks for everything that the exchange knows of the callers, which must have been halted: each one's last question
    /// again, lines and meters.
    ///
    /// # Errors
    ///
    /// Where it does not answer for so long.
    pub(crate) fn inspect(&mut self, patience: Duration) -> Result<()> {
        *self.shared.give_up() = Some(Instant::now() + patience);
        self.idle.iter_mut().try_for_each(Caller::inspect)
    }

    /// The same, and last the totals, where nobody else asks the exchange.
    ///
    /// # Errors
    ///
    /// As [`Self::inspect`].
    pub(crate) fn inspect_all(&mut self, patience: Duration) -> Result<()> {
        self.inspect(patience)?;
        match self.idle.first_mut() {
            Some(caller) => caller.told(Operation::Totals),
            None => Ok(()),
        }
    }

    /// A copy of all that was asked and answered so far.
    pub(crate) fn ledger(&self) -> Ledger {
        self.shared.ledger().clone()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // The callers give up at once; a caller's own failure matters to nobody any more.
        let _ = self.halt(Duration::ZERO);
    }
}

/// A client with two subscribers, one of whom calls the other.
#[derive(Debug)]
struct Caller {
    shared: Arc<Shared>,
    port: UdpPort,
    identity: u32,
    /// Of the last question.
    number: u32,
    own: Number,
    other: Number,
}

impl Caller {
    /// Makes calls until nothing new is to be asked.
    fn work(&mut self) {
        let (own, other) = (self.own, self.other);
        let prepare = [Request::Register(own), Request::Register(other)];
        let call = [
            Request::Call(own, other),
            Request::Status(other),
            Request::Answer(other),
            Request::Status(own),
            Request::Clear(own),
            Request::Charging(own),
        ];
        for request in prepare.into_iter().chain(call.into_iter().cycle()) {
            if self.shared.give_up().is_some() {
                break;
            }
            self.ask(Operation::Exchange(request));
            thread::sleep(self.shared.plan.pause);
        }
    }

    /// Asks the next question; none if it is given up.
    fn ask(&mut self, operation: Operation) -> Option<Outcome> {
        self.number = self.number.wrapping_add(1);
        self.send(Question {
            client: self.identity,
            number: self.number,
            operation,
        })
    }

    /// Sends a question until it is answered.
    fn send(&self, question: Question) -> Option<Outcome> {
        let Shared { plan, start, .. } = &*self.shared;
        loop {
            self.shared.ledger().asked(start.elapsed(), question);
            // What finds no room is lost, as any datagram may be.
            let _ = self.port.send_to(&question.encode(), plan.exchange);
            let deadline = Instant::now() + plan.wait;
            let left = || deadline.saturating_duration_since(Instant::now());
            while let Some((bytes, from)) = self.port.receive(left()) {
                if from != plan.exchange {
                    continue;
                }
                let heard = self.shared.ledger().heard(start.elapsed(), &bytes);
                if let Some(answer) = heard
                    && answer.number == question.number
                {
                    return Some(answer.outcome);
                }
            }
            if self
                .shared
                .give_up()
                .is_some_and(|time| Instant::now() >= time)
            {
                return None;
            }
        }
    }

    /// Asks for the state of what it has used.
    fn inspect(&mut self) -> Result<()> {
        // The server must still know what it answered last, and must not do it again.
        if let Some(last) = self.last()
            && self.send(last).is_none()
        {
            bail!("the exchange does not answer");
        }
        for request in [
            Request::Status(self.own),
            Request::Status(self.other),
            Request::Charging(self.own),
            Request::Charging(self.other),
        ] {
            self.told(Operation::Exchange(request))?;
        }
        Ok(())
    }

    fn last(&self) -> Option<Question> {
        let ledger = self.shared.ledger();
        let mut entries = ledger.entries.iter().rev();
        let last = entries.find(|entry| entry.question.client == self.identity)?;
        Some(last.question)
    }

    fn told(&mut self, operation: Operation) -> Result<()> {
        match self.ask(operation) {
            Some(_) => Ok(()),
            None => bail!("the exchange does not answer"),
        }
    }
}
