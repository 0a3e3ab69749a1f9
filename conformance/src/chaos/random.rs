//! [`Random`]: numbers that a seed replays.

use std::ops::Range;
use std::time::Duration;

/// A stream of numbers from a seed (SplitMix64): the same seed, the same faults in the same order.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The stream of one part of a run: `seed` mixed with its name, so that parts don't repeat each other and each can
    /// be replayed alone.
    pub fn named(seed: u64, name: &str) -> Self {
        let mixed = name.bytes().fold(seed, |mixed, byte| Self(mixed ^ u64::from(byte)).next());
        Self(mixed)
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "it has no end")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of `range`, which is not empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start).max(1)
    }

    /// An index into something with `count` members, at least one.
    pub fn index(&mut self, count: usize) -> usize {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        usize::try_from(self.within(0..count)).unwrap_or(0)
    }

    /// True `percent` times of a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.within(0..100) < percent
    }

    /// A time in milliseconds of `range`.
    pub fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays_and_names_differ() {
        let of = |seed, name| Random::named(seed, name).next();
        assert_eq!(of(7, "sqlite::kill"), of(7, "sqlite::kill"));
        assert_ne!(of(7, "sqlite::kill"), of(8, "sqlite::kill"));
        assert_ne!(of(7, "sqlite::kill"), of(7, "postgres::kill"));
    }

    #[test]
    fn ranges_are_kept() {
        let mut random = Random::new(1);
        assert!((0..1_000).all(|_| (3..9).contains(&random.within(3..9))));
        assert!((0..100).all(|_| random.index(1) == 0));
        assert!((0..100).all(|_| random.chance(100) && !random.chance(0)));
    }
}
