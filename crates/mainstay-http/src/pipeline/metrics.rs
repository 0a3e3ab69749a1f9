//! The request metrics, by the OpenTelemetry semantic conventions. No request takes a lock for them.

use std::fmt::{self, Debug};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mainstay_telemetry::Metrics;
use mainstay_telemetry::prometheus_client::encoding::{
    EncodeLabel, EncodeLabelSet, EncodeMetric, LabelSetEncoder, MetricEncoder, NoLabelSet,
};
use mainstay_telemetry::prometheus_client::metrics::family::Family;
use mainstay_telemetry::prometheus_client::metrics::gauge::Gauge;
use mainstay_telemetry::prometheus_client::metrics::{MetricType, TypedMetric};
use mainstay_telemetry::prometheus_client::registry::Unit;

/// The upper bounds of the buckets in seconds: the convention's, with 1 and 2.5 ms for services that answer from
/// memory, and 30 and 60 s because a request that hits its deadline must not vanish in "more than 10".
const BOUNDS: [f64; 18] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0];

/// `http_server_request_duration_seconds` and `http_server_active_requests`.
#[derive(Clone)]
pub(super) struct RequestMetrics {
    durations: Family<RequestLabels, DurationHistogram>,
    active: Family<MethodLabel, Gauge>,
}

impl RequestMetrics {
    pub(super) fn register(metrics: &Metrics) -> Self {
        let durations = metrics.register(
            "http_server_request_duration",
            "How long requests took, to the last byte of their response",
            Some(Unit::Seconds),
            Family::default(),
        );
        let active = metrics.register(
            "http_server_active_requests",
            "Requests that have begun and whose responses have not ended",
            None,
            Family::default(),
        );
        Self { durations, active }
    }

    pub(super) fn active(&self, method: &'static str) -> Gauge {
        self.active.get_or_create_owned(&MethodLabel(method))
    }

    pub(super) fn durations(&self, method: &'static str, route: Arc<str>) -> Durations {
        Durations { family: self.durations.clone(), method, route, known: Default::default() }
    }
}

/// The histograms of one method of one route, found once per status.
pub(super) struct Durations {
    family: Family<RequestLabels, DurationHistogram>,
    method: &'static str,
    route: Arc<str>,
    /// Few routes answer with more kinds of status than this; the rest is looked up under the family's lock.
    known: [OnceLock<(u16, DurationHistogram)>; 8],
}

impl Durations {
    pub(super) fn observe(&self, status: u16, duration: Duration) {
        for slot in &self.known {
            let (known, histogram) = slot.get_or_init(|| (status, self.find(status)));
            if *known == status {
                return histogram.observe(duration);
            }
        }
        self.find(status).observe(duration);
    }

    fn find(&self, status: u16) -> DurationHistogram {
        self.family.get_or_create_owned(&RequestLabels { method: self.method, route: self.route.clone(), status })
    }
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct RequestLabels {
    method: &'static str,
    route: Arc<str>,
    status: u16,
}

impl EncodeLabelSet for RequestLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        ("http_request_method", self.method).encode(encoder.encode_label())?;
        ("http_route", &*self.route).encode(encoder.encode_label())?;
        ("http_response_status_code", u64::from(self.status)).encode(encoder.encode_label())
    }
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct MethodLabel(&'static str);

impl EncodeLabelSet for MethodLabel {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        ("http_request_method", self.0).encode(encoder.encode_label())
    }
}

/// A histogram of durations made of atomics: the client library's own takes a lock to observe.
#[derive(Clone, Default)]
struct DurationHistogram(Arc<Buckets>);

#[derive(Default)]
struct Buckets {
    /// One more than there are bounds, for what is above the last.
    counts: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64, // holds five centuries of summed durations
}

impl DurationHistogram {
    fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        self.0.counts[bucket].fetch_add(1, Relaxed);
        self.0.nanoseconds.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }
}

impl EncodeMetric for DurationHistogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(self.0.counts.iter().map(|count| count.load(Relaxed))).collect();
        // The count is the sum of the buckets read, so that a scrape is consistent in itself.
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(self.0.nanoseconds.load(Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for DurationHistogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl Debug for DurationHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DurationHistogram")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_land_in_their_buckets_and_many_statuses_are_all_counted() {
        let metrics = Metrics::new();
        let durations = RequestMetrics::register(&metrics).durations("GET", "/v1/things/{id}".into());
        durations.observe(200, Duration::from_millis(1));
        durations.observe(200, Duration::from_secs(45));
        durations.observe(200, Duration::from_secs(90));
        for status in 500..520 {
            durations.observe(status, Duration::from_millis(2));
            durations.observe(status, Duration::from_millis(2));
        }
        let text = metrics.render();
        let labels = r#"http_request_method="GET",http_route="/v1/things/{id}",http_response_status_code="200""#;
        for (bound, count) in [("0.001", 1), ("30.0", 1), ("60.0", 2), ("+Inf", 3)] {
            let with_le =
                [format!(r#"{{le="{bound}",{labels}}} {count}"#), format!(r#"{{{labels},le="{bound}"}} {count}"#)];
            assert!(with_le.iter().any(|line| text.contains(line)), "{bound}");
        }
        assert!(text.contains(&format!("http_server_request_duration_seconds_sum{{{labels}}} 135.001")), "{text}");
        for status in 500..520 {
            assert!(text.lines().any(|line| line.contains("_count") && line.contains(&format!("\"{status}\"}} 2"))));
        }
    }
}
