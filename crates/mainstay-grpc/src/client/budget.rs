//! [`Budget`]: how many repetitions a channel may make.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// In tenths of a call: a failure takes a whole one, a success gives a tenth back.
const FULL: u32 = 100;
const FAILURE: u32 = 10;
const SUCCESS: u32 = 1;

/// A bucket that failures empty and successes fill. Below half there are no repetitions: the other side has trouble
/// enough.
pub(super) struct Budget(AtomicU32);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicU32::new(FULL))
    }
}

impl Budget {
    pub(super) fn succeeded(&self) {
        if self.0.load(Relaxed) < FULL {
            let _ = self.0.fetch_update(Relaxed, Relaxed, |left| Some((left + SUCCESS).min(FULL)));
        }
    }

    /// Whether a repetition is allowed after this failure.
    pub(super) fn failed(&self) -> bool {
        let before = self.0.fetch_update(Relaxed, Relaxed, |left| Some(left.saturating_sub(FAILURE)));
        before.unwrap_or_default().saturating_sub(FAILURE) > FULL / 2
    }
}

/// A random part of `pause`.
pub(super) fn jitter(pause: Duration) -> Duration {
    // A hasher's keys are random, and no more is asked of a pause.
    let random = RandomState::new().hash_one(()) >> 32;
    pause.mul_f64(random as f64 / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_end_the_repetitions_and_successes_bring_them_back() {
        let budget = Budget::default();
        let allowed = (0..20).filter(|_| budget.failed()).count();
        assert_eq!(allowed, 4);
        (0..50).for_each(|_| budget.succeeded());
        assert!(!budget.failed());
        (0..200).for_each(|_| budget.succeeded());
        assert!(budget.failed());
    }

    #[test]
    fn a_pause_is_never_longer() {
        let pause = Duration::from_millis(20);
        assert!((0..100).all(|_| jitter(pause) <= pause));
    }
}
