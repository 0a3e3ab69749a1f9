//! The request metrics, by the OpenTelemetry semantic conventions. No request takes a lock for them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mainstay_core::{Code, Context};
use mainstay_telemetry::prometheus_client::metrics::gauge::Gauge;
use mainstay_telemetry::{Durations as Histogram, Metrics, Series};

/// What the pipeline counts.
#[derive(Clone)]
pub(super) struct RequestMetrics {
    durations: Series<Histogram>,
    active: Series<Gauge>,
    deadline_left: Series<Histogram>,
    calls: Series<Histogram>,
}

impl RequestMetrics {
    pub(super) fn register(metrics: &Metrics) -> Self {
        Self {
            durations: metrics.durations(
                "http_server_request_duration",
                "How long requests took, to the last byte of their response",
                &["http_request_method", "http_route", "http_response_status_code"],
            ),
            active: metrics.gauges(
                "http_server_active_requests",
                "Requests that have begun and whose responses have not ended",
                &["http_request_method"],
            ),
            deadline_left: metrics.durations(
                "http_server_deadline_left",
                "How much of its deadline a request had left at its end, 0 for one that had none left",
                &["http_request_method", "http_route"],
            ),
            calls: metrics.durations(
                "rpc_server_call_duration",
                "How long calls took, to the last byte of their answer",
                &["rpc_system_name", "rpc_method", "rpc_response_status_code"],
            ),
        }
    }

    pub(super) fn active(&self, method: &'static str) -> Gauge {
        self.active.with(&[method])
    }

    pub(super) fn deadline_left(&self, method: &'static str, route: &str) -> Histogram {
        self.deadline_left.with(&[method, route])
    }

    pub(super) fn calls(&self, template: Arc<str>) -> Calls {
        Calls { series: self.calls.clone(), template, known: Default::default() }
    }

    pub(super) fn durations(&self, method: &'static str, route: Arc<str>) -> Durations {
        Durations { series: self.durations.clone(), method, route, known: Default::default() }
    }
}

/// The histograms of one method of one route, found once per status.
pub(super) struct Durations {
    series: Series<Histogram>,
    method: &'static str,
    route: Arc<str>,
    /// Few routes answer with more kinds of status than this; the rest is looked up under the family's lock.
    known: [OnceLock<(u16, Histogram)>; 8],
}

impl Durations {
    pub(super) fn observe(&self, ctx: &Context, status: u16, duration: Duration) {
        for slot in &self.known {
            let (known, histogram) = slot.get_or_init(|| (status, self.find(status)));
            if *known == status {
                return histogram.observe_in(ctx, duration);
            }
        }
        self.find(status).observe_in(ctx, duration);
    }

    fn find(&self, status: u16) -> Histogram {
        self.series.with(&[self.method, &self.route, &status.to_string()])
    }
}

/// The histograms of one method of a dialect, found once per code.
pub(super) struct Calls {
    series: Series<Histogram>,
    template: Arc<str>,
    known: [OnceLock<Histogram>; Code::ALL.len() + 1],
}

impl Calls {
    pub(super) fn observe(&self, ctx: &Context, system: &'static str, ended: Result<(), Code>, duration: Duration) {
        let (index, code) = ended.map_or_else(|code| (code as usize, code.name()), |()| (0, "OK"));
        let find = || self.series.with(&[system, method_of(&self.template), code]);
        match self.known.get(index) {
            Some(slot) => slot.get_or_init(find).observe_in(ctx, duration),
            None => find().observe_in(ctx, duration),
        }
    }
}

/// `shop.v1.Orders/PlaceOrder`; what nobody offers goes under one name, so that a client can't invent labels.
pub(super) fn method_of(template: &str) -> &str {
    match template.strip_prefix('/') {
        Some(method) if !method.is_empty() => method,
        _ => "_OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_land_in_their_buckets_and_many_statuses_are_all_counted() {
        let metrics = Metrics::new();
        let durations = RequestMetrics::register(&metrics).durations("GET", "/v1/things/{id}".into());
        durations.observe(&Context::background(), 200, Duration::from_millis(1));
        durations.observe(&Context::background(), 200, Duration::from_secs(45));
        durations.observe(&Context::background(), 200, Duration::from_secs(90));
        for status in 500..520 {
            durations.observe(&Context::background(), status, Duration::from_millis(2));
            durations.observe(&Context::background(), status, Duration::from_millis(2));
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
