//! [`Buffer`]: the failed and the slow, kept whole whatever is sampled, for whoever looks at the admin port.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::span::FinishedSpan;

pub(super) struct Buffer {
    keep: usize,
    slow: Duration,
    kept: Mutex<VecDeque<KeptTrace>>,
}

/// A request or an event that failed or was slow, with all its spans.
#[derive(Clone, Debug)]
pub struct KeptTrace {
    /// In the order in which they ended: the whole is the last.
    pub spans: Vec<FinishedSpan>,
    /// Why it was kept: `error` or `slow`.
    pub reason: &'static str,
}

impl Buffer {
    pub(super) fn new(keep: usize, slow: Duration) -> Self {
        Self { keep, slow, kept: Mutex::default() }
    }

    pub(super) fn offer(&self, spans: &[FinishedSpan], took: Duration) {
        let failed = spans.last().is_some_and(|root| root.error.is_some());
        let reason = match (failed, took >= self.slow) {
            (true, _) => "error",
            (false, true) => "slow",
            (false, false) => return,
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= self.keep {
            kept.pop_front();
        }
        kept.push_back(KeptTrace { spans: spans.to_vec(), reason });
    }

    pub(super) fn newest_first(&self) -> Vec<KeptTrace> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }
}
