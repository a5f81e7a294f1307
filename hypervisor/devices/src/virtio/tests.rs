//! Virtio devices as a driver meets them, good or bad.

mod driver;
mod hostile;
mod net;
mod pci;
mod rings;
mod world;

pub(crate) use world::World;
