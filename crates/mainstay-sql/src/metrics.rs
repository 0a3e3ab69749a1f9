//! What a database tells `/metrics`: connections, waits for them, and how long statements take.

use std::time::Duration;

use mainstay_core::Code;
use mainstay_telemetry::Metrics;
use mainstay_telemetry::prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use mainstay_telemetry::prometheus_client::metrics::counter::Counter;
use mainstay_telemetry::prometheus_client::metrics::family::Family;
use mainstay_telemetry::prometheus_client::metrics::gauge::Gauge;
use mainstay_telemetry::prometheus_client::metrics::histogram::Histogram;
use mainstay_telemetry::prometheus_client::registry::Unit;

/// The metrics of one database. A clone counts into the same ones.
#[derive(Clone)]
#[cfg_attr(
    not(any(feature = "mysql", feature = "postgres")),
    allow(dead_code, reason = "SQLite has threads of its own and no pool to count")
)]
pub(crate) struct SqlMetrics {
    pub(crate) idle: Gauge,
    pub(crate) used: Gauge,
    pub(crate) wait: Histogram,
    pub(crate) acquire_timeouts: Counter,
    operations: Family<OperationLabels, Histogram, fn() -> Histogram>,
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

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OperationLabels {
    operation: Operation,
    outcome: Outcome,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct StateLabels {
    state: &'static str,
}

/// `None` is success.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Outcome(Option<Code>);

impl SqlMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let connections = Family::<StateLabels, Gauge>::default();
        let sql = Self {
            idle: connections.get_or_create_owned(&StateLabels { state: "idle" }),
            used: connections.get_or_create_owned(&StateLabels { state: "used" }),
            wait: seconds(),
            acquire_timeouts: Counter::default(),
            operations: Family::new_with_constructor(seconds as fn() -> Histogram),
        };
        metrics.register("sql_client_connections", "Open connections to the database", None, connections);
        metrics.register(
            "sql_client_connection_wait",
            "Time until a connection was free",
            Some(Unit::Seconds),
            sql.wait.clone(),
        );
        metrics.register(
            "sql_client_connection_timeouts",
            "Statements that gave up waiting for a connection",
            None,
            sql.acquire_timeouts.clone(),
        );
        metrics.register(
            "sql_client_operation_duration",
            "Time from a statement's call to its end, the wait for a connection included",
            Some(Unit::Seconds),
            sql.operations.clone(),
        );
        sql
    }

    /// Counts one statement. `outcome` is `None` when it succeeded.
    pub(crate) fn operation(&self, operation: Operation, outcome: Option<Code>, took: Duration) {
        let labels = OperationLabels { operation, outcome: Outcome(outcome) };
        self.operations.get_or_create(&labels).observe(took.as_secs_f64());
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

impl EncodeLabelValue for Operation {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.name(), encoder)
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self.0 {
            None => EncodeLabelValue::encode(&"ok", encoder),
            Some(code) => EncodeLabelValue::encode(&code.to_string(), encoder),
        }
    }
}

/// From a cached read to the longest a request may take, a minute.
fn seconds() -> Histogram {
    Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0])
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
        sql.operation(Operation::Insert, Some(Code::AlreadyExists), Duration::from_millis(3));
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
