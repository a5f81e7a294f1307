//! A flood of pings for the RTOS, from the far end of a wire.
//!
//! The emulator takes one frame from its socket each millisecond of the board's time, so that is the flood's rate, however fast the board
//! runs for the clock on the wall: so many pings are under way at any time that one waits in the socket whenever it is looked
//! at, and so few that none is lost there.

use crate::wire::Tap;
use anyhow::{Result, bail};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The last byte of the address of the card and of the RTOS: Bochs gives its card no frames but those for the card itself. The switch does
/// not mind.
pub(super) const CARD: u8 = 1;
/// The RTOS's addresses.
const RTOS: [u8; 6] = [0x52, 0x54, 0, 0, 0, CARD];
pub(super) const RTOS_IP: [u8; 4] = [10, 0, 0, 2];
/// The far end's addresses.
const STATION: [u8; 6] = [0x52, 0x54, 0, 0, 2, 1];
const STATION_IP: [u8; 4] = [10, 0, 0, 9];
/// EtherTypes.
const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
/// Bytes of the smallest frame, without its checksum.
const FRAME_MIN: usize = 60;
/// Pings under way: a tenth of a second's. Twice as many would not fit into a socket's buffer.
const UNDER_WAY: u32 = 100;
/// How long an answer is waited for. A board that is slow for once is not given up.
const PATIENCE: Duration = Duration::from_millis(500);

fn frame(ether_type: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let mut frame = [&RTOS[..], &STATION, &ether_type, payload].concat();
    frame.resize(FRAME_MIN, 0);
    frame
}

/// A ping for the RTOS: IPv4 (RFC 791), 28 bytes, with its checksum; ICMP echo (RFC 792) without data.
fn ping() -> Vec<u8> {
    let header = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0x66, 0xD7];
    let echo = [8, 0, 0xF7, 0xFF, 0, 0, 0, 0];
    frame(IPV4, &[&header[..], &STATION_IP, &RTOS_IP, &echo].concat())
}

/// Whether a frame answers a ping: an ICMP echo reply for the far end.
fn is_answer(frame: &[u8]) -> bool {
    frame.starts_with(&STATION)
        && frame.get(12..14) == Some(&IPV4)
        && frame.get(23) == Some(&1)
        && frame.get(34) == Some(&0)
}

/// Makes the RTOS know the far end, without which it answers no ping: asks for its address (ARP, RFC 826) until it answers.
///
/// # Errors
///
/// Where it does not in time.
pub(super) fn meet(tap: &Tap, timeout: Duration) -> Result<()> {
    let head = [0, 1, 8, 0, 6, 4, 0, 1];
    let question = [&head[..], &STATION, &STATION_IP, &[0; 6], &RTOS_IP].concat();
    let deadline = Instant::now() + timeout;
    while Instant::now() < deadline {
        tap.send(&frame(ARP, &question));
        let answered = tap.find(PATIENCE, |frame| {
            (frame.starts_with(&STATION) && frame.get(12..14) == Some(&ARP)).then_some(())
        });
        if answered.is_some() {
            return Ok(());
        }
    }
    bail!("the RTOS does not answer on the network")
}

/// Keeps pings under way until it is told to stop.
pub(super) fn run(tap: &Tap, over: &AtomicBool) {
    let ping = ping();
    let mut under_way = 0;
    while !over.load(Ordering::Relaxed) {
        while under_way < UNDER_WAY {
            tap.send(&ping);
            under_way += 1;
        }
        // Those that are lost are replaced.
        let answered = tap.find(PATIENCE, |frame| is_answer(frame).then_some(()));
        under_way = answered.map_or(0, |()| under_way - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Wire;
    use std::thread;

    #[test]
    fn the_flood_is_of_pings() {
        let frame = ping();
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

    /// The frame, as an answer: of the kind 0, and the other way.
    fn answered(mut frame: Vec<u8>) -> Vec<u8> {
        frame[..6].copy_from_slice(&STATION);
        frame[6..12].copy_from_slice(&RTOS);
        if frame[12..14] == IPV4 {
            frame[34] = 0;
        }
        frame
    }

    #[test]
    fn no_more_pings_are_under_way_than_fit() {
        const ANSWERS: u32 = 1000;
        let wire = Wire::lay().unwrap();
        let [own, board] = [wire.tap(), wire.tap()];
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                meet(&own, PATIENCE * 20).unwrap();
                run(&own, &over);
            });
            for _ in 0..=ANSWERS {
                let frame = board.receive(PATIENCE * 20).unwrap();
                board.send(&answered(frame));
            }
            over.store(true, Ordering::Relaxed);
        });
        let left = std::iter::from_fn(|| board.receive(Duration::ZERO)).count();
        assert!((1..=UNDER_WAY as usize).contains(&left), "{left}");
    }

    #[test]
    fn a_silent_board_is_not_waited_for_without_end() {
        let wire = Wire::lay().unwrap();
        let tap = wire.tap();
        assert!(meet(&tap, Duration::ZERO).is_err());
    }
}
