//! A flood of pings for the RTOS, from the far ends of wires.
//!
//! The emulator takes one frame from each card's socket each millisecond of the board's time, from all of them at once. So that is the
//! flood: each millisecond as many pings as wires send. So many are under way at any time that one waits in each socket
//! whenever it is looked at, however fast the board runs for the clock on the wall, and so few that none is lost there.

use crate::emulator::{CardModel, NetworkCard};
use crate::wire::{Tap, Wire};
use anyhow::{Result, bail};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};

/// All stations: Bochs gives its cards no other frames but those for the card itself.
const ALL: [u8; 6] = [0xff; 6];
/// The RTOS's address on the flood's boards.
pub(super) const RTOS: [u8; 4] = [10, 0, 0, 2];
/// EtherTypes.
const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
/// Bytes of the smallest frame, without its checksum.
const FRAME_MIN: usize = 60;
/// Pings under way on a wire: those of a tenth of a second. Three times as many would not fit into a socket's buffer.
const UNDER_WAY: u32 = 100;
/// How long an answer is waited for. A board that is slow for once is not given up.
const PATIENCE: Duration = Duration::from_millis(500);

/// The uplinks of a board file that have these cards.
pub(super) fn uplinks(cards: impl Iterator<Item = u8>) -> String {
    let mut text = String::new();
    for card in cards {
        let _ = writeln!(
            text,
            "[[uplink]]\nname = \"flood-{card}\"\ncard = \"52:54:00:00:00:{card:02x}\"\n"
        );
    }
    text
}

/// The wires, each with a card of the board's and a station that sends.
pub(super) struct Flood(Vec<(Wire, NetworkCard, Source)>);

/// A station that sends.
struct Source {
    tap: Tap,
    mac: [u8; 6],
    address: [u8; 4],
}

impl Flood {
    /// Lays the wires of cards with these numbers, which are the last bytes of their MAC addresses.
    ///
    /// # Errors
    ///
    /// Where this host has no room for them.
    pub(super) fn lay(cards: impl Iterator<Item = u8>) -> Result<Self> {
        let lay = |number| {
            let wire = Wire::lay()?;
            let card = NetworkCard::on(&wire, CardModel::E1000, number)?;
            let source = Source::new(wire.tap(), number);
            Ok((wire, card, source))
        };
        cards.map(lay).collect::<Result<_>>().map(Self)
    }

    /// The cards for the board.
    pub(super) fn cards(&self) -> impl Iterator<Item = NetworkCard> {
        self.0.iter().map(|(_, card, _)| *card)
    }

    /// Makes the RTOS know who sends on the first `count` wires, without which it answers no ping.
    ///
    /// # Errors
    ///
    /// Where it does not answer in time.
    pub(super) fn meet(&self, count: usize, timeout: Duration) -> Result<()> {
        let mut sources = self.0.iter().take(count);
        sources.try_for_each(|(_, _, source)| source.meet(timeout))
    }

    /// Keeps pings under way on the first `count` wires until it is told to stop.
    pub(super) fn run<'scope>(
        &'scope self,
        count: usize,
        scope: &'scope Scope<'scope, '_>,
        over: &'scope AtomicBool,
    ) {
        for (_, _, source) in self.0.iter().take(count) {
            scope.spawn(|| source.run(over));
        }
    }
}

impl Source {
    fn new(tap: Tap, number: u8) -> Self {
        Self {
            tap,
            mac: [0x52, 0x54, 0, 0, 2, number],
            address: [10, 0, 0, 100 + number],
        }
    }

    fn frame(&self, ether_type: [u8; 2], payload: &[u8]) -> Vec<u8> {
        let mut frame = [&ALL[..], &self.mac, &ether_type, payload].concat();
        frame.resize(FRAME_MIN, 0);
        frame
    }

    /// A ping for the RTOS: IPv4 (RFC 791), 28 bytes, with its checksum; ICMP echo (RFC 792) without data.
    fn ping(&self) -> Vec<u8> {
        let mut header = [
            &[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0][..],
            &self.address,
            &RTOS,
        ]
        .concat();
        let sum: u32 = header
            .chunks_exact(2)
            .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
            .sum();
        let checksum = !((sum >> 16) + sum) as u16;
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header.extend([8, 0, 0xF7, 0xFF, 0, 0, 0, 0]);
        self.frame(IPV4, &header)
    }

    /// The question for the RTOS's MAC address (ARP, RFC 826).
    fn question(&self) -> Vec<u8> {
        let head = [0, 1, 8, 0, 6, 4, 0, 1];
        let question = [&head[..], &self.mac, &self.address, &[0; 6], &RTOS].concat();
        self.frame(ARP, &question)
    }

    fn is_for_us(&self, frame: &[u8], ether_type: [u8; 2]) -> bool {
        frame.starts_with(&self.mac) && frame.get(12..14) == Some(&ether_type)
    }

    /// Whether a frame answers a ping: an ICMP echo reply.
    fn is_answer(&self, frame: &[u8]) -> bool {
        self.is_for_us(frame, IPV4) && frame.get(23) == Some(&1) && frame.get(34) == Some(&0)
    }

    fn meet(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            self.tap.send(&self.question());
            let answered = self
                .tap
                .find(PATIENCE, |frame| self.is_for_us(frame, ARP).then_some(()));
            if answered.is_some() {
                return Ok(());
            }
        }
        bail!("the RTOS does not answer on the network")
    }

    fn run(&self, over: &AtomicBool) {
        let ping = self.ping();
        let mut under_way = 0;
        while !over.load(Ordering::Relaxed) {
            while under_way < UNDER_WAY {
                self.tap.send(&ping);
                under_way += 1;
            }
            let answered = self
                .tap
                .find(PATIENCE, |frame| self.is_answer(frame).then_some(()));
            // Those that are lost are replaced.
            under_way = answered.map_or(0, |()| under_way - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn the_flood_is_of_pings() {
        let wire = Wire::lay().unwrap();
        for number in [1, 4] {
            let frame = Source::new(wire.tap(), number).ping();
            assert_eq!(frame.len(), FRAME_MIN);
            let sliced = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(etherparse::NetSlice::Ipv4(packet)) = &sliced.net else {
                panic!("no IPv4: {sliced:?}");
            };
            let header = packet.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            let Some(etherparse::TransportSlice::Icmpv4(icmp)) = &sliced.transport else {
                panic!("no ICMP: {sliced:?}");
            };
            let (header, data) = (icmp.header(), icmp.payload());
            let right = etherparse::Icmpv4Header::with_checksum(header.icmp_type.clone(), data);
            assert_eq!(header, right);
        }
    }

    /// The answer to a ping, or to the question for the address, as far as the source looks at it.
    fn answer(mut frame: Vec<u8>) -> Vec<u8> {
        let (to, from) = frame.split_at_mut(6);
        to.copy_from_slice(&from[..6]);
        if frame[12..14] == IPV4 {
            frame[34] = 0;
        }
        frame
    }

    #[test]
    fn no_more_pings_are_under_way_than_fit() {
        const ANSWERS: u32 = 1000;
        let wire = Wire::lay().unwrap();
        let source = Source::new(wire.tap(), 1);
        let board = wire.tap();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                source.meet(PATIENCE * 20).unwrap();
                source.run(&over);
            });
            for _ in 0..=ANSWERS {
                let frame = board.receive(PATIENCE * 20).unwrap();
                board.send(&answer(frame));
            }
            over.store(true, Ordering::Relaxed);
        });
        let left = std::iter::from_fn(|| board.receive(Duration::ZERO)).count();
        assert!(left <= UNDER_WAY as usize, "{left}");
    }

    #[test]
    fn a_silent_board_is_not_waited_for_without_end() {
        let wire = Wire::lay().unwrap();
        let source = Source::new(wire.tap(), 1);
        assert!(source.meet(Duration::ZERO).is_err());
    }
}
