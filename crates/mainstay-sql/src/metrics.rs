//! What a database tells `/metrics`: connections, waits for them, and how long statements take.

use std::time::Duration;

use mainstay_core::{Code, Context};
use mainstay_telemetry::prometheus_client::metrics::counter::Counter;
use mainstay_telemetry::prometheus_client::metrics::gauge::Gauge;
use mainstay_telemetry::{Durations, Metrics, Series};

/// The metrics of one database. A clone counts into the same ones.
#[derive(Clone)]
#[cfg_attr(
    not(any(feature = "mysql", feature = "postgres")),
    allow(dead_code, reason = "SQLite has threads of its own and no pool to count")
)]
pub(crate) struct SqlMetrics {
    pub(crate) idle: Gauge,
    pub(crate) used: Gauge,
    pub(crate) max: Gauge,
    pub(crate) wait: Durations,
    pub(crate) acquire_timeouts: Counter,
    operations: Series<Durations>,
}

/// The first word of a statement, out of a closed set so that no text becomes a label.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Operation {
    Delete,
    Insert,
    Other,
    Select,
    Update,
}

impl SqlMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let connections = metrics.gauges("sql_client_connections", "Open connections to the database", &["state"]);
        let wait = metrics.durations("sql_client_connection_wait", "Time until a connection was free", &[]);
        Self {
            idle: connections.with(&["idle"]),
            used: connections.with(&["used"]),
            max: metrics.gauge("sql_client_connections_max", "How many connections may be open; 0 without a pool"),
            wait: wait.with(&[]),
            acquire_timeouts: metrics
                .counter("sql_client_connection_timeouts", "Statements that gave up waiting for a connection"),
            operations: metrics.durations(
                "sql_client_operation_duration",
                "Time from a statement's call to its end, the wait for a connection included",
                &["operation", "outcome"],
            ),
        }
    }

    /// Counts one statement. `outcome` is `None` when it succeeded.
    pub(crate) fn operation(&self, ctx: &Context, operation: Operation, outcome: Option<Code>, took: Duration) {
        self.operations.with(&[operation.name(), outcome.map_or("ok", Code::name)]).observe_in(ctx, took);
    }
}

impl Operation {
    pub(crate) fn of(sql: &str) -> Self {
        let word = sql.split(|c: char| !c.is_ascii_alphabetic()).find(|word| !word.is_empty()).unwrap_or_default();
        [("select", Self::Select), ("insert", Self::Insert), ("update", Self::Update), ("delete", Self::Delete)]
            .into_iter()
            .find_map(|(name, operation)| word.eq_ignore_ascii_case(name).then_some(operation))
            .unwrap_or(Self::Other)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Insert => "insert",
            Self::Other => "other",
            Self::Select => "select",
            Self::Update => "update",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operation_is_the_first_word() {
        assert_eq!(Operation::of("  select 1"), Operation::Select);
        assert_eq!(Operation::of("(INSERT"), Operation::Insert);
        assert_eq!(Operation::of("WITH x AS (SELECT 1) SELECT * FROM x"), Operation::Other);
        assert_eq!(Operation::of(""), Operation::Other);
    }

    #[test]
    fn names_and_labels_are_as_documented() {
        let metrics = Metrics::new();
        let sql = SqlMetrics::new(&metrics);
        sql.used.inc();
        sql.operation(&Context::background(), Operation::Insert, Some(Code::AlreadyExists), Duration::from_millis(3));
        let text = metrics.render();
        for line in [
            "sql_client_connections{state=\"used\"} 1",
            "sql_client_connection_wait_seconds_count 0",
            "sql_client_connection_timeouts_total 0",
            "sql_client_operation_duration_seconds_count{operation=\"insert\",outcome=\"ALREADY_EXISTS\"} 1",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
