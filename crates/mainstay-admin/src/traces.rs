//! `/debug/traces`: what failed or was slow, with all its spans.

use std::time::UNIX_EPOCH;

use axum::Json;
use axum::extract::State;
use mainstay_telemetry::trace::{FinishedSpan, KeptTrace};
use serde_json::{Map, Value, json};

use crate::Shared;

pub(crate) async fn show(State(admin): Shared) -> Json<Value> {
    Json(admin.tracer.kept().iter().map(trace).collect())
}

fn trace(kept: &KeptTrace) -> Value {
    let spans: Vec<Value> = kept.spans.iter().rev().map(span).collect();
    let trace_id = kept.spans.last().map(|root| format!("{:032x}", root.trace_id));
    json!({ "trace_id": trace_id, "reason": kept.reason, "spans": spans })
}

fn span(span: &FinishedSpan) -> Value {
    let began = span.began.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let attributes: Map<_, _> = span
        .attributes
        .iter()
        .filter_map(|(name, _)| Some(((*name).to_owned(), span.attribute(name)?.into())))
        .collect();
    json!({
        "span_id": format!("{:016x}", span.span_id),
        "parent_id": format!("{:016x}", span.parent_id),
        "name": &*span.name,
        "began": began,
        "milliseconds": span.took.as_secs_f64() * 1e3,
        "error": span.error,
        "attributes": attributes,
    })
}
