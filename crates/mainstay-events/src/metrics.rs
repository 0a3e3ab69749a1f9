//! What events tell `/metrics`.

use mainstay_core::Context;
use mainstay_telemetry::prometheus_client::encoding::EncodeLabelSet;
use mainstay_telemetry::prometheus_client::metrics::counter::Counter;
use mainstay_telemetry::prometheus_client::metrics::family::Family;
use mainstay_telemetry::prometheus_client::metrics::gauge::Gauge;
use mainstay_telemetry::prometheus_client::registry::Unit;
use mainstay_telemetry::{Durations, Metrics, Series};

/// The metrics of a service's events. A clone counts into the same ones.
#[derive(Clone)]
pub(crate) struct EventMetrics {
    pub(crate) published: Counter,
    pub(crate) moved: Counter,
    pub(crate) taken_in: Counter,
    pub(crate) redelivered: Counter,
    pub(crate) unknown_commits: Counter,
    pub(crate) outbox_depth: Gauge,
    pub(crate) outbox_oldest: Gauge,
    pub(crate) held: Gauge,
    pub(crate) leases: Family<NameLabels, Gauge>,
    pub(crate) lag: Family<GroupLabels, Gauge>,
    pub(crate) retries: Family<GroupLabels, Gauge>,
    pub(crate) dead: Family<GroupLabels, Gauge>,
    pub(crate) applied: Family<GroupLabels, Counter>,
    pub(crate) failed: Family<GroupLabels, Counter>,
    pub(crate) duplicates: Family<GroupLabels, Counter>,
    handling: Series<Durations>,
}

/// A group, of which a service has few.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct GroupLabels {
    pub(crate) group: String,
}

/// What the leases are for: `relay` or a group.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct NameLabels {
    pub(crate) name: String,
}

impl EventMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let m = Self {
            published: Counter::default(),
            moved: Counter::default(),
            taken_in: Counter::default(),
            redelivered: Counter::default(),
            unknown_commits: Counter::default(),
            outbox_depth: Gauge::default(),
            outbox_oldest: Gauge::default(),
            held: Gauge::default(),
            leases: Family::default(),
            lag: Family::default(),
            retries: Family::default(),
            dead: Family::default(),
            applied: Family::default(),
            failed: Family::default(),
            duplicates: Family::default(),
            handling: metrics.durations("events_handler_duration", "Time of one run of a handler", &["group"]),
        };
        let of = |name: &str, help: &str, unit: Option<Unit>, counter: &Counter| {
            metrics.register(name, help, unit, counter.clone());
        };
        of("events_published", "Events written with a transaction, committed or not", None, &m.published);
        of("events_moved", "Events that the relay moved out of the outbox", None, &m.moved);
        of("events_taken_in", "Events that came from the broker and are in the log", None, &m.taken_in);
        of(
            "events_redelivered",
            "Deliveries of the broker that were dropped, as they had come before",
            None,
            &m.redelivered,
        );
        of("events_unknown_commits", "Commits whose outcome is unknown", None, &m.unknown_commits);
        metrics.register(
            "events_outbox_depth",
            "Events that the relay has not moved yet",
            None,
            m.outbox_depth.clone(),
        );
        metrics.register(
            "events_outbox_oldest_age",
            "Age of the oldest of them",
            Some(Unit::Seconds),
            m.outbox_oldest.clone(),
        );
        metrics.register(
            "events_held",
            "1 while this process takes nothing out of the outbox, because of a cut-over or of its configuration",
            None,
            m.held.clone(),
        );
        metrics.register("events_leases", "Partitions that this process works on", None, m.leases.clone());
        metrics.register("events_lag", "Events that the group has not applied", None, m.lag.clone());
        metrics.register("events_retries", "Events that wait for another try", None, m.retries.clone());
        metrics.register("events_dead", "Dead letters", None, m.dead.clone());
        metrics.register("events_applied", "Events that were applied by this process", None, m.applied.clone());
        metrics.register("events_failed", "Runs of handlers that failed", None, m.failed.clone());
        metrics.register(
            "events_duplicates",
            "Deliveries that were dropped because the event was applied already",
            None,
            m.duplicates.clone(),
        );
        m
    }

    /// Shows the counters of `group` from the beginning: a rate can't see the first of what was not there before.
    pub(crate) fn expect(&self, group: &str) {
        for counters in [&self.applied, &self.failed, &self.duplicates] {
            drop(counters.get_or_create(&GroupLabels::of(group)));
        }
    }

    pub(crate) fn handled(&self, ctx: &Context, group: &'static str, took: std::time::Duration) {
        self.handling.with(&[group]).observe_in(ctx, took);
    }
}

impl GroupLabels {
    pub(crate) fn of(group: &str) -> Self {
        Self { group: group.to_owned() }
    }
}
