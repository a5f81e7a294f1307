//! Numbers that look like chance and are the same for the same seed.

use std::time::Duration;

/// Parts per million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Share(u32);

impl Share {
    const WHOLE: u32 = 1_000_000;
    /// Nothing.
    pub(crate) const NONE: Self = Self(0);
    /// All.
    pub(crate) const ALL: Self = Self(Self::WHOLE);

    /// Whole percent, 100 at most.
    pub(crate) const fn percent(percent: u32) -> Self {
        Self::ppm(percent.saturating_mul(10_000))
    }

    /// Parts per million, a whole million at most.
    pub(crate) const fn ppm(parts: u32) -> Self {
        Self(if parts > Self::WHOLE {
            Self::WHOLE
        } else {
            parts
        })
    }

    /// This share of a time.
    pub(crate) fn of(self, time: Duration) -> Duration {
        time * self.0 / Self::WHOLE
    }
}

/// A generator: SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The generator of a seed; the second number tells those of the same seed apart.
    pub(crate) const fn new(seed: u64, number: u64) -> Self {
        let mut random = Self(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        random.0 = random.next();
        random
    }

    /// The next number.
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// A number below `limit`; 0 where that is 0.
    pub(crate) const fn below(&mut self, limit: u64) -> u64 {
        // The high half of the product: no division, and no bias that matters here.
        ((self.next() as u128 * limit as u128) >> 64) as u64
    }

    /// True in this share of all calls.
    pub(crate) const fn hits(&mut self, share: Share) -> bool {
        self.below(Share::WHOLE as u64) < share.0 as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_hit_about_as_often_as_they_say() {
        for (share, least, most) in [
            (Share::percent(0), 0, 0),
            (Share::percent(100), 100_000, 100_000),
            (Share::percent(5), 4_700, 5_300),
            (Share::ppm(1_000), 60, 140),
        ] {
            let mut random = Random::new(7, 1);
            let hits = (0..100_000).filter(|_| random.hits(share)).count();
            assert!((least..=most).contains(&hits), "{share:?}: {hits}");
        }
    }

    #[test]
    fn seeds_and_numbers_make_sequences_of_their_own() {
        let first = |seed, number| Random::new(seed, number).next();
        assert_eq!(first(1, 2), first(1, 2));
        let all = [first(0, 0), first(0, 1), first(1, 0), first(1, 1)];
        for (at, value) in all.iter().enumerate() {
            assert!(!all[..at].contains(value));
        }
    }
}
