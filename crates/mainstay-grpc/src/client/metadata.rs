//! What a call tells about its caller: what is left of the deadline, trace, request id.

use std::time::Duration;

use mainstay_core::{Code, Context, Error, Result};
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

use super::HOP_ALLOWANCE;

/// A request with `message` that belongs to `ctx`.
pub(super) fn signed<T>(ctx: &Context, message: T) -> Result<tonic::Request<T>> {
    let mut request = tonic::Request::new(message);
    let metadata = request.metadata_mut();
    if let Some(left) = ctx.remaining() {
        let left = left.checked_sub(HOP_ALLOWANCE).filter(|left| !left.is_zero()).ok_or_else(|| {
            Error::new(Code::DeadlineExceeded, "too little of the deadline is left to call another service")
        })?;
        put(metadata, "grpc-timeout", &timeout(left));
    }
    if let Some(trace) = ctx.trace() {
        put(metadata, "traceparent", &trace.traceparent());
        put(metadata, "tracestate", trace.state.as_deref().unwrap_or_default());
        put(metadata, "baggage", trace.baggage.as_deref().unwrap_or_default());
    }
    put(metadata, "x-request-id", ctx.request_id().map(|id| id.as_str()).unwrap_or_default());
    Ok(request)
}

/// Leaves out what is empty, and what no header can hold.
fn put(metadata: &mut MetadataMap, name: &'static str, value: &str) {
    if let Ok(value) = AsciiMetadataValue::try_from(value)
        && !value.is_empty()
    {
        metadata.insert(name, value);
    }
}

/// At most eight digits, rounded down: a server that gives up too late has worked for nobody.
fn timeout(left: Duration) -> String {
    const MOST: u128 = 99_999_999;
    let units =
        [(left.as_nanos(), 'n'), (left.as_micros(), 'u'), (left.as_millis(), 'm'), (left.as_secs().into(), 'S')];
    let fitting = units.into_iter().find(|(number, _)| *number <= MOST);
    fitting.map_or_else(|| format!("{MOST}S"), |(number, unit)| format!("{number}{unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_has_eight_digits_and_is_never_longer() {
        for (left, written) in [
            (Duration::from_nanos(1), "1n"),
            (Duration::from_millis(99), "99000000n"),
            (Duration::from_millis(100), "100000u"),
            (Duration::from_secs(30), "30000000u"),
            (Duration::from_micros(100_000_001), "100000m"),
            (Duration::from_secs(200_000), "200000S"),
            (Duration::from_secs(u64::MAX), "99999999S"),
        ] {
            assert_eq!(timeout(left), written, "{left:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_can_not_come_home_is_not_made() {
        let ctx = Context::background().with_timeout(Duration::from_millis(4));
        assert_eq!(signed(&ctx, ()).unwrap_err().code(), Code::DeadlineExceeded);
        let ctx = Context::background().with_timeout(Duration::from_millis(105));
        assert_eq!(signed(&ctx, ()).unwrap().metadata().get("grpc-timeout").unwrap(), "100000u");
    }
}
