//! Questions in Ethernet frames, and their answers.
//!
//! An answer goes back to the card that sent the question, be it the client's or a router's. So nothing must be
//! resolved for it, and nobody who cannot be resolved holds up the answers to others: smoltcp's sockets send in order.

use protocol::{Datagram, PORT};
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Address,
        Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
    },
};

use super::{FRAME_MAX, Mac};

/// How many routers an answer may pass.
const HOP_LIMIT: u8 = 64;

/// Where we are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// Our card.
    pub mac: Mac,
    /// Our address.
    pub address: [u8; 4],
}

/// A datagram for the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Arrived<'a> {
    /// The card it came from.
    mac: Mac,
    /// The address of who sent it.
    pub address: [u8; 4],
    /// And the port.
    pub port: u16,
    /// What it says.
    pub payload: &'a [u8],
}

impl<'a> Arrived<'a> {
    /// Looks for a datagram to our card, our address and the server's port, from one place.
    #[must_use]
    pub fn find(frame: &'a [u8], us: Place) -> Option<Self> {
        let checksums = ChecksumCapabilities::default();
        let frame = EthernetFrame::new_checked(frame).ok()?;
        let EthernetRepr {
            src_addr: mac,
            dst_addr,
            ethertype,
        } = EthernetRepr::parse(&frame).ok()?;
        if ethertype != EthernetProtocol::Ipv4 || dst_addr.0 != us.mac || !mac.is_unicast() {
            return None;
        }
        let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
        let ip = Ipv4Repr::parse(&packet, &checksums).ok()?;
        let is_whole = !packet.more_frags() && packet.frag_offset() == 0;
        let from_one = !ip.src_addr.is_multicast()
            && !ip.src_addr.is_broadcast()
            && !ip.src_addr.is_unspecified()
            && ip.src_addr.octets() != us.address;
        let to_us = ip.dst_addr.octets() == us.address;
        if !(is_whole && from_one && to_us && ip.next_header == IpProtocol::Udp) {
            return None;
        }
        let datagram = UdpPacket::new_checked(packet.payload()).ok()?;
        let (source, destination) = (ip.src_addr.into(), ip.dst_addr.into());
        let udp = UdpRepr::parse(&datagram, &source, &destination, &checksums).ok()?;
        // Port 0 asks for no answer.
        (udp.dst_port == PORT && udp.src_port != 0).then_some(Self {
            mac: mac.0,
            address: ip.src_addr.octets(),
            port: udp.src_port,
            payload: datagram.payload(),
        })
    }

    /// Writes the frame that takes the answer back; its length.
    pub fn answer(&self, us: Place, answer: &Datagram, frame: &mut [u8; FRAME_MAX]) -> usize {
        let checksums = ChecksumCapabilities::default();
        let ethernet = EthernetRepr {
            src_addr: EthernetAddress(us.mac),
            dst_addr: EthernetAddress(self.mac),
            ethertype: EthernetProtocol::Ipv4,
        };
        let udp = UdpRepr {
            src_port: PORT,
            dst_port: self.port,
        };
        let ip = Ipv4Repr {
            src_addr: Ipv4Address::from(us.address),
            dst_addr: Ipv4Address::from(self.address),
            next_header: IpProtocol::Udp,
            payload_len: udp.header_len() + answer.len(),
            hop_limit: HOP_LIMIT,
        };
        let length = ethernet.buffer_len() + ip.buffer_len() + ip.payload_len;
        // The longest answer leaves most of a frame unused.
        let mut frame = EthernetFrame::new_unchecked(&mut frame[..length]);
        ethernet.emit(&mut frame);
        let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
        ip.emit(&mut packet, &checksums);
        udp.emit(
            &mut UdpPacket::new_unchecked(packet.payload_mut()),
            &ip.src_addr.into(),
            &ip.dst_addr.into(),
            answer.len(),
            |payload| payload.copy_from_slice(answer),
            &checksums,
        );
        length
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::{Operation, Question};

    use super::{Arrived, FRAME_MAX, PORT, Place};

    const US: Place = Place {
        mac: [0x52, 0x54, 0, 0, 0, 2],
        address: [10, 0, 0, 2],
    };
    const THEM: Place = Place {
        mac: [0x52, 0x54, 0, 0, 0, 1],
        address: [10, 0, 0, 1],
    };

    fn checksum(bytes: &[u8]) -> u16 {
        let words = bytes
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
        let sum: u32 = words.sum();
        !((sum & 0xffff) + (sum >> 16)) as u16
    }

    /// A question written by hand, with no checksum of UDP.
    fn question(port: u16) -> Vec<u8> {
        let question = Question {
            client: 1,
            number: 2,
            operation: Operation::Totals,
        };
        let payload = question.encode();
        let mut ip = vec![
            0x45,
            0,
            0,
            28 + payload.len() as u8,
            0,
            0,
            0,
            0,
            64,
            17,
            0,
            0,
            10,
            0,
            0,
            1,
            10,
            0,
            0,
            2,
        ];
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let udp = [
            port.to_be_bytes(),
            PORT.to_be_bytes(),
            (8 + payload.len() as u16).to_be_bytes(),
            [0, 0],
        ]
        .concat();
        [&US.mac[..], &THEM.mac, &[8, 0], &ip, &udp, &payload].concat()
    }

    #[test]
    fn a_question_is_found_and_its_answer_goes_back() {
        let frame = question(40_000);
        let arrived = Arrived::find(&frame, US).unwrap();
        assert_eq!((arrived.address, arrived.port), (THEM.address, 40_000));
        let asked = Question::decode(arrived.payload).unwrap();
        let mut buffer = [0; FRAME_MAX];
        // Any datagram will do as an answer.
        let length = arrived.answer(US, &asked.encode(), &mut buffer);
        let answer = &buffer[..length];
        assert_eq!(length, frame.len());
        assert_eq!(answer[..14], [&THEM.mac[..], &US.mac, &[8, 0]].concat());
        assert_eq!(checksum(&answer[14..34]), 0);
        assert_eq!(answer[26..34], [10, 0, 0, 2, 10, 0, 0, 1]);
        assert_eq!(
            answer[34..38],
            [PORT.to_be_bytes(), 40_000_u16.to_be_bytes()].concat()
        );
        assert_eq!(answer[42..], *asked.encode());
        let length = (answer.len() - 34) as u8;
        let pseudo = [&answer[26..34], &[0, 17, 0, length], &answer[34..]].concat();
        assert_eq!(checksum(&pseudo), 0);
    }

    #[test]
    fn what_is_not_for_us_is_left_to_others() {
        let good = question(40_000);
        let fixed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut frame = good.clone();
            change(&mut frame);
            frame[24..26].fill(0);
            let sum = checksum(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
            Arrived::find(&frame, US).is_some()
        };
        assert!(fixed(&|_| ()));
        assert!(!fixed(&|frame| frame[5] = 9), "another card");
        assert!(!fixed(&|frame| frame[6] = 1), "from a group of cards");
        assert!(!fixed(&|frame| frame[13] = 6), "another protocol than IP");
        assert!(!fixed(&|frame| frame[20] = 0x20), "a fragment");
        assert!(!fixed(&|frame| frame[21] = 1), "a later fragment");
        assert!(!fixed(&|frame| frame[23] = 6), "another protocol than UDP");
        assert!(!fixed(&|frame| frame[26..30].fill(0)), "from nobody");
        assert!(!fixed(&|frame| frame[26..30].fill(255)), "from all");
        assert!(!fixed(&|frame| frame[29] = 2), "from us");
        assert!(!fixed(&|frame| frame[33] = 255), "to all");
        assert!(!fixed(&|frame| frame[37] += 1), "another port");
        assert!(
            !fixed(&|frame| frame[34..36].fill(0)),
            "no port to answer to"
        );
        assert!(!fixed(&|frame| frame[41] = 1), "a wrong checksum");
        let mut broken = good.clone();
        broken[24] ^= 1;
        assert_eq!(Arrived::find(&broken, US), None, "a wrong checksum of IP");
    }

    proptest! {
        /// Frames that are broken anywhere do no harm.
        #[test]
        fn any_bytes(
            changes in prop::collection::vec((0_usize..70, any::<u8>()), 0..8),
            length in 0_usize..70,
        ) {
            let mut frame = question(40_000);
            for (at, byte) in changes {
                if let Some(place) = frame.get_mut(at) {
                    *place = byte;
                }
            }
            frame.truncate(length);
            if let Some(arrived) = Arrived::find(&frame, US) {
                prop_assert!(arrived.payload.len() <= frame.len());
            }
        }
    }
}
