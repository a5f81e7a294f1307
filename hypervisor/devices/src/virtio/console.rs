//! The console with one port (5.3).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::chain::Chain;
use super::{Budget, Fault, Progress};
use crate::pc::{Effects, StateError};

/// The queues of port 0: what the driver receives, and what it sends.
pub(super) const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// Typed bytes that wait for a buffer.
const ROOM: usize = 64;

/// What a byte costs, in units of a budget: it is looked at one by one outside.
const BYTE_COST: u32 = 64;

/// The saved state of a console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleStateV1 {
    /// Typed bytes that wait for a buffer, at most 64.
    pub input: Vec<u8>,
}

/// A console.
#[derive(Clone, Debug)]
pub(super) struct Console {
    input: VecDeque<u8>,
}

impl Console {
    pub(super) fn new() -> Self {
        Self {
            input: VecDeque::with_capacity(ROOM),
        }
    }

    pub(super) fn reset(&mut self) {
        self.input.clear();
    }

    /// How many bytes can be typed.
    pub(super) fn room(&self) -> usize {
        ROOM.saturating_sub(self.input.len())
    }

    /// Types bytes; returns how many there was room for.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.room());
        self.input.extend(bytes.iter().take(taken));
        taken
    }

    /// Whether there is a use for buffers of a queue.
    pub(super) fn wants(&self, index: usize) -> bool {
        index == TRANSMIT || !self.input.is_empty()
    }

    pub(super) fn serve(
        &mut self,
        index: usize,
        chain: &mut Chain,
        budget: &mut Budget,
        effects: &mut impl Effects,
    ) -> Result<Progress, Fault> {
        if index == TRANSMIT {
            return transmit(chain, budget, effects);
        }
        let (front, back) = self.input.as_slices();
        let mut written = chain.write(front, effects)?;
        if written == front.len() {
            written += chain.write(back, effects)?;
        }
        self.input.drain(..written);
        budget.spend(BYTE_COST * written as u32);
        Ok(Progress::Done)
    }

    pub(super) fn save(&self) -> ConsoleStateV1 {
        ConsoleStateV1 {
            input: self.input.iter().copied().collect(),
        }
    }

    pub(super) fn restore(&mut self, state: &ConsoleStateV1) -> Result<(), StateError> {
        self.input.clear();
        if self.receive(&state.input) < state.input.len() {
            return Err(StateError::Invalid("virtio: console input"));
        }
        Ok(())
    }
}

/// Sends what the driver gave.
fn transmit(
    chain: &mut Chain,
    budget: &mut Budget,
    effects: &mut impl Effects,
) -> Result<Progress, Fault> {
    let mut bytes = [0; 256];
    while chain.to_read() > 0 {
        let limit = (budget.left() / BYTE_COST) as usize;
        let part = bytes.len().min(limit);
        let count = chain.read(bytes.get_mut(..part).unwrap_or(&mut []), effects)?;
        if count == 0 {
            // The rest of the budget is too small for a byte.
            budget.spend(BYTE_COST);
            return Ok(Progress::More);
        }
        budget.spend(BYTE_COST * count as u32);
        effects.virtio_console_output(bytes.get(..count).unwrap_or(&bytes));
    }
    Ok(Progress::Done)
}
