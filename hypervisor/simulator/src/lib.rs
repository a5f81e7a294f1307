//! The mirror in a simulation: two nodes with guests, a witness and clients, on wires and boards that fail as a seed decides, and a
//! judge who sees all of it and never sleeps.
//!
//! Nothing here is random but by the seed: the same [`Scenario`] always takes the same steps.

#![forbid(unsafe_code)]

mod blade;
mod chance;
mod clock;
mod guest;
mod judge;
mod machine;
mod scenario;
mod shrink;
mod wire;
mod witness;
mod world;

pub use scenario::{ARBITERS, Fault, Mutation, Scenario};
pub use shrink::shrink;
pub use world::{Failure, Figures, run};
