//! Time for threads. They wait in SQLite and in channels, not in the runtime, so its clock, which a test may pause, is
//! not theirs.

#![expect(clippy::disallowed_types, reason = "measured by threads that know no runtime")]

use std::time::Duration;
use std::time::Instant;

/// How long ago something was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Blocks this thread, which is never one of the runtime's.
#[expect(clippy::disallowed_methods, reason = "a thread of SQLite's own")]
pub(super) fn pause(time: Duration) {
    std::thread::sleep(time);
}
