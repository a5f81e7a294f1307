//! The machine: one processor, a pair of 8259, an 8254, an MC146818, a 16550, and perhaps PCI.

pub(crate) mod pci;
pub(crate) mod pic;
pub(crate) mod pit;
pub(crate) mod registers;
pub(crate) mod rtc;
pub(crate) mod shared;
pub(crate) mod stacks;
pub(crate) mod uart;
