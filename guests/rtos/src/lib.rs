//! The logic of the LX-200 executive and of its application, without the machine beneath.
//!
//! Nothing here touches hardware or keeps hidden state: the kernel is a plain value whose operations say who
//! runs next, and the exchange is driven by requests that carry the time. The image (`main.rs`) adds
//! interrupts, stacks and devices.
#![cfg_attr(target_arch = "x86", no_std)]
#![forbid(unsafe_code)]

pub mod calendar;
pub mod command;
pub mod exchange;
pub mod kernel;
pub mod latency;
pub mod line;
pub mod net;
pub mod ring;
