//! Ethernet on the board: addresses, what is left to be done to a frame, the virtual switch.
//!
//! Everything here is plain values and state machines: frames and times come in, verdicts come out. Who moves the bytes is
//! another's business.

#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod address;
mod offload;

pub use address::{MacAddress, ParseMacError};
pub use offload::{Offload, PartialChecksum, Segmentation, SegmentationKind};
