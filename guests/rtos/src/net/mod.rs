//! Networking, without the cards beneath: settings, the rings that cards share with us, frames, the UDP server.

pub mod dp8390;
pub mod frame;
pub mod pci;
pub mod server;
pub mod settings;
pub mod virtqueue;

/// The longest Ethernet frame in bytes, without its checksum.
pub const FRAME_MAX: usize = 1514;
/// A card's address.
pub type Mac = [u8; 6];

/// Whether an interrupt line leads to the buses: not those of clock, keyboard, cascade, COM1, RTC and coprocessor.
#[must_use]
pub const fn is_bus_line(line: u8) -> bool {
    matches!(line, 3 | 5..=7 | 9..=12 | 14 | 15)
}
