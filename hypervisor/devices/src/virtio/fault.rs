//! What a driver can do wrong.

use core::fmt;

use crate::pc::OutsideMemory;

/// Why a device stopped.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A ring, a table or a buffer is outside the guest's memory, here.
    Address(u64),
    /// A queue was enabled with a size or an alignment that it cannot have.
    Layout,
    /// The available index is further ahead than the queue is long.
    AvailableIndex,
    /// The available ring names a descriptor that does not exist.
    Head,
    /// A descriptor goes on at one that does not exist.
    Next,
    /// A chain is longer than the queue: it goes in circles.
    Loop,
    /// An indirect descriptor where there can be none, or one whose table is empty or has half an entry.
    Indirect,
    /// A buffer to read behind one to write.
    Order,
    /// A buffer to read where there can only be such to write.
    Direction,
    /// The buffers of a chain have more than 2^32 - 1 bytes together.
    Length,
    /// A request has no room for its header or for its status.
    Request,
}

impl From<OutsideMemory> for Fault {
    fn from(OutsideMemory(address): OutsideMemory) -> Self {
        Self::Address(address)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address(address) => {
                return write!(f, "a ring or buffer at {address:#x}, outside memory");
            }
            Self::Layout => "a queue of wrong size or alignment",
            Self::AvailableIndex => "an available index beyond the queue's size",
            Self::Head => "a chain that begins outside the descriptor table",
            Self::Next => "a chain that leaves the descriptor table",
            Self::Loop => "a chain that is longer than the queue",
            Self::Indirect => "a misplaced or malformed indirect descriptor",
            Self::Order => "a buffer to read behind one to write",
            Self::Direction => "a buffer to read among those for what is received",
            Self::Length => "buffers of more than 4 GiB in a chain",
            Self::Request => "a request without room for header or status",
        })
    }
}

impl core::error::Error for Fault {}
