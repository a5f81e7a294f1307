//! The source of entropy (5.4).

use super::chain::Chain;
use super::{Budget, Fault, Progress};
use crate::pc::Effects;

/// Bytes that a request gets at most: it may be given less than it has room for.
const REQUEST_MAX: usize = 256;

/// What a byte costs, in units of a budget: the processor's generator is slow.
const BYTE_COST: u32 = 32;

/// A source of entropy.
#[derive(Copy, Clone, Debug)]
pub(super) struct Entropy;

impl Entropy {
    pub(super) fn serve(
        &mut self,
        chain: &mut Chain,
        budget: &mut Budget,
        effects: &mut impl Effects,
    ) -> Result<Progress, Fault> {
        let mut bytes = [0; REQUEST_MAX];
        let room = bytes.len().min(chain.to_write() as usize);
        if room == 0 {
            return Ok(Progress::Done);
        }
        let filled = effects.entropy(bytes.get_mut(..room).unwrap_or(&mut []));
        budget.spend(BYTE_COST * room as u32);
        // At least one byte must be given. If there is none now, there will be.
        match bytes.get(..filled.min(room)) {
            Some(bytes) if !bytes.is_empty() => {
                chain.write(bytes, effects)?;
                Ok(Progress::Done)
            }
            _ => Ok(Progress::More),
        }
    }
}
