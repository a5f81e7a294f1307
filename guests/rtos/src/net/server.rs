//! The UDP server of the exchange: executes each question once, whatever the network does with it; see [`protocol`].

use protocol::{Answer, CLIENTS, Datagram, MEMORY, Operation, Outcome, Question, Totals, is_later};

use crate::exchange::Exchange;

/// A client that is remembered.
#[derive(Clone, Copy, Debug)]
struct Client {
    address: [u8; 4],
    identity: u32,
    /// The number of its last question, and what was answered.
    number: u32,
    answer: Datagram,
    /// When it was last heard of, in milliseconds.
    heard: u64,
}

/// What the server has done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Questions executed.
    pub executed: u64,
    /// Questions answered again.
    pub duplicates: u64,
    /// Questions that came after a later one.
    pub outdated: u64,
    /// Datagrams that are no questions.
    pub malformed: u64,
    /// Questions of clients for which there was no room.
    pub crowded: u64,
}

/// The server.
#[derive(Clone, Debug)]
pub struct Server {
    clients: [Option<Client>; CLIENTS],
    counters: Counters,
}

impl Server {
    /// A server that knows nobody.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            clients: [None; CLIENTS],
            counters: Counters {
                executed: 0,
                duplicates: 0,
                outdated: 0,
                malformed: 0,
                crowded: 0,
            },
        }
    }

    /// What it has done.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes a datagram from an IPv4 address at a time in milliseconds that never runs backwards; the answer, if it gets
    /// one.
    pub fn serve(
        &mut self,
        now: u64,
        address: [u8; 4],
        datagram: &[u8],
        exchange: &mut Exchange,
    ) -> Option<Datagram> {
        let Ok(question) = Question::decode(datagram) else {
            self.counters.malformed += 1;
            return None;
        };
        let place = match self.find(address, question.client) {
            Some((place, client)) => {
                client.heard = now;
                if question.number == client.number {
                    let answer = client.answer;
                    self.counters.duplicates += 1;
                    return Some(answer);
                }
                if !is_later(question.number, client.number) {
                    self.counters.outdated += 1;
                    return None;
                }
                place
            }
            None => match self.room(now) {
                Some(place) => place,
                None => {
                    self.counters.crowded += 1;
                    return Some(answer(question, Outcome::Crowded));
                }
            },
        };
        self.counters.executed += 1;
        let outcome = match question.operation {
            Operation::Exchange(request) => exchange.handle(now, request).into(),
            Operation::Totals => Outcome::Totals(self.totals(now, exchange)),
        };
        let answer = answer(question, outcome);
        self.clients[place] = Some(Client {
            address,
            identity: question.client,
            number: question.number,
            answer,
            heard: now,
        });
        Some(answer)
    }

    fn find(&mut self, address: [u8; 4], identity: u32) -> Option<(usize, &mut Client)> {
        let mut known = (0..).zip(&mut self.clients);
        known.find_map(|(place, client)| {
            let client = client.as_mut()?;
            (client.address == address && client.identity == identity).then_some((place, client))
        })
    }

    /// A free place, or that of the client that has been silent for longest, if no copy of its last question can come
    /// any more.
    fn room(&self, now: u64) -> Option<usize> {
        let age = |client: &Option<Client>| {
            client.map_or(u64::MAX, |client| now.saturating_sub(client.heard))
        };
        let ages = self.clients.iter().map(age);
        let (place, age) = ages.enumerate().max_by_key(|&(_, age)| age)?;
        (age >= MEMORY).then_some(place)
    }

    fn totals(&self, now: u64, exchange: &Exchange) -> Totals {
        let Counters {
            executed,
            duplicates,
            outdated,
            malformed,
            crowded,
        } = self.counters;
        let (ringing, connected) = exchange.traffic();
        let usage = exchange.usage();
        Totals {
            uptime: now,
            executed,
            duplicates,
            outdated,
            malformed,
            crowded,
            subscribers: exchange.numbers().count() as u64,
            ringing: ringing as u64,
            connected: connected as u64,
            calls: usage.calls,
            pulses: usage.pulses,
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

fn answer(question: Question, outcome: Outcome) -> Datagram {
    let Question { client, number, .. } = question;
    let answer = Answer {
        client,
        number,
        outcome,
    };
    answer.encode()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::{
        Answer, CLIENTS, MEMORY, Number, Operation, Outcome, Question, Reply, Request, Totals,
    };

    use super::Server;
    use crate::exchange::{Error, Exchange};

    const HERE: [u8; 4] = [10, 0, 0, 1];
    const ELSEWHERE: [u8; 4] = [10, 0, 0, 3];

    struct World {
        server: Server,
        exchange: Exchange,
        now: u64,
    }

    impl World {
        fn new() -> Self {
            Self {
                server: Server::new(),
                exchange: Exchange::new(),
                now: 0,
            }
        }

        fn ask(
            &mut self,
            address: [u8; 4],
            client: u32,
            number: u32,
            operation: Operation,
        ) -> Option<Outcome> {
            let question = Question {
                client,
                number,
                operation,
            };
            let datagram = question.encode();
            let answer = self
                .server
                .serve(self.now, address, &datagram, &mut self.exchange)?;
            let answer = Answer::decode(&answer).unwrap();
            assert_eq!((answer.client, answer.number), (client, number));
            Some(answer.outcome)
        }

        fn register(&mut self, client: u32, number: u32, subscriber: u32) -> Option<Outcome> {
            let request = Request::Register(Number::new(subscriber).unwrap());
            self.ask(HERE, client, number, Operation::Exchange(request))
        }

        fn totals(&mut self, client: u32, number: u32) -> Totals {
            match self.ask(HERE, client, number, Operation::Totals) {
                Some(Outcome::Totals(totals)) => totals,
                other => panic!("{other:?}"),
            }
        }
    }

    fn registered(subscriber: u32) -> Option<Outcome> {
        let number = Number::new(subscriber).unwrap();
        Some(Outcome::Done(Reply::Registered(number)))
    }

    #[test]
    fn a_question_is_executed_once() {
        let mut world = World::new();
        assert_eq!(world.register(1, 7, 101), registered(101));
        // Executed again, it would be refused.
        assert_eq!(world.register(1, 7, 101), registered(101));
        let taken = Some(Outcome::Refused(Error::Taken(Number::new(101).unwrap())));
        assert_eq!(world.register(1, 8, 101), taken);
        // Another client, and the same identity at another address, are others.
        assert_eq!(world.register(2, 7, 101), taken);
        let totals = world.ask(ELSEWHERE, 1, 7, Operation::Totals);
        assert!(matches!(totals, Some(Outcome::Totals(_))));
        assert_eq!(world.register(1, 7, 101), None);
        let totals = world.totals(1, 9);
        assert_eq!(
            (totals.executed, totals.duplicates, totals.outdated),
            (5, 1, 1)
        );
        assert_eq!(totals.subscribers, 1);
    }

    #[test]
    fn numbers_wrap() {
        let mut world = World::new();
        assert_eq!(world.register(1, u32::MAX, 101), registered(101));
        assert_eq!(world.register(1, 0, 102), registered(102));
        assert_eq!(world.register(1, u32::MAX, 101), None);
    }

    #[test]
    fn garbage_gets_no_answer() {
        let mut world = World::new();
        for garbage in [&b""[..], b"LX20", &[0xff; 24], &[0; 1500]] {
            assert_eq!(
                world.server.serve(0, HERE, garbage, &mut world.exchange),
                None
            );
        }
        assert_eq!(world.totals(1, 1).malformed, 4);
    }

    #[test]
    fn clients_are_forgotten_only_when_they_have_long_been_silent() {
        let mut world = World::new();
        for client in 0..CLIENTS as u32 {
            assert_eq!(
                world.register(client, 1, 100 + client),
                registered(100 + client)
            );
        }
        world.now = MEMORY - 1;
        assert_eq!(world.register(1000, 1, 999), Some(Outcome::Crowded));
        // A copy keeps a client in mind.
        assert_eq!(world.register(0, 1, 100), registered(100));
        world.now = MEMORY;
        assert_eq!(world.register(1000, 1, 999), registered(999));
        assert_eq!(world.register(0, 1, 100), registered(100));
        assert_eq!(world.server.counters().crowded, 1);
    }

    proptest! {
        /// However a network repeats and delays questions, each is executed at most once, those that are answered
        /// exactly once, and all copies of an answer are alike.
        #[test]
        fn at_most_once(arrivals in prop::collection::vec((0_u32..4, 0_u32..20), 1..200)) {
            let mut world = World::new();
            let mut answers = std::collections::HashMap::new();
            for (client, number) in arrivals {
                let subscriber = 1 + client * 1000 + number;
                if let Some(outcome) = world.register(client, number, subscriber) {
                    prop_assert_eq!(Some(outcome), registered(subscriber));
                    answers.insert(subscriber, outcome);
                }
            }
            prop_assert_eq!(world.exchange.numbers().count(), answers.len());
            prop_assert_eq!(world.server.counters().executed, answers.len() as u64);
        }
    }
}
