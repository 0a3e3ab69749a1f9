//! [`Activity`]: what a connection has been doing, so that one timer can tell whether it has done it for too long.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use crate::HttpSettings;

mod rest;

/// What an HTTP/2 client sends first.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a connection without a request lives on, at least, once the server drains: a request may be on its way.
const LATE_REQUEST_GRACE: Duration = Duration::from_millis(100);

/// How recent a connection's last use has to be for its client to count as busy when the server drains. A busy client
/// sends its next request on it, which is answered with `Connection: close`; closing under that request would lose it.
const BUSY_CLIENT: Duration = Duration::from_secs(1);

/// The recent past of one connection. Only atomics: requests touch it and its timer reads it. All are `Relaxed`: the
/// numbers don't guard each other, and a verdict that is one request late is repeated.
pub(super) struct Activity {
    born: Instant,
    /// How much of the HTTP/2 preface has come; `NOT_HTTP2` once a byte differs.
    preface: AtomicU8,
    /// Requests whose responses have not ended.
    open: AtomicU32,
    /// Request bodies that somebody still holds, maybe beyond the response.
    bodies: AtomicU32,
    /// A request asked for another protocol.
    asked_upgrade: AtomicBool,
    /// The parser is being taken away: its end is not the connection's.
    going_to_rest: AtomicBool,
    /// Moments as milliseconds since `born`, plus one; zero is "never".
    head_since: AtomicU64,
    idle_since: AtomicU64,
    blocked_since: AtomicU64,
    /// What part of a tenth of its age is added to it, in 256ths.
    spread: u8,
}

const NOT_HTTP2: u8 = u8::MAX;

/// What the timer of a connection decides.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// Look again then.
    Again(Instant),
    /// Nobody uses the connection: say goodbye.
    Idle,
    /// The connection is old: tell the client to open another, and serve what it has.
    Old,
    /// The peer does what attackers do: cut it.
    Stalled(&'static str),
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            born: Instant::now(),
            preface: AtomicU8::new(0),
            open: AtomicU32::new(0),
            bodies: AtomicU32::new(0),
            asked_upgrade: AtomicBool::new(false),
            going_to_rest: AtomicBool::new(false),
            head_since: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            blocked_since: AtomicU64::new(0),
            spread: RandomState::new().hash_one(()) as u8,
        }
    }

    pub(super) fn received(&self, bytes: &[u8]) {
        self.watch_preface(bytes);
        if self.open.load(Relaxed) == 0 && !self.is_http2() {
            self.head_began();
        }
    }

    pub(super) fn head_began(&self) {
        if self.head_since.load(Relaxed) == 0 {
            self.head_since.store(self.mark(), Relaxed);
        }
    }

    pub(super) fn write_blocked(&self) {
        if self.blocked_since.load(Relaxed) == 0 {
            self.blocked_since.store(self.mark(), Relaxed);
        }
    }

    pub(super) fn write_moved(&self) {
        if self.blocked_since.load(Relaxed) != 0 {
            self.blocked_since.store(0, Relaxed);
        }
    }

    pub(super) fn request_began(&self) {
        self.head_since.store(0, Relaxed);
        self.open.fetch_add(1, Relaxed);
    }

    pub(super) fn request_ended(&self) {
        self.idle_since.store(self.mark(), Relaxed);
        self.open.fetch_sub(1, Relaxed);
    }

    pub(super) fn body_began(&self) {
        self.bodies.fetch_add(1, Relaxed);
    }

    pub(super) fn body_ended(&self) {
        self.bodies.fetch_sub(1, Relaxed);
    }

    pub(super) fn upgrade_asked(&self) {
        self.asked_upgrade.store(true, Relaxed);
    }

    pub(super) fn is_http2(&self) -> bool {
        usize::from(self.preface.load(Relaxed)) == PREFACE.len()
    }

    pub(super) fn is_http1(&self) -> bool {
        self.preface.load(Relaxed) == NOT_HTTP2
    }

    pub(super) fn is_going_to_rest(&self) -> bool {
        self.going_to_rest.load(Relaxed)
    }

    pub(super) fn going_to_rest(&self, going: bool) {
        self.going_to_rest.store(going, Relaxed);
    }

    /// When the head that is coming in has to be complete.
    pub(super) fn head_deadline(&self, limits: &HttpSettings) -> Option<Instant> {
        self.moment(&self.head_since).map(|since| since + limits.header_read_timeout)
    }

    /// What to do now, and when to look again: at the next limit, and no later than the shortest of them, because
    /// what the connection does in between doesn't touch the timer.
    pub(super) fn verdict(&self, limits: &HttpSettings, draining_since: Option<Instant>) -> Verdict {
        let now = Instant::now();
        // A drain waits for verdicts, nothing else does.
        let tick = if draining_since.is_some() { tick(limits).min(LATE_REQUEST_GRACE) } else { tick(limits) };
        match self.judge(limits, draining_since, now) {
            Verdict::Again(moment) => Verdict::Again(moment.min(now + tick)),
            verdict => verdict,
        }
    }

    fn judge(&self, limits: &HttpSettings, draining_since: Option<Instant>, now: Instant) -> Verdict {
        if let Some(since) = self.moment(&self.blocked_since) {
            return by(since + limits.write_timeout, now, Verdict::Stalled("the client doesn't read its response"));
        }
        if let Some(verdict) = self.judge_age(limits, now).filter(|_| draining_since.is_none()) {
            return verdict;
        }
        if self.open.load(Relaxed) > 0 {
            return Verdict::Again(now + limits.write_timeout); // the requests have deadlines of their own
        }
        if let Some(deadline) = self.head_deadline(limits) {
            return by(deadline, now, Verdict::Stalled("the head of a request took too long"));
        }
        let silent = self.preface.load(Relaxed) == 0;
        let used = self.moment(&self.idle_since).unwrap_or(self.born);
        match draining_since {
            Some(since) => by((since + LATE_REQUEST_GRACE).max(used + BUSY_CLIENT), now, Verdict::Idle),
            None if silent => by(self.born + limits.first_byte_timeout, now, Verdict::Stalled("no byte ever came")),
            None => by(used + limits.idle_timeout, now, Verdict::Idle),
        }
    }

    /// What is due to an HTTP/2 connection by its age alone. `Old` is said again until it has ended.
    fn judge_age(&self, limits: &HttpSettings, now: Instant) -> Option<Verdict> {
        let age = limits.http2_max_age;
        if age.is_zero() || !self.is_http2() {
            return None;
        }
        let old = self.born + age + age.mul_f64(f64::from(self.spread) / 2560.0);
        if old + limits.http2_max_age_grace <= now {
            return Some(Verdict::Stalled("its calls went on beyond the connection's age and grace"));
        }
        (old <= now).then_some(Verdict::Old)
    }

    fn watch_preface(&self, bytes: &[u8]) {
        let seen = self.preface.load(Relaxed);
        if seen == NOT_HTTP2 || self.is_http2() {
            return;
        }
        let wanted = &PREFACE[usize::from(seen)..];
        let length = wanted.len().min(bytes.len());
        if bytes[..length] == wanted[..length] {
            self.preface.store(seen + length as u8, Relaxed); // at most 24
            if self.is_http2() {
                self.head_since.store(0, Relaxed);
                self.idle_since.store(self.mark(), Relaxed);
            }
        } else {
            self.preface.store(NOT_HTTP2, Relaxed);
        }
    }

    fn mark(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn moment(&self, mark: &AtomicU64) -> Option<Instant> {
        match mark.load(Relaxed) {
            0 => None,
            mark => Some(self.at(mark)),
        }
    }

    fn at(&self, mark: u64) -> Instant {
        self.born + Duration::from_millis(mark - 1)
    }
}

/// The longest a verdict holds. Never zero, or the timer would spin.
pub(super) fn tick(limits: &HttpSettings) -> Duration {
    let mut shortest = limits.first_byte_timeout.min(limits.write_timeout).min(limits.idle_timeout);
    if !limits.http2_max_age.is_zero() {
        shortest = shortest.min(limits.http2_max_age);
    }
    shortest.max(Duration::from_millis(1))
}

fn by(deadline: Instant, now: Instant, verdict: Verdict) -> Verdict {
    if deadline <= now { verdict } else { Verdict::Again(deadline) }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pass(time: Duration) {
        tokio::time::advance(time).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_is_given_the_first_byte_timeout() {
        let (limits, activity) = (HttpSettings::default(), Activity::new());
        assert_eq!(activity.verdict(&limits, None), Verdict::Again(Instant::now() + limits.first_byte_timeout));
        pass(limits.first_byte_timeout).await;
        assert_eq!(activity.verdict(&limits, None), Verdict::Stalled("no byte ever came"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dribbled_head_is_measured_from_its_first_byte() {
        let (limits, activity) = (HttpSettings::default(), Activity::new());
        for _ in 0..4 {
            activity.received(b"G");
            pass(limits.header_read_timeout / 4).await;
        }
        assert!(matches!(activity.verdict(&limits, None), Verdict::Stalled(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dribbled_preface_is_a_dribbled_head_and_a_whole_one_is_an_idle_connection() {
        let (limits, activity) = (HttpSettings::default(), Activity::new());
        activity.received(&PREFACE[..5]);
        assert!(activity.head_deadline(&limits).is_some());
        activity.received(&PREFACE[5..]);
        assert!(activity.is_http2());
        pass(limits.header_read_timeout).await;
        assert!(matches!(activity.verdict(&limits, None), Verdict::Again(_)));
        pass(limits.idle_timeout).await;
        assert_eq!(activity.verdict(&limits, None), Verdict::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_from_the_end_of_its_last_response() {
        let (limits, activity) = (HttpSettings::default(), Activity::new());
        activity.received(b"GET / HTTP/1.1\r\n\r\n");
        activity.request_began();
        pass(limits.idle_timeout * 2).await;
        assert!(matches!(activity.verdict(&limits, None), Verdict::Again(_)));
        activity.request_ended();
        assert_eq!(activity.verdict(&limits, None), Verdict::Again(Instant::now() + tick(&limits)));
        pass(limits.idle_timeout - Duration::from_secs(1)).await;
        assert_eq!(activity.verdict(&limits, None), Verdict::Again(Instant::now() + Duration::from_secs(1)));
        pass(Duration::from_secs(1)).await;
        assert_eq!(activity.verdict(&limits, None), Verdict::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_reading_is_cut() {
        let (limits, activity) = (HttpSettings::default(), Activity::new());
        activity.received(b"GET / HTTP/1.1\r\n\r\n");
        activity.request_began();
        activity.write_blocked();
        pass(limits.write_timeout / 2).await;
        activity.write_moved();
        activity.write_blocked();
        pass(limits.write_timeout / 2).await;
        assert!(matches!(activity.verdict(&limits, None), Verdict::Again(_)));
        pass(limits.write_timeout).await;
        assert!(matches!(activity.verdict(&limits, None), Verdict::Stalled(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_gets_a_short_grace_when_the_server_drains() {
        let (limits, activity) = (HttpSettings::default(), Activity::new());
        pass(BUSY_CLIENT).await;
        let since = Some(Instant::now());
        assert_eq!(activity.verdict(&limits, since), Verdict::Again(Instant::now() + LATE_REQUEST_GRACE));
        pass(LATE_REQUEST_GRACE).await;
        assert_eq!(activity.verdict(&limits, since), Verdict::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_in_use_waits_for_the_next_request_of_its_client_when_the_server_drains() {
        let (limits, activity) = (HttpSettings::default(), Activity::new());
        activity.received(b"GET / HTTP/1.1\r\n\r\n");
        activity.request_began();
        let since = Some(Instant::now());
        pass(BUSY_CLIENT).await;
        activity.request_ended();
        pass(BUSY_CLIENT - LATE_REQUEST_GRACE).await;
        assert_eq!(activity.verdict(&limits, since), Verdict::Again(Instant::now() + LATE_REQUEST_GRACE));
        pass(LATE_REQUEST_GRACE).await;
        assert_eq!(activity.verdict(&limits, since), Verdict::Idle);
    }
}
