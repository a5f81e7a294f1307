//! Virtio devices as a driver meets them, good or bad.

mod driver;
mod hostile;
mod pci;
mod rings;
mod world;

pub(crate) use world::World;
