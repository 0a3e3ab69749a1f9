//! Rounds of a property under interleavings drawn from a seed, and what is needed to watch tasks.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::runtime::{Builder, Runtime};

/// How often each property is tried: half on one thread with paused time, half on several threads.
const ROUNDS: u64 = 10_000;

/// A small random generator (SplitMix64): the same seed gives the same draws.
pub(crate) struct Chaos(u64);

impl Chaos {
    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    /// A generator of its own for a task.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.below(usize::MAX) as u64)
    }

    /// Lets the others go first, a random number of times.
    pub(crate) async fn step(&mut self) {
        for _ in 0..self.below(4) {
            tokio::task::yield_now().await;
        }
    }
}

/// Tries `property` in many rounds, each with a generator of its own. A failure prints the seed to repeat it with.
pub(crate) fn rounds<F: Future>(property: impl Fn(Chaos) -> F) {
    let given = std::env::var("MAINSTAY_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0));
    let one = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let several = Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    let try_rounds = |runtime: &Runtime, rounds: std::ops::Range<u64>| {
        for round in rounds {
            let _told = TellSeed { seed, round };
            runtime.block_on(property(Chaos(seed.wrapping_add(round.wrapping_mul(0xd134_2543_de82_ef95)))));
        }
    };
    try_rounds(&one, 0..ROUNDS / 2);
    try_rounds(&several, ROUNDS / 2..ROUNDS);
}

struct TellSeed {
    seed: u64,
    round: u64,
}

impl Drop for TellSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed in round {}: repeat with MAINSTAY_SEED={}", self.round, self.seed);
        }
    }
}

/// Counts what is alive, and how much was at most.
#[derive(Clone, Default)]
pub(crate) struct Gauge(Arc<(AtomicUsize, AtomicUsize)>);

impl Gauge {
    /// One more, until the guard is dropped.
    pub(crate) fn enter(&self) -> Alive {
        let now = self.0.0.fetch_add(1, SeqCst) + 1;
        self.0.1.fetch_max(now, SeqCst);
        Alive(self.clone())
    }

    pub(crate) fn now(&self) -> usize {
        self.0.0.load(SeqCst)
    }

    pub(crate) fn peak(&self) -> usize {
        self.0.1.load(SeqCst)
    }
}

pub(crate) struct Alive(Gauge);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.0.0.fetch_sub(1, SeqCst);
    }
}

/// Panics without the report on the standard error that thousands of rounds would fill the screen with.
pub(crate) fn quiet_panic(message: &str) -> ! {
    std::panic::resume_unwind(Box::new(message.to_owned()))
}
