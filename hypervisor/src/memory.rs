//! Memory: the board's, and the guests'.

mod guest;
mod physical;
mod written;

pub use guest::{GuestMemory, OutOfBounds};
pub use physical::{FreeRanges, OutOfMemory, PhysicalMemory};

#[cfg(test)]
pub(crate) use guest::fake;
