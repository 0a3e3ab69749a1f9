//! `/debug/pprof`: profiles for `go tool pprof`.

use std::time::Duration;

use axum::extract::RawQuery;
use axum::response::{IntoResponse, Response};
use http::header;
use mainstay_core::{Context, Result};
use mainstay_telemetry::profile;

pub(crate) async fn cpu(ctx: Context, RawQuery(query): RawQuery) -> Result<Response> {
    let length = seconds(query.as_deref().unwrap_or_default());
    tracing::info!(target: "mainstay::audit", action = "profile.cpu", seconds = length.as_secs(), "a profile was asked for");
    Ok(file("profile.pb.gz", profile::cpu(&ctx, length).await?))
}

pub(crate) async fn heap() -> Result<Response> {
    Ok(file("heap.pb.gz", profile::heap().await?))
}

/// 30 where nothing is asked, as Go has it, and zero, which is refused, for what can't be read.
fn seconds(query: &str) -> Duration {
    let asked = query.split('&').find_map(|pair| pair.strip_prefix("seconds="));
    Duration::from_secs(asked.map_or(30, |seconds| seconds.parse().unwrap_or(0)))
}

fn file(name: &str, profile: Vec<u8>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    (headers, profile).into_response()
}
