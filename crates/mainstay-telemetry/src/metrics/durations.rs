//! [`Durations`]: a histogram of durations made of atomics; the client library's own takes a lock to observe.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use mainstay_core::Context;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// The upper bounds of the buckets in seconds: those of the OpenTelemetry conventions, with some below 5 ms for what is
/// answered from memory, and 30 and 60 s because what hits its deadline must not vanish in "more than 10".
pub(super) const BOUNDS: [f64; 19] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0,
];

/// One more than there are bounds, for what is above the last.
const BUCKETS: usize = BOUNDS.len() + 1;

/// How long something took, by buckets up to a minute. A clone counts into the same ones.
#[derive(Clone, Default)]
pub struct Durations(Arc<Inner>);

#[derive(Default)]
struct Inner {
    counts: [AtomicU64; BUCKETS],
    nanoseconds: AtomicU64, // holds five centuries of summed durations
    /// Made by the first trace that is recorded.
    exemplars: OnceLock<Mutex<[Option<Exemplar>; BUCKETS]>>,
}

/// One of the durations of a bucket, and the trace that shows what took so long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exemplar {
    pub(super) trace_id: u128,
    pub(super) seconds: f64,
    pub(super) at: SystemTime,
}

impl Durations {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        self.count(duration);
    }

    /// Counts one duration, and keeps the trace of `ctx` as an example of it if that is recorded somewhere.
    pub fn observe_in(&self, ctx: &Context, duration: Duration) {
        let bucket = self.count(duration);
        let Some(trace) = ctx.trace().filter(|trace| trace.flags & 1 == 1) else { return };
        let exemplars = self.0.exemplars.get_or_init(Mutex::default);
        // Whoever finds it taken leaves it: one example is as good as another.
        if let Ok(mut exemplars) = exemplars.try_lock() {
            let (trace_id, seconds) = (trace.trace_id, duration.as_secs_f64());
            exemplars[bucket] = Some(Exemplar { trace_id, seconds, at: SystemTime::now() });
        }
    }

    fn count(&self, duration: Duration) -> usize {
        let seconds = duration.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        self.0.counts[bucket].fetch_add(1, Relaxed);
        self.0.nanoseconds.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        bucket
    }

    /// The examples there are, each with the upper bound of its bucket.
    pub(super) fn exemplars(&self) -> Vec<(f64, Exemplar)> {
        let Some(exemplars) = self.0.exemplars.get() else { return Vec::new() };
        let exemplars = *exemplars.lock().unwrap_or_else(PoisonError::into_inner);
        bounds().zip(exemplars).filter_map(|(bound, exemplar)| Some((bound, exemplar?))).collect()
    }
}

fn bounds() -> impl Iterator<Item = f64> {
    BOUNDS.into_iter().chain([f64::INFINITY])
}

impl EncodeMetric for Durations {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let buckets: Vec<_> = bounds().zip(self.0.counts.iter().map(|count| count.load(Relaxed))).collect();
        // The count is the sum of the buckets read, so that a scrape is consistent in itself.
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(self.0.nanoseconds.load(Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Durations {
    const TYPE: MetricType = MetricType::Histogram;
}

impl fmt::Debug for Durations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Durations")
    }
}
