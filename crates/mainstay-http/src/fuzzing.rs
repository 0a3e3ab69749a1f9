//! Doors for fuzzers into what is private.

use std::time::Duration;

use http::HeaderMap;

/// How long a request with these headers may take where the server allows `server`; `None` if they are refused.
pub fn time_limit(headers: &HeaderMap, server: Duration) -> Option<Duration> {
    crate::pipeline::of_headers(headers, server)
}
