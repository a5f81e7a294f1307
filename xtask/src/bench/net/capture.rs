//! What the hypervisor's own capture says of questions to the exchange: when each went through the switch, and its answer.
//!
//! Source: the Internet draft "PCAP Capture File Format" (draft-ietf-opsawg-pcap), little-endian, with nanoseconds.

use anyhow::{Context, Result, ensure};
use protocol::{Answer, PORT, Question};
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv4Message, Icmpv4Packet, IpProtocol, Ipv4Packet, UdpPacket,
};
use std::collections::BTreeMap;

/// Bytes of the file's header and of a record's.
const HEADER: usize = 24;
const RECORD: usize = 16;
/// Nanoseconds, and Ethernet.
const MAGIC: u32 = 0xA1B2_3C4D;
const ETHERNET: u32 = 1;

/// A captured frame, in ticks since the board's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    ticks: u64,
    frame: &'a [u8],
}

/// What a frame is to the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Question(u32),
    Answer(u32),
    Ping,
}

/// When a question came, and when its answer went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub came: u64,
    pub went: u64,
}

/// What one capture tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// By the questions' numbers: the first time that each came, and its first answer.
    pub pairs: BTreeMap<u32, Pair>,
    /// When pings came, in their order.
    pub pings: Vec<u64>,
}

/// Reads a file whose board counts so many ticks a second.
///
/// # Errors
///
/// Where it is no such file, or ends within a record.
pub(super) fn read(file: &[u8], ticks_per_second: u64) -> Result<Vec<Record<'_>>> {
    let word = |at: usize| {
        let bytes = file.get(at..)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*bytes))
    };
    ensure!(
        word(0) == Some(MAGIC) && word(20) == Some(ETHERNET),
        "that is no capture of Ethernet frames with nanoseconds"
    );
    let mut records = Vec::new();
    let mut at = HEADER;
    while at < file.len() {
        let field = |number: usize| word(at + 4 * number).context("a record's header is cut off");
        let (seconds, nanoseconds, kept) = (field(0)?, field(1)?, field(2)? as usize);
        field(3)?;
        at += RECORD;
        let frame = file.get(at..).and_then(|rest| rest.get(..kept));
        records.push(Record {
            ticks: ticks(seconds, nanoseconds, ticks_per_second),
            frame: frame.context("a record is cut off")?,
        });
        at += kept;
    }
    Ok(records)
}

/// To the nearest tick.
fn ticks(seconds: u32, nanoseconds: u32, per_second: u64) -> u64 {
    const SECOND: u64 = 1_000_000_000;
    let time = u128::from(u64::from(seconds) * SECOND + u64::from(nanoseconds));
    ((time * u128::from(per_second) + u128::from(SECOND / 2)) / u128::from(SECOND)) as u64
}

/// What a frame is, if it is a client's question to the exchange, an answer to it, or anybody's ping.
fn kind(frame: &[u8], client: u32) -> Option<Kind> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    match packet.next_header() {
        IpProtocol::Icmp => {
            let ping = Icmpv4Packet::new_checked(packet.payload()).ok()?;
            (ping.msg_type() == Icmpv4Message::EchoRequest).then_some(Kind::Ping)
        }
        IpProtocol::Udp => {
            let datagram = UdpPacket::new_checked(packet.payload()).ok()?;
            let question = || Question::decode(datagram.payload()).ok();
            let answer = || Answer::decode(datagram.payload()).ok();
            if datagram.dst_port() == PORT {
                let question = question().filter(|question| question.client == client)?;
                Some(Kind::Question(question.number))
            } else if datagram.src_port() == PORT {
                let answer = answer().filter(|answer| answer.client == client)?;
                Some(Kind::Answer(answer.number))
            } else {
                None
            }
        }
        _ => None,
    }
}

/// Pairs a client's questions with their answers. What comes without its other half is left out.
pub(super) fn pair(records: &[Record<'_>], client: u32) -> Told {
    let mut told = Told::default();
    let mut open = BTreeMap::new();
    for record in records {
        match kind(record.frame, client) {
            Some(Kind::Question(number)) => {
                open.entry(number).or_insert(record.ticks);
            }
            Some(Kind::Answer(number)) => {
                if let Some(came) = open.get(&number) {
                    told.pairs.entry(number).or_insert(Pair {
                        came: *came,
                        went: record.ticks,
                    });
                }
            }
            Some(Kind::Ping) => told.pings.push(record.ticks),
            None => {}
        }
    }
    told
}

/// The offset of the earliest of these times in periods of a length, as they all come soon after a period's beginning: the one
/// behind the widest gap.
pub(super) fn earliest(times: impl Iterator<Item = u64>, period: u64) -> Option<u64> {
    let mut offsets: Vec<_> = times.map(|time| time % period).collect();
    offsets.sort_unstable();
    let last = *offsets.last()?;
    // The gap before each, the first one's from the last of the period before.
    let before = std::iter::once(last.wrapping_sub(period)).chain(offsets.iter().copied());
    let gaps = before
        .zip(&offsets)
        .map(|(one, other)| (other.wrapping_sub(one), *other));
    gaps.max_by_key(|(gap, _)| *gap).map(|(_, offset)| offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;
    use protocol::{Operation, Outcome, Totals};

    const CLIENT: u32 = 7;
    const HZ: u64 = 50_000_000;

    fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(source, destination)
            .write(&mut frame, payload)
            .unwrap();
        frame
    }

    fn question(client: u32, number: u32) -> Vec<u8> {
        let operation = Operation::Totals;
        let question = Question {
            client,
            number,
            operation,
        };
        udp(50_000, PORT, &question.encode())
    }

    fn answer(client: u32, number: u32) -> Vec<u8> {
        let outcome = Outcome::Totals(Totals::default());
        let answer = Answer {
            client,
            number,
            outcome,
        };
        udp(PORT, 50_000, &answer.encode())
    }

    fn ping() -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .icmpv4_echo_request(1, 2)
            .write(&mut frame, &[])
            .unwrap();
        frame
    }

    /// A file with frames at these ticks of 20 ns.
    fn file(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let mut capture = ::net::Capture::new(1 << 16);
        for (ticks, frame) in frames {
            capture.push(ticks * 20, frame.len(), |into| {
                into.copy_from_slice(frame);
                into.len()
            });
        }
        let mut file = Vec::new();
        capture.write(|bytes| file.extend(bytes));
        file
    }

    #[test]
    fn questions_find_their_answers() {
        let file = file(&[
            (100, question(CLIENT, 1)),
            (150, ping()),
            (200, question(8, 1)),
            (300, answer(8, 1)),
            (70_000_000, answer(CLIENT, 1)),
            // Asked twice, and answered twice.
            (70_000_100, question(CLIENT, 2)),
            (70_000_200, question(CLIENT, 2)),
            (70_000_300, answer(CLIENT, 2)),
            (70_000_400, answer(CLIENT, 2)),
            // One half only.
            (70_000_500, answer(CLIENT, 3)),
            (70_000_600, question(CLIENT, 3)),
            (70_000_700, udp(1, 2, b"nothing")),
            (70_000_800, vec![0; 14]),
        ]);
        let told = pair(&read(&file, HZ).unwrap(), CLIENT);
        let pair = |came, went| Pair { came, went };
        let expected = [
            (1, pair(100, 70_000_000)),
            (2, pair(70_000_100, 70_000_300)),
        ];
        assert_eq!(told.pairs, BTreeMap::from(expected));
        assert_eq!(told.pings, [150]);
    }

    #[test]
    fn what_is_no_whole_capture_is_refused() {
        let whole = file(&[(1, ping())]);
        assert_eq!(read(&whole, HZ).unwrap().len(), 1);
        assert_eq!(read(&whole[..HEADER], HZ).unwrap(), []);
        for length in (0..HEADER).chain(HEADER + 1..whole.len()) {
            assert!(read(&whole[..length], HZ).is_err(), "{length}");
        }
        let mut other = whole;
        other[0] ^= 1;
        assert!(read(&other, HZ).is_err());
    }

    #[test]
    fn the_earliest_is_behind_the_widest_gap() {
        let earliest = |times: &[u64]| earliest(times.iter().copied(), 100);
        assert_eq!(earliest(&[]), None);
        assert_eq!(earliest(&[730]), Some(30));
        assert_eq!(earliest(&[110, 215, 320]), Some(10));
        // Across the period's end.
        assert_eq!(earliest(&[190, 302, 405]), Some(90));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = read(&bytes, HZ);
            let header = &file(&[])[..HEADER];
            if let Ok(records) = read(&[header, &bytes].concat(), HZ) {
                pair(&records, CLIENT);
            }
            kind(&bytes, CLIENT);
        }

        #[test]
        fn offsets_are_found_wherever_periods_begin(
            start in 0_u64..1000,
            spread in prop::collection::vec(0_u64..400, 1..50),
        ) {
            let first = spread.iter().min().copied().unwrap_or(0);
            let times = spread.iter().zip(0..).map(|(late, number)| start + 1000 * number + late);
            prop_assert_eq!(earliest(times, 1000), Some((start + first) % 1000));
        }
    }
}
