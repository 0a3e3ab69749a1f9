//! [`Form`]: how long a run is.

use std::env;

/// The two lengths of a run, and its seed.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// Whether it is the one that proves, or the one that watches over each change.
    pub long: bool,
    /// Events that have to be committed.
    pub target: usize,
    /// Events a second that a producer tries for.
    pub rate: u64,
    /// What everything random comes from.
    pub seed: u64,
}

impl Form {
    /// For each change: every fault a few times.
    pub fn short() -> Self {
        Self { long: false, target: 300, rate: 150, seed: seed() }
    }

    /// For the table in the documentation.
    pub fn long() -> Self {
        Self { long: true, target: 10_000, rate: 1_000, seed: seed() }
    }

    /// How many of a thing: the one number in the short form, the other in the long one.
    pub fn of(&self, short: u64, long: u64) -> u64 {
        if self.long { long } else { short }
    }
}

/// `RIG_SEED`, or one that was never there before. The same in the whole process.
fn seed() -> u64 {
    static SEED: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *SEED.get_or_init(|| {
        let given = env::var("RIG_SEED").ok().and_then(|seed| seed.parse().ok());
        // Short enough to be typed.
        given.unwrap_or_else(|| mainstay::prelude::Uuid::new_v4().as_u64_pair().1 % 1_000_000_000)
    })
}
