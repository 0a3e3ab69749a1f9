//! When a connection may give its parser back.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::Activity;

/// How long an HTTP/1 connection keeps its parser, with 16 KiB of buffers, after a response. The pause and a
/// new one cost some 15 µs of CPU (a timer, allocations, one more look at the socket), which clients that ask more than
/// ten times per second don't pay; and of a wave of new clients only those of the last 100 ms hold buffers at a time.
const REST_AFTER: Duration = Duration::from_millis(100);

impl Activity {
    /// Tells one pause between two requests of an HTTP/1 connection from the next; `None` outside of them.
    pub(in crate::connection) fn pause_mark(&self) -> Option<u64> {
        let pauses = self.is_http1() && self.open.load(Relaxed) == 0 && self.head_since.load(Relaxed) == 0;
        Some(self.idle_since.load(Relaxed)).filter(|mark| pauses && *mark != 0)
    }

    /// When the pause with this mark has been long enough to give the parser back.
    pub(in crate::connection) fn rest_moment(&self, mark: u64) -> Instant {
        self.at(mark) + REST_AFTER
    }

    /// Whether a parser has nothing to do here and hasn't had for a while: every answer is written, nobody reads a body
    /// any more, and no request has begun. A parser that was asked for an upgrade keeps that in mind for ever, so that
    /// its end would hand the socket to a taker who isn't there.
    pub(in crate::connection) fn may_rest(&self) -> bool {
        self.blocked_since.load(Relaxed) == 0
            && self.bodies.load(Relaxed) == 0
            && !self.asked_upgrade.load(Relaxed)
            && self.pause_mark().is_some_and(|mark| self.rest_moment(mark) <= Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection that has had one request, whose answer was written so long ago.
    async fn after(pause: Duration) -> Activity {
        let activity = Activity::new();
        activity.received(b"GET / HTTP/1.1\r\n\r\n");
        activity.request_began();
        activity.request_ended();
        tokio::time::advance(pause).await;
        activity
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_has_to_last_a_while() {
        assert!(!after(REST_AFTER - Duration::from_millis(1)).await.may_rest());
        assert!(after(REST_AFTER).await.may_rest());
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_is_not_finished_keeps_the_parser() {
        let busy: [fn(&Activity); 5] = [
            |activity| activity.received(b"G"),
            Activity::request_began,
            Activity::body_began,
            Activity::write_blocked,
            Activity::upgrade_asked,
        ];
        for keeps in busy {
            let activity = after(REST_AFTER).await;
            keeps(&activity);
            assert!(!activity.may_rest());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn neither_a_silent_connection_nor_http2_rests() {
        let activity = Activity::new();
        tokio::time::advance(REST_AFTER).await;
        assert!(!activity.may_rest());
        activity.received(super::super::PREFACE);
        tokio::time::advance(REST_AFTER).await;
        assert!(!activity.may_rest());
    }
}
