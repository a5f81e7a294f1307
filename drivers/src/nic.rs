//! Gigabit network cards of Intel's 8254x, 8257x and igb families.
//!
//! One driver serves them all: they share rings of descriptors, a receive filter and most registers. [`Candidate::recognise`]
//! tells whether a PCI function is such a card, [`Candidate::attach`] reads its address, and [`Found::open`] makes it a [`Nic`].

mod card;
mod counters;
mod descriptors;
mod filter;
mod found;
mod hardware;
mod identity;
mod link;
mod ownership;
mod phy;
mod receive;
mod registers;
mod repair;
mod reset;
mod steps;
mod transmit;

pub use found::{Candidate, Found};

use crate::pci::{Message, PciAddress};
use bitflags::bitflags;
use core::fmt;

/// The longest frame without its check sequence: header, one VLAN tag, 1500 bytes.
pub const FRAME_MAX: usize = 1518;
/// The same where jumbo frames are allowed: header, one VLAN tag, 9000 bytes.
pub const JUMBO_FRAME_MAX: usize = 9018;
/// Descriptors of a ring.
const RING: usize = 256;
/// Shorter frames are filled up with zeroes (IEEE 802.3, 3.2.8), without the check sequence.
pub const FRAME_MIN: usize = 60;

/// Bytes of memory that a card needs: two rings, each descriptor with a buffer.
#[must_use]
pub const fn dma_bytes(jumbo: bool) -> usize {
    2 * (card::RING_BYTES + RING * buffer_bytes(jumbo))
}

/// Bytes of a buffer: of sizes that the cards know, the smallest that holds the longest frame.
const fn buffer_bytes(jumbo: bool) -> usize {
    if jumbo { 16 << 10 } else { 2 << 10 }
}

const fn frame_max(jumbo: bool) -> usize {
    if jumbo { JUMBO_FRAME_MAX } else { FRAME_MAX }
}

/// A network card. Any processor may call any method at any time: the receiving and the transmitting half have a lock each.
/// No method but [`Nic::stop`] waits longer than another processor's `take` or `fill` does.
pub trait Nic: Send + Sync {
    /// Which card it is.
    fn model(&self) -> Model;

    /// Where on the PCI bus it is.
    fn address(&self) -> PciAddress;

    /// Its own address.
    fn mac(&self) -> [u8; 6];

    /// The link, as of [`Nic::watch`] or the last interrupt for it.
    fn link(&self) -> Link;

    /// The longest frame in bytes, from the destination address on, with a VLAN tag, without the check sequence:
    /// [`FRAME_MAX`] or [`JUMBO_FRAME_MAX`].
    fn frame_max(&self) -> usize;

    /// Reads and clears the causes of an interrupt; none if the interrupt was another's on the same line. Receive causes stay
    /// masked until [`Nic::listen`]. Takes no lock.
    fn handle_interrupt(&self) -> Causes;

    /// Lets receive causes interrupt again, after [`Nic::receive`] found nothing. Returns whether a frame came in meanwhile:
    /// then it may be without an interrupt of its own, and the caller polls on.
    fn listen(&self) -> bool;

    /// Takes the next received frame, if there is one: `take` sees it where the card put it, and afterwards the buffer is the
    /// card's again. Returns whether there was one.
    fn receive(&self, take: &mut dyn FnMut(Received<'_>)) -> bool;

    /// Puts a frame of `length` bytes, written by `fill`, into the next transmit buffer and gives it to the card. What `fill`
    /// finds there is an older frame.
    ///
    /// `checksum` is inserted by the card. `reserve` is how many frames there must be room for afterwards: who has a low
    /// priority leaves room for a higher one.
    ///
    /// # Errors
    ///
    /// [`TransmitError`]; but for [`TransmitError::Checksum`], `fill` was not called then. Nothing tells when there is room again.
    fn transmit(
        &self,
        length: usize,
        checksum: Option<Checksum>,
        reserve: u16,
        fill: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), TransmitError>;

    /// Whether the card inserts checksums into TCP and UDP segments over IP.
    fn checksums(&self) -> bool;

    /// Chooses the frames to be received beside broadcasts and those for [`Nic::mac`]. Where the card's filter has no room for
    /// all addresses, more frames come in.
    fn set_filter(&self, filter: &Filter<'_>);

    /// To be called once in some 100 ms with a clock in milliseconds: looks after the link, and resets a card that hangs. To reset
    /// it takes tens of calls, each of them as short as others: [`Watch::again_ms`] says when the next is due. Until the card
    /// runs again its link is down. Frames in both rings are lost.
    fn watch(&self, now_ms: u64) -> Watch;

    /// Totals since the card was opened.
    fn statistics(&self) -> Statistics;

    /// Sends a last frame behind all that were given to the card, and waits until it has them all, or the TSC has counted `patience`.
    /// Returns whether it has. Waits for no lock: if somebody holds one, nothing is sent.
    fn transmit_last(&self, frame: &[u8], patience: u64) -> bool;

    /// Takes the card off the bus for good: no access to memory from here on, no interrupt. Waits for no lock for long, so it
    /// is good for the last breath, too.
    fn stop(&self);

    /// Raises an interrupt, with [`Causes::LINK`]: so it can be found out where it arrives.
    fn raise_test_interrupt(&self);
}

/// The cards that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// 82540EM, on conventional PCI.
    I82540em,
    /// 82574L.
    I82574l,
    /// 82576.
    I82576,
    /// I210.
    I210,
    /// I350.
    I350,
}

impl Model {
    /// On PCI Express.
    const fn is_express(self) -> bool {
        !matches!(self, Self::I82540em)
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::I82540em => "82540EM",
            Self::I82574l => "82574L",
            Self::I82576 => "82576",
            Self::I210 => "I210",
            Self::I350 => "I350",
        })
    }
}

/// The state of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// No carrier, or not agreed on a speed yet.
    Down,
    /// Frames can be sent.
    Up {
        /// 10, 100 or 1000 megabits a second.
        megabits: u16,
        /// Both directions at once.
        full_duplex: bool,
    },
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down => f.write_str("down"),
            Self::Up {
                megabits,
                full_duplex,
            } => write!(
                f,
                "up, {megabits} Mbit/s {} duplex",
                if *full_duplex { "full" } else { "half" }
            ),
        }
    }
}

bitflags! {
    /// Why a card interrupted.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Causes: u8 {
        /// Frames were received, or lost for want of buffers.
        const RECEIVE = 1 << 0;
        /// The link went up or down, or [`Nic::raise_test_interrupt`].
        const LINK = 1 << 1;
    }
}

/// A received frame.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// From the destination address on, with a VLAN tag if it had one, without the check sequence.
    pub frame: &'a [u8],
    /// The card found the TCP or UDP checksum right, and that of the IPv4 header.
    pub checksum_valid: bool,
}

/// A checksum that is left to the card: it covers the frame from `start` to its end and is stored at `start + offset`, where the
/// sum of the pseudo-header is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// Where it begins, in bytes from the frame's start.
    pub start: u16,
    /// Where it is stored, in bytes from there.
    pub offset: u16,
}

/// Why a frame was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransmitError {
    /// No buffer is free, or none but the reserve.
    Full,
    /// The link is down, or the card was stopped.
    Down,
    /// Longer than [`Nic::frame_max`].
    TooLong,
    /// The card cannot insert this checksum.
    Checksum,
}

impl fmt::Display for TransmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the transmit ring is full",
            Self::Down => "the link is down",
            Self::TooLong => "the frame is too long",
            Self::Checksum => "the card cannot insert this checksum",
        })
    }
}

impl core::error::Error for TransmitError {}

/// Frames to be received beside broadcasts and those for the card's own address.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    /// All.
    pub promiscuous: bool,
    /// All with a group's address.
    pub all_multicast: bool,
    /// Those for these stations.
    pub unicast: &'a [[u8; 6]],
    /// Those for these groups.
    pub multicast: &'a [[u8; 6]],
}

/// What [`Nic::watch`] saw and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// The link, if it is another than the last time; at first it is taken to be down.
    pub link: Option<Link>,
    /// What went wrong; the card is being reset, once it is there.
    pub fault: Option<Fault>,
    /// Frames wait in the ring: to be taken by [`Nic::receive`] and [`Nic::listen`], should their interrupt have been lost.
    pub frames_wait: bool,
    /// The card does not run. To be called again after so many milliseconds, and before that for nothing.
    pub again_ms: Option<u64>,
}

/// What can go wrong with a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Frames were given to it and the link is up, but it sent none for a second.
    TransmitHang,
    /// It counted frames as missed for a second, but received none, though it has buffers.
    ReceiveStall,
    /// It does not answer any more.
    Gone,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TransmitHang => "it stopped sending",
            Self::ReceiveStall => "it stopped receiving",
            Self::Gone => "it does not answer any more",
        })
    }
}

/// Totals since the card was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Good frames received.
    pub received_frames: u64,
    /// Their bytes, with check sequences.
    pub received_bytes: u64,
    /// Frames sent.
    pub transmitted_frames: u64,
    /// Their bytes, with check sequences.
    pub transmitted_bytes: u64,
    /// Frames lost because the card's memory was full.
    pub missed: u64,
    /// Frames that came when the card had no buffer; some of them waited in its memory, and were not lost.
    pub no_buffer: u64,
    /// Frames with a wrong check sequence.
    pub crc_errors: u64,
    /// Frames that were not a whole number of bytes, or held symbols that are none.
    pub symbol_errors: u64,
    /// Frames that were too short, too long, or not as long as they said.
    pub length_errors: u64,
    /// Collisions, on links with half duplex.
    pub collisions: u64,
    /// Times that the link went down.
    pub link_losses: u64,
    /// Times that the card was reset because it hung.
    pub resets: u64,
}

/// How a card tells of interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// By its interrupt pin.
    Pin,
    /// By writing a message (MSI), where [`Found::has_messages`].
    Message(Message),
}

/// How a card is to be opened.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// Frames up to [`JUMBO_FRAME_MAX`].
    pub jumbo: bool,
    /// How it interrupts.
    pub delivery: Delivery,
}

/// Why a card was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Its registers read as all ones.
    NoAnswer,
    /// It has no valid address of its own.
    NoAddress,
    /// It did not come out of its reset.
    Reset,
    /// It did not start a ring.
    Ring,
    /// Its firmware did not give up the PHY.
    Firmware,
    /// The memory is less than [`dma_bytes`] says.
    Memory,
    /// It cannot interrupt by messages.
    NoMessages,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoAnswer => "it does not answer",
            Self::NoAddress => "it has no valid MAC address",
            Self::Reset => "it did not come out of its reset",
            Self::Ring => "it did not enable a ring",
            Self::Firmware => "its firmware does not let go of it",
            Self::Memory => "it was given too little memory",
            Self::NoMessages => "it cannot interrupt by messages",
        })
    }
}

impl core::error::Error for OpenError {}

#[cfg(test)]
mod tests;
