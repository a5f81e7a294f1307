//! The exchange as its gateway asks it: one question at a time, again until it is answered.

use protocol::{ANSWER_LENGTH_MAX, Answer, Operation, Outcome, Question};
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// How long each attempt waits: a lost datagram costs little, a slow exchange is not pestered, and all of it ends before a
/// person gives up.
pub(super) const RETRY: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
];
/// For how long a silent exchange is taken for silent without another question.
const SILENCE: Duration = Duration::from_secs(1);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// It did not answer any attempt.
    Silent,
    /// It has no room for another client now.
    Crowded,
    /// The question cannot be sent, for instance because there is no network.
    Unsent(String),
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("the exchange does not answer"),
            Self::Crowded => f.write_str("the exchange has no room for another client"),
            Self::Unsent(reason) => write!(f, "the exchange cannot be asked: {reason}"),
        }
    }
}

/// What came of the questions so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Questions that were answered.
    pub(super) answered: u64,
    /// Those that were not.
    pub(super) unanswered: u64,
    /// Datagrams beyond the first of a question.
    pub(super) repeated: u64,
    /// How long an answer took at last, at least and at most, and all together.
    pub(super) last: Duration,
    pub(super) least: Duration,
    pub(super) most: Duration,
    pub(super) sum: Duration,
}

impl Counts {
    fn count(&mut self, took: Duration) {
        self.least = if self.answered == 0 {
            took
        } else {
            self.least.min(took)
        };
        self.most = self.most.max(took);
        self.last = took;
        self.sum += took;
        self.answered += 1;
    }

    /// How long an answer took on average.
    pub(super) fn mean(&self) -> Duration {
        let nanoseconds = self.sum.as_nanos() / u128::from(self.answered.max(1));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

/// The exchange.
#[derive(Debug)]
pub(super) struct Exchange {
    socket: UdpSocket,
    retry: [Duration; RETRY.len()],
    client: u32,
    /// Of the next question.
    number: u32,
    counts: Counts,
    silent_since: Option<Instant>,
}

impl Exchange {
    /// Asks at this address, and waits so long for each attempt.
    ///
    /// # Errors
    ///
    /// Where there is no socket.
    pub(super) fn new(address: SocketAddr, retry: [Duration; RETRY.len()]) -> io::Result<Self> {
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(address)?;
        let random = RandomState::new().build_hasher().finish();
        Ok(Self {
            socket,
            retry,
            client: random as u32,
            number: (random >> 32) as u32,
            counts: Counts::default(),
            silent_since: None,
        })
    }

    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    /// Asks.
    ///
    /// # Errors
    ///
    /// Where no answer comes. One that was silent within the last second is not asked again, so that who waits for the same
    /// does not wait for it in turn.
    pub(super) fn ask(&mut self, operation: Operation) -> Result<Outcome, Unanswered> {
        if self
            .silent_since
            .is_some_and(|since| since.elapsed() < SILENCE)
        {
            return Err(Unanswered::Silent);
        }
        let question = Question {
            client: self.client,
            number: self.number,
            operation,
        };
        self.number = self.number.wrapping_add(1);
        let start = Instant::now();
        let result = self.exchange(&question);
        self.silent_since = None;
        match &result {
            Ok(_) => self.counts.count(start.elapsed()),
            Err(error) => {
                self.counts.unanswered += 1;
                if *error == Unanswered::Silent {
                    self.silent_since = Some(Instant::now());
                }
            }
        }
        result
    }

    fn exchange(&mut self, question: &Question) -> Result<Outcome, Unanswered> {
        let unsent = |error: io::Error| Unanswered::Unsent(error.to_string());
        for (attempt, wait) in self.retry.into_iter().enumerate() {
            self.counts.repeated += u64::from(attempt > 0);
            match self.socket.send(&question.encode()) {
                Ok(_) => {}
                // This is about an earlier datagram.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(unsent(error)),
            }
            let deadline = Instant::now() + wait;
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                self.socket.set_read_timeout(Some(left)).map_err(unsent)?;
                // A longer datagram than any answer is cut here and found malformed.
                let mut buffer = [0; ANSWER_LENGTH_MAX + 1];
                // A time-out comes here, too, and so does the complaint that nobody listens.
                let Ok(length) = self.socket.recv(&mut buffer) else {
                    continue;
                };
                match Answer::decode(&buffer[..length]) {
                    Ok(answer)
                        if (answer.client, answer.number) == (question.client, question.number) =>
                    {
                        return match answer.outcome {
                            Outcome::Crowded => Err(Unanswered::Crowded),
                            outcome => Ok(outcome),
                        };
                    }
                    // Late, doubled or strange.
                    _ => {}
                }
            }
        }
        Err(Unanswered::Silent)
    }
}
