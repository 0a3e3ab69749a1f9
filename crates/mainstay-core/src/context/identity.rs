//! Who and what a [`Context`] belongs to: request id, trace, principal.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

use super::Context;

impl Context {
    /// A child that belongs to the request `id`.
    #[must_use]
    pub fn with_request_id(&self, id: RequestId) -> Self {
        self.with_value(id)
    }

    /// The id of the request that caused this work.
    pub fn request_id(&self) -> Option<&RequestId> {
        self.value()
    }

    /// A child that belongs to `trace`.
    #[must_use]
    pub fn with_trace(&self, trace: Trace) -> Self {
        self.with_value(trace)
    }

    /// The W3C trace this work belongs to.
    pub fn trace(&self) -> Option<&Trace> {
        self.value()
    }

    /// A child that acts for `principal`.
    #[must_use]
    pub fn with_principal(&self, principal: Principal) -> Self {
        self.with_value(principal)
    }

    /// Whom this work is done for.
    pub fn principal(&self) -> Option<&Principal> {
        self.value()
    }
}

/// The id of one request, 1 to 128 visible ASCII characters: safe in a header and in a log line. A clone is one reference count.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// A new, time-ordered id (UUIDv7).
    pub fn generate() -> Self {
        Self((&*Uuid::now_v7().simple().encode_lower(&mut [0; 32])).into())
    }

    /// Takes a caller's id, or `None` if it is empty, longer than 128 characters or not visible ASCII.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as text to keep, without a copy.
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The W3C trace context that travels with a request: `traceparent` in its parts, `tracestate` and `baggage` as they came.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Trace {
    /// 16 bytes, never all zero.
    pub trace_id: u128,
    /// The id of the span that this work is a child of, never zero.
    pub span_id: u64,
    /// The trace flags; bit 0 says that the caller records the trace.
    pub flags: u8,
    /// The vendor list of `tracestate`, unread.
    pub state: Option<Box<str>>,
    /// The `baggage` header, unread.
    pub baggage: Option<Box<str>>,
}

impl Trace {
    /// The root of a new trace, not recorded until someone decides to.
    pub fn generate() -> Self {
        let (high, low) = Uuid::new_v4().as_u64_pair();
        // A version 4 UUID has its version bits set, so that neither half can be zero.
        Self {
            trace_id: Uuid::new_v4().as_u128(),
            span_id: high ^ low.rotate_left(17) | 1,
            flags: 0,
            state: None,
            baggage: None,
        }
    }

    /// The same trace with a new span id: what an outbound call sends.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span_id: Self::generate().span_id, ..self.clone() }
    }

    /// The value of the `traceparent` header.
    pub fn traceparent(&self) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

impl FromStr for Trace {
    type Err = InvalidTraceparent;

    /// Reads a `traceparent` header. Versions above 00 are read by their first four fields, as the standard asks.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.trim().split('-');
        let mut hex = |length: usize| {
            let part = parts.next().filter(|part| part.len() == length).ok_or(InvalidTraceparent)?;
            let lower = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            if lower { u128::from_str_radix(part, 16).map_err(|_| InvalidTraceparent) } else { Err(InvalidTraceparent) }
        };
        let (version, trace_id, span_id, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        let more = parts.next().is_some();
        if version == 0xff || trace_id == 0 || span_id == 0 || (version == 0 && more) {
            return Err(InvalidTraceparent);
        }
        Ok(Self { trace_id, span_id: span_id as u64, flags: flags as u8, state: None, baggage: None })
    }
}

/// A `traceparent` header that does not follow the W3C standard; it is ignored and a new trace begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InvalidTraceparent;

impl fmt::Display for InvalidTraceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a W3C traceparent")
    }
}

impl std::error::Error for InvalidTraceparent {}

/// Whom a request acts for, as established by authentication.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Principal {
    /// The subject: a user or service name.
    pub subject: String,
    /// What the subject may do, as plain scope names.
    pub scopes: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_survives_the_round_trip() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace: Trace = text.parse().unwrap();
        assert_eq!(trace.traceparent(), text);
        assert_eq!(trace.child().trace_id, trace.trace_id);
        assert_ne!(trace.child().span_id, trace.span_id);
        assert!(Trace::generate().traceparent().parse::<Trace>().is_ok());
    }

    #[test]
    fn a_malformed_traceparent_is_refused() {
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(text.parse::<Trace>(), Err(InvalidTraceparent), "{text}");
        }
    }

    #[test]
    fn a_request_id_is_safe_in_a_header_and_a_log() {
        assert!(RequestId::parse("req-1/α").is_none());
        assert!(RequestId::parse("two words").is_none());
        assert!(RequestId::parse("").is_none());
        assert!(RequestId::parse(&"x".repeat(129)).is_none());
        assert_eq!(RequestId::parse("abc:1").unwrap().as_str(), "abc:1");
    }
}
