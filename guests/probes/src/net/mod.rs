//! What a network frame costs: guests that send and receive, and one that watches how busy the processor is.
//!
//! All of them share one processor. The *observer* has the lowest priority and never halts: it counts the ticks that nobody
//! else wants, and so the others. The *workers* halt while there is nothing to do, and otherwise do what the observer
//! tells them by frames of a length that the measured ones never have.

mod card;
mod observer;
mod worker;

pub(crate) use observer::observe;
pub(crate) use worker::work;

/// Stations are numbered: the last byte of their address.
const STATION: [u8; 5] = [0x52, 0x54, 0, 0, 0];
/// The first worker has the card's own address: Bochs lets no other frames in.
const FIRST: u8 = 1;
const SECOND: u8 = 2;
/// The far end of the wire.
const FAR_END: u8 = 0xfe;
/// The one that IEEE 802 keeps for experiments.
const ETHER_TYPE: [u8; 2] = [0x88, 0xb5];
/// Bytes of a command and of a report.
const COMMAND: usize = 60;

/// The start of a frame from a station to another.
fn ethernet(to: u8, from: [u8; 6]) -> [u8; 14] {
    let mut header = [0; 14];
    header[..5].copy_from_slice(&STATION);
    header[5] = to;
    header[6..12].copy_from_slice(&from);
    header[12..].copy_from_slice(&ETHER_TYPE);
    header
}

/// What a worker is to do.
#[derive(Clone, Copy)]
struct Command {
    work: Work,
    /// The station that frames are for.
    to: u8,
    frames: u16,
    /// Bytes of a frame.
    length: u16,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// To send, and ring after each frame.
    Each = 1,
    /// To send, and ring after the last one.
    Batch = 2,
    /// To tell what came since the last report.
    Report = 3,
}

impl Command {
    /// As a frame.
    fn frame(self, worker: u8, from: [u8; 6]) -> [u8; 20] {
        let mut frame = [0; 20];
        frame[..14].copy_from_slice(&ethernet(worker, from));
        frame[14] = self.work as u8;
        frame[15] = self.to;
        frame[16..18].copy_from_slice(&self.frames.to_le_bytes());
        frame[18..].copy_from_slice(&self.length.to_le_bytes());
        frame
    }

    fn read(frame: &[u8; 20]) -> Option<Self> {
        let work = match frame[14] {
            1 => Work::Each,
            2 => Work::Batch,
            3 => Work::Report,
            _ => return None,
        };
        Some(Self {
            work,
            to: frame[15],
            frames: u16::from_le_bytes([frame[16], frame[17]]),
            length: u16::from_le_bytes([frame[18], frame[19]]),
        })
    }
}

/// What came to a worker.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Came {
    frames: u32,
    bytes: u32,
}

impl Came {
    /// As a frame.
    fn frame(self, to: u8, from: [u8; 6]) -> [u8; 24] {
        let mut frame = [0; 24];
        frame[..14].copy_from_slice(&ethernet(to, from));
        frame[16..20].copy_from_slice(&self.frames.to_le_bytes());
        frame[20..].copy_from_slice(&self.bytes.to_le_bytes());
        frame
    }

    fn read(frame: &[u8; 24]) -> Self {
        let number = |at: usize| {
            u32::from_le_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]])
        };
        Self {
            frames: number(16),
            bytes: number(20),
        }
    }
}
