//! The board description: which guests a blade carries and what each of them gets.
//!
//! A person writes it as TOML (`host` feature, [`toml`]); the host tool validates it and carries
//! it to the board as a compact blob ([`blob`]), so the hypervisor never parses text.

#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod blob;
pub mod board;
pub mod mirror;
pub mod network;
#[cfg(feature = "host")]
pub mod toml;
pub mod validate;

pub use board::{
    Board, Clock, Device, Guest, GuestDisk, GuestModule, ImageFormat, OnCrash, Watchdog, WhenAllOff,
};
pub use mirror::{Arbiter, GuestMirror, Mirror, MirrorMode, OnSilence};
pub use network::{Card, GuestNic, Management, NicModel, Uplink, Vlans};
