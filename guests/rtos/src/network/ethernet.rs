//! What a network card is to the rest of the system.

use core::fmt;

use rtos::net::{FRAME_MAX, Mac, pci, virtqueue};

/// A network card, used by the network task alone.
///
/// Its interrupts do no more than to silence the card and to wake the task.
pub(crate) trait Ethernet {
    /// Its address.
    fn mac(&self) -> Mac;

    /// Whether there is room for a frame to be sent.
    fn can_send(&mut self) -> bool;

    /// Sends a frame. Without room, it is lost.
    fn send(&mut self, frame: &[u8]);

    /// Takes the next frame that was received; its length.
    fn receive(&mut self, frame: &mut [u8; FRAME_MAX]) -> Option<usize>;

    /// Lets the card interrupt at the next frame, and, where there was no room to send, once there is again. False if that
    /// has happened already.
    fn rest(&mut self) -> bool;

    /// How often it had to be set right, and for what at last.
    fn faults(&self) -> (u32, Option<Fault>);
}

/// Why a card cannot be used, or had to be set right.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Its configuration cannot be right.
    Configuration(pci::Defect),
    /// It is not ready after a reset.
    Reset,
    /// It lacks what a virtio driver needs, or does not accept the choice.
    Features,
    /// It has no such queue.
    Queue(u16),
    /// It has broken the rules of a queue.
    Rules(virtqueue::Defect),
    /// A virtio device asks to be reset.
    NeedsReset,
    /// No NE2000 answers.
    Signature,
    /// Copying from or to the card's memory does not end.
    Copy,
    /// Sending does not end.
    Send,
    /// More frames came than it could store.
    Overflow,
    /// What it has stored makes no sense.
    Ring(rtos::net::dp8390::Defect),
}

impl From<pci::Defect> for Fault {
    fn from(defect: pci::Defect) -> Self {
        Self::Configuration(defect)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(defect) => defect.fmt(f),
            Self::Reset => f.write_str("it is not ready after a reset"),
            Self::Features => f.write_str("it lacks a feature"),
            Self::Queue(number) => write!(f, "it has no queue {number}"),
            Self::Rules(defect) => defect.fmt(f),
            Self::NeedsReset => f.write_str("it asked for a reset"),
            Self::Signature => f.write_str("no NE2000 answers there"),
            Self::Copy => f.write_str("copying does not end"),
            Self::Send => f.write_str("sending does not end"),
            Self::Overflow => f.write_str("more frames came than it can store"),
            Self::Ring(defect) => write!(f, "its ring is wrong, {defect}"),
        }
    }
}
