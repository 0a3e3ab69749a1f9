//! [`Repeats`]: how often each place in the code has logged in this second, so that a storm can be cut short.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Places that are told apart. A program has some hundreds that ever log; those above share the last entry.
const PLACES: usize = 1024;

/// The target of the lines that tell what was left out. They are never left out themselves.
pub(super) const TOLD: &str = "mainstay::log";

pub(super) struct Repeats {
    limit: u32,
    began: Instant,
    places: Box<[Place]>,
    /// Whether anything was left out since the last look.
    left_out: AtomicU64,
    /// The second in which that was told last.
    told: AtomicU64,
}

/// One place in the code that logs.
#[derive(Default)]
struct Place {
    metadata: OnceLock<&'static Metadata<'static>>,
    second: AtomicU64,
    lines: AtomicU32,
    left_out: AtomicU64,
}

impl Repeats {
    pub(super) fn new(limit: u32) -> Self {
        let places = if limit == 0 { 0 } else { PLACES };
        Self {
            limit,
            began: Instant::now(),
            places: (0..places).map(|_| Place::default()).collect(),
            left_out: AtomicU64::new(0),
            told: AtomicU64::new(0),
        }
    }

    /// Whether a line from this place is written. Takes no lock: it is asked for every line.
    fn admit(&self, metadata: &'static Metadata<'static>) -> bool {
        if self.limit == 0 || metadata.target() == TOLD {
            return true;
        }
        let second = self.began.elapsed().as_secs();
        let Some(place) = self.place(metadata) else { return true };
        // Two threads at the turn of a second may both begin it anew: a few lines more than the limit.
        if place.second.load(Relaxed) != second {
            place.second.store(second, Relaxed);
            place.lines.store(0, Relaxed);
        }
        if place.lines.fetch_add(1, Relaxed) < self.limit {
            return true;
        }
        place.left_out.fetch_add(1, Relaxed);
        self.left_out.store(1, Relaxed);
        false
    }

    fn place(&self, metadata: &'static Metadata<'static>) -> Option<&Place> {
        let address = std::ptr::from_ref(metadata).addr();
        let first = (address >> 3).wrapping_mul(0x9e37_79b9) % self.places.len().max(1);
        let probes = (0..self.places.len()).map(|step| &self.places[(first + step) % self.places.len()]);
        let found = probes.take(16).find(|place| std::ptr::eq(*place.metadata.get_or_init(|| metadata), metadata));
        found.or(self.places.last())
    }

    /// Tells what was left out, if anything was.
    pub(super) fn tell(&self) {
        self.take(|LeftOut { lines, of, level, place, limit }| {
            tracing::warn!(target: TOLD, left_out = lines, of, of_level = level, %place, limit, "{LEFT_OUT}");
        });
    }

    /// Hands `tell` what was left out, at most once a second: asked at every line, so that a storm tells of itself.
    pub(super) fn in_passing(&self, tell: impl FnMut(LeftOut<'_>)) {
        if self.left_out.load(Relaxed) == 0 {
            return;
        }
        let second = self.began.elapsed().as_secs();
        let told = self.told.load(Relaxed);
        if told < second && self.told.compare_exchange(told, second, Relaxed, Relaxed).is_ok() {
            self.take(tell);
        }
    }

    fn take(&self, mut tell: impl FnMut(LeftOut<'_>)) {
        if self.left_out.swap(0, Relaxed) == 0 {
            return;
        }
        for place in &self.places {
            let lines = place.left_out.swap(0, Relaxed);
            if let (Some(metadata), true) = (place.metadata.get(), lines > 0) {
                let (file, line) = (metadata.file().unwrap_or("?"), metadata.line().unwrap_or(0));
                tell(LeftOut {
                    lines,
                    of: metadata.target(),
                    level: metadata.level().as_str(),
                    place: format!("{file}:{line}"),
                    limit: self.limit,
                });
            }
        }
    }
}

/// What is said about lines that were left out.
pub(super) const LEFT_OUT: &str = "lines were left out: more than log.repeats came within a second";

/// Lines of one place that were left out.
pub(super) struct LeftOut<'a> {
    pub(super) lines: u64,
    pub(super) of: &'a str,
    pub(super) level: &'a str,
    pub(super) place: String,
    pub(super) limit: u32,
}

/// Lets those lines through that [`Repeats`] admits.
pub(super) struct Unrepeated(pub(super) Arc<Repeats>);

impl<S: Subscriber> Layer<S> for Unrepeated {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.0.admit(event.metadata())
    }
}
