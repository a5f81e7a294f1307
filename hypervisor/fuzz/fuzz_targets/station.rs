//! The hypervisor's station on frames of any bytes, and on TCP of any bytes with checksums that are right: it does little at a
//! time, and still answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use manage::{Body, Content, Manage, ManageConfig, Page};
use net::{MacAddress, PartialChecksum, complete_checksum};

const STATION: ([u8; 6], [u8; 4]) = ([2, 0, 0, 0, 0, 1], [192, 0, 2, 1]);
const CLIENT: ([u8; 6], [u8; 4]) = ([2, 0, 0, 0, 0, 2], [192, 0, 2, 2]);
/// The first of the client's ports, and how many there are.
const PORT: u16 = 1024;
const PORTS: usize = 8;
/// Places in frames of the station's: the client's port, the sequence number.
const TO_PORT: usize = 36;
const SEQUENCE: usize = 38;

struct Pages;

impl Content for Pages {
    fn write(&self, _page: Page, to: &mut Body) {
        to.push(&[b'p'; 100_000]);
    }
}

struct World {
    manage: Manage,
    now: u64,
    /// Sequence numbers of each port's connection: the client's, and what the station said last.
    own: [u32; PORTS],
    heard: [u32; PORTS],
}

impl World {
    /// Gives the station a frame, and time; what it says to ARP.
    fn give(&mut self, frame: &[u8]) -> bool {
        self.manage.receive(frame);
        let mut sent = Vec::new();
        let next = self
            .manage
            .turn(self.now, &Pages, |frame| sent.push(frame.to_vec()));
        assert!(sent.len() <= 8 && next.is_none_or(|at| at <= self.now + 60_000));
        let mut answered = false;
        for frame in sent {
            assert!((14..=1514).contains(&frame.len()));
            answered |= frame[12..14] == [0x08, 0x06] && frame[20..22] == [0, 2];
            if frame[12..14] == [0x08, 0x00] && frame[23] == 6 {
                let port = u16::from_be_bytes([frame[TO_PORT], frame[TO_PORT + 1]]);
                let port = usize::from(port.wrapping_sub(PORT));
                if let Some(heard) = self.heard.get_mut(port) {
                    let bytes = frame[SEQUENCE..].first_chunk().expect("a TCP header");
                    *heard = u32::from_be_bytes(*bytes);
                }
            }
        }
        answered
    }

    /// A segment whose headers are right: any flags, a window, and data.
    fn segment(&mut self, port: usize, flags: u8, window: u8, data: &[u8]) {
        let length = (20 + data.len()) as u16;
        let mut frame = [STATION.0, CLIENT.0].concat();
        frame.extend([0x08, 0x00, 0x45, 0]);
        frame.extend((20 + length).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, 6, 0, 0]);
        frame.extend([CLIENT.1, STATION.1].concat());
        let header = PartialChecksum {
            start: 0,
            offset: 10,
        };
        complete_checksum(&mut frame[14..], header).expect("an IPv4 header");
        frame.extend((PORT + port as u16).to_be_bytes());
        frame.extend([0, 80]);
        frame.extend(self.own[port].to_be_bytes());
        frame.extend(self.heard[port].wrapping_add(1).to_be_bytes());
        frame.extend([0x50, flags, window, 0]);
        let pseudo = [CLIENT.1, STATION.1].concat();
        let sum: u32 = pseudo
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
            .sum();
        let sum = sum + 6 + u32::from(length);
        frame.extend(((sum & 0xFFFF) as u16 + (sum >> 16) as u16).to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(data);
        let checksum = PartialChecksum {
            start: 34,
            offset: 16,
        };
        complete_checksum(&mut frame, checksum).expect("a TCP header");
        // SYN and FIN count.
        let passed = data.len() as u32 + u32::from(flags & 1) + u32::from(flags >> 1 & 1);
        self.own[port] = self.own[port].wrapping_add(passed);
        self.give(&frame);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut world = World {
        manage: Manage::new(&ManageConfig {
            mac: MacAddress(STATION.0),
            address: STATION.1,
            prefix: 24,
            gateway: Some([192, 0, 2, 254]),
            seed: 7,
            datagram_port: 49_152,
        }),
        now: 0,
        own: [0; PORTS],
        heard: [0; PORTS],
    };
    let who_has = |target: [u8; 4]| {
        let mut frame = [STATION.0, CLIENT.0].concat();
        frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend([&CLIENT.0[..], &CLIENT.1, &[0; 6], &target].concat());
        frame
    };
    assert!(world.give(&who_has(STATION.1)));
    let mut rest = bytes;
    while let [step, flags, window, length, more @ ..] = rest {
        let (data, more) = more.split_at(more.len().min(usize::from(*length)));
        rest = more;
        world.now += 1 << (step >> 4);
        if step & 8 == 0 {
            world.segment(usize::from(step & 7), *flags, *window, data);
        } else {
            world.give(&[&STATION.0[..], data].concat());
        }
    }
    // The clients are gone long since.
    for _ in 0..100 {
        world.now += 1000;
        world.give(&[]);
    }
    assert!(world.give(&who_has(STATION.1)));
});
