//! Wires that fail.

use crate::chance::Chance;
use std::time::Duration;

/// How a wire is. Shares are of a thousand frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quality {
    /// Frames that are lost.
    pub(crate) loss: u16,
    /// That come twice.
    pub(crate) double: u16,
    /// Of which a bit is wrong.
    pub(crate) damage: u16,
    /// That come so much later, up to `late_by`, that others overtake them.
    pub(crate) late: u16,
    pub(crate) late_by: Duration,
    /// How long the others take.
    pub(crate) delay: (Duration, Duration),
}

impl Quality {
    /// A good wire whose frames take `from` to `to` microseconds.
    pub(crate) const fn good(from: u64, to: u64) -> Self {
        Self {
            loss: 0,
            double: 0,
            damage: 0,
            late: 0,
            late_by: Duration::ZERO,
            delay: (Duration::from_micros(from), Duration::from_micros(to)),
        }
    }
}

/// One direction of a wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire {
    pub(crate) quality: Quality,
    pub(crate) cut: bool,
}

impl Wire {
    pub(crate) const fn new(quality: Quality) -> Self {
        Self {
            quality,
            cut: false,
        }
    }

    /// Carries something; what arrives, and how long each takes. `damage` damages it, and says whether it arrives even so.
    pub(crate) fn carry<T: Clone>(
        &self,
        what: T,
        chance: &mut Chance,
        damage: impl Fn(&mut T, &mut Chance) -> bool,
    ) -> Vec<(Duration, T)> {
        let quality = &self.quality;
        if self.cut || chance.permille(quality.loss) {
            return Vec::new();
        }
        let double = chance.permille(quality.double);
        let copies = core::iter::repeat_n(what, if double { 2 } else { 1 });
        let arrives = |mut copy| {
            if chance.permille(quality.damage) && !damage(&mut copy, chance) {
                return None;
            }
            let (low, high) = quality.delay;
            let mut delay = chance.between(low.as_nanos() as u64, high.as_nanos() as u64);
            if chance.permille(quality.late) {
                delay += chance.below(quality.late_by.as_nanos() as u64);
            }
            Some((Duration::from_nanos(delay), copy))
        };
        copies.filter_map(arrives).collect()
    }
}

/// Turns a bit of a frame over.
pub(crate) fn turn_a_bit(frame: &mut [u8], chance: &mut Chance) -> bool {
    let at = chance.below(frame.len() as u64) as usize;
    if let Some(byte) = frame.get_mut(at) {
        *byte ^= 1 << chance.below(8);
    }
    true
}

/// What is damaged has a checksum by which that is recognised, and does not arrive.
pub(crate) const fn drop_it<T>(_: &mut T, _: &mut Chance) -> bool {
    false
}
