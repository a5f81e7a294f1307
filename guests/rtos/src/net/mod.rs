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
