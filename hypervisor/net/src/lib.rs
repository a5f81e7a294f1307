//! Ethernet on the board: addresses, what is left to be done to a frame, the virtual switch.
//!
//! Everything here is plain values and state machines: frames and times come in, verdicts come out. Who moves the bytes is
//! another's business.

#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod address;
mod announcement;
mod bucket;
mod capture;
mod checksum;
mod flow;
mod header;
mod offload;
mod port;
mod queue;
mod segment;
mod stations;
mod switch;
mod vlan;

pub use address::{MacAddress, ParseMacError};
pub use announcement::{ANNOUNCEMENT_BYTES, announcement};
pub use bucket::Rate;
pub use capture::Capture;
pub use checksum::complete_checksum;
pub use flow::flow_hash;
pub use header::{REWRITTEN_MAX, Rewritten};
pub use offload::{BadOffload, Offload, PartialChecksum, Segmentation, SegmentationKind};
pub use port::{PortId, PortSet};
pub use queue::FrameQueue;
pub use segment::{HEADERS_MAX, PIECES_MAX, Segment, Segmenter};
pub use switch::{Counters, Forwarding, PortConfig, Reason, Switch, SwitchConfig};
pub use vlan::VlanId;
