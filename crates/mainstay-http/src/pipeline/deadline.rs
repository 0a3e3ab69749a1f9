//! The deadline of a request: the smallest of the server's limit, the route's, and what the caller's headers ask for.

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use mainstay_core::{Error, FieldViolation};
use tokio::time::Instant;

use super::headers::{CONNECT_TIMEOUT_MS, GRPC_TIMEOUT};
use crate::Problem;
use crate::routing::RouteOptions;

/// How long a request may take; `None` is without end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct TimeLimit(Option<Duration>);

impl TimeLimit {
    /// Refuses a malformed header: guessing a caller's deadline would break it silently.
    pub(super) fn of(headers: &HeaderMap, options: &RouteOptions, server: Duration) -> Result<Self, Problem> {
        let own = match (options.unlimited, options.deadline) {
            (true, _) => None,
            (false, Some(route)) => Some(route.min(server)),
            (false, None) => Some(server),
        };
        let grpc = read(headers, &GRPC_TIMEOUT, grpc_timeout, "1 to 8 digits and a unit (H, M, S, m, u, n), as 500m")?;
        let connect = read(headers, &CONNECT_TIMEOUT_MS, connect_timeout, "1 to 10 digits of milliseconds, as 500")?;
        Ok(Self([own, grpc, connect].into_iter().flatten().min()))
    }

    pub(super) fn deadline(self, started: Instant) -> Option<Instant> {
        self.0.and_then(|limit| started.checked_add(limit))
    }
}

/// What the headers make of the limit `server`; `None` if they are refused.
#[cfg(feature = "fuzzing")]
pub(crate) fn of_headers(headers: &HeaderMap, server: Duration) -> Option<Duration> {
    TimeLimit::of(headers, &RouteOptions::default(), server).ok().and_then(|limit| limit.0)
}

fn read(
    headers: &HeaderMap,
    name: &HeaderName,
    parse: fn(&str) -> Option<Duration>,
    expected: &str,
) -> Result<Option<Duration>, Problem> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    match value.to_str().ok().and_then(parse) {
        Some(duration) => Ok(Some(duration)),
        None => Err(Error::invalid_argument(format!("the header {name} is malformed"))
            .with_detail(FieldViolation::new(name.as_str(), format!("expected {expected}")))
            .into()),
    }
}

fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = number(digits, 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600), // eight digits: no overflow
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

fn connect_timeout(text: &str) -> Option<Duration> {
    number(text, 10).map(Duration::from_millis)
}

fn number(digits: &str, longest: usize) -> Option<u64> {
    let fits = (1..=longest).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    if fits { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: Duration = Duration::from_secs(30);

    fn limit(pairs: &[(&'static str, &str)], options: &RouteOptions) -> Result<Option<Duration>, Problem> {
        let headers =
            pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect();
        TimeLimit::of(&headers, options, SERVER).map(|limit| limit.0)
    }

    #[test]
    fn the_smallest_limit_wins_and_a_caller_can_only_shorten() {
        let route = RouteOptions { deadline: Some(Duration::from_secs(2)), ..RouteOptions::default() };
        let any = RouteOptions::default();
        for (headers, options, expected) in [
            (&[][..], &any, SERVER),
            (&[("grpc-timeout", "100m")], &any, Duration::from_millis(100)),
            (&[("connect-timeout-ms", "250")], &any, Duration::from_millis(250)),
            (&[("connect-timeout-ms", "250"), ("grpc-timeout", "1u")], &any, Duration::from_micros(1)),
            (&[("grpc-timeout", "99999999H")], &any, SERVER),
            (&[("connect-timeout-ms", "9999999999")], &route, Duration::from_secs(2)),
            (&[("grpc-timeout", "1S")], &route, Duration::from_secs(1)),
        ] {
            assert_eq!(limit(headers, options).unwrap(), Some(expected), "{headers:?}");
        }
    }

    #[test]
    fn a_route_without_a_deadline_still_hears_its_caller() {
        let stream = RouteOptions { unlimited: true, ..RouteOptions::default() };
        assert_eq!(limit(&[], &stream).unwrap(), None);
        assert_eq!(limit(&[("grpc-timeout", "2M")], &stream).unwrap(), Some(Duration::from_secs(120)));
    }

    #[test]
    fn a_malformed_header_is_refused_by_name() {
        for (name, value) in [
            ("grpc-timeout", ""),
            ("grpc-timeout", "100"),
            ("grpc-timeout", "123456789S"),
            ("grpc-timeout", "-1S"),
            ("grpc-timeout", "1x"),
            ("grpc-timeout", "S"),
            ("connect-timeout-ms", "1s"),
            ("connect-timeout-ms", "12345678901"),
            ("connect-timeout-ms", "+5"),
        ] {
            let problem = limit(&[(name, value)], &RouteOptions::default()).unwrap_err();
            assert_eq!(problem.status(), 400, "{name}: {value}");
            assert_eq!(problem.error().field_violations().next().unwrap().path, name);
        }
    }
}
