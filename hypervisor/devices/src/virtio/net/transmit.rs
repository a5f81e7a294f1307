//! Frames from the driver (5.1.6.2).

use net::Offload;

use super::super::chain::Chain;
use super::super::{Budget, Fault, Progress};
use super::Net;
use super::features::Features;
use super::header::{self, ETHERNET};
use crate::nic::{Outgoing, Sent};
use crate::pc::Effects;

/// Bytes of a frame that are copied before anyone looks at them.
const HEAD: usize = 192;
/// Room for them, and for the header before them.
pub(super) type Head = [u8; header::LENGTH + HEAD];
pub(super) const NO_HEAD: Head = [0; header::LENGTH + HEAD];

/// Bytes of an Ethernet header with a VLAN tag.
const TAGGED: u32 = ETHERNET as u32 + 4;
/// Bytes of the longest frame that is to be cut: the header of IPv6 does not count in its length.
const CUT_MAX: u32 = TAGGED + 40 + 0xFFFF;

/// What a frame, or a piece of one that is cut, costs each of its takers, in units of a budget, beside its bytes and descriptors.
const FRAME_COST: u32 = 256;

/// What giving a frame to one taker costs.
fn cost(length: u32, offload: &Offload) -> u32 {
    let pieces = offload.segmentation.map_or(1, |segmentation| {
        length.div_ceil(u32::from(segmentation.size).max(1))
    });
    FRAME_COST.saturating_mul(pieces).saturating_add(length)
}

impl Net {
    /// Sends a frame.
    pub(super) fn transmit(
        &mut self,
        chain: &mut Chain,
        chosen: Features,
        budget: &mut Budget,
        effects: &mut impl Effects,
    ) -> Result<Progress, Fault> {
        let count = chain.read(&mut self.head, effects)?;
        let bytes = self.head.get(..count).unwrap_or(&self.head);
        let (header, head) = bytes.split_first_chunk().ok_or(Fault::Request)?;
        let length = chain.to_read().saturating_add(head.len() as u32);
        let offload = header::decode(header, head, chosen);
        let offload = offload.filter(|offload| self.can_send(length, offload));
        let Some(offload) = offload else {
            budget.spend(FRAME_COST);
            self.malformed = self.malformed.saturating_add(1);
            return Ok(Progress::Done);
        };
        let cost = cost(length, &offload);
        budget.spend(cost);
        let frame = Outgoing {
            head,
            rest: chain.unread(),
            offload,
        };
        match effects.send_frame(self.nic, &frame)? {
            Sent::Done { takers } => {
                // The first is paid for.
                budget.spend(cost.saturating_mul(takers.saturating_sub(1)));
                Ok(Progress::Done)
            }
            Sent::Busy => Ok(Progress::Later),
        }
    }

    fn can_send(&self, length: u32, offload: &Offload) -> bool {
        let most = if offload.segmentation.is_some() {
            CUT_MAX
        } else {
            u32::from(self.mtu) + TAGGED
        };
        (ETHERNET as u32..=most).contains(&length)
    }
}
