//! Who a request is: its id and its trace, taken from its headers or made here.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};
use mainstay_core::{Context, RequestId, Trace};
use mainstay_telemetry::trace::{Span, SpanKind, Tracer};

use super::headers::{BAGGAGE, REQUEST_ID, TRACEPARENT, TRACESTATE};

/// The identity of one request.
pub(super) struct Identity {
    id: RequestId,
    /// The id once more as it goes back, shared with the request's own header where there was one.
    id_header: HeaderValue,
    trace: Trace,
    /// Whether the trace was begun by the caller.
    traced: bool,
}

/// A request that has its identity.
pub(super) struct Identified {
    /// A child of what the request came under, or of its span.
    pub(super) ctx: Context,
    pub(super) id: HeaderValue,
    pub(super) span: Option<Span>,
}

pub(super) fn identify(headers: &HeaderMap) -> Identity {
    let (id, id_header) = request_id(headers);
    let (trace, traced) = trace(headers);
    Identity { id, id_header, trace, traced }
}

impl Identity {
    /// Makes the request's context under `parent`, and begins its span if that is recorded.
    pub(super) fn begin(self, parent: &Context, tracer: Option<&Tracer>) -> Identified {
        let Self { id, id_header, mut trace, traced } = self;
        // Without the caller's trace, which the span's own hides.
        let ctx = parent.with_request_id(id);
        let span = tracer.and_then(|tracer| span(tracer, &ctx, &mut trace, traced));
        let ctx = span.as_ref().map_or_else(|| ctx.with_trace(trace), |span| span.context().clone());
        Identified { ctx, id: id_header, span }
    }
}

/// The span of the request, if it is recorded. A trace that begins here is sampled first.
fn span(tracer: &Tracer, ctx: &Context, trace: &mut Trace, traced: bool) -> Option<Span> {
    if traced {
        return tracer.begin(ctx, Some(trace), SpanKind::Server, || "HTTP".into());
    }
    tracer.sample(trace);
    let nobody = Trace { span_id: 0, ..trace.clone() };
    tracer.begin(ctx, Some(&nobody), SpanKind::Server, || "HTTP".into())
}

fn request_id(headers: &HeaderMap) -> (RequestId, HeaderValue) {
    let given = headers.get(REQUEST_ID);
    if let Some(header) = given
        && let Some(id) = header.to_str().ok().and_then(RequestId::parse)
    {
        return (id, header.clone());
    }
    let id = generate_request_id();
    // Visible ASCII by the type's own promise, so that the fallback is never taken.
    let header = HeaderValue::from_str(id.as_str()).unwrap_or(HeaderValue::from_static("-"));
    (id, header)
}

/// The caller's trace, or a new one when there is none or it is malformed (as the standard asks). The span is the
/// caller's: work done here is a child of it.
fn trace(headers: &HeaderMap) -> (Trace, bool) {
    let parsed = text(headers, &TRACEPARENT).and_then(|parent| parent.parse::<Trace>().ok());
    let traced = parsed.is_some();
    let mut trace = match parsed {
        Some(trace) => Trace { state: text(headers, &TRACESTATE).map(Into::into), ..trace },
        None => generate_trace(),
    };
    trace.baggage = text(headers, &BAGGAGE).map(Into::into);
    (trace, traced)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A UUIDv7, as [`RequestId::generate`] makes it but without asking the kernel for its random part.
fn generate_request_id() -> RequestId {
    let milliseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let mut random_part = [0; 10];
    random_part[..8].copy_from_slice(&random().to_le_bytes());
    random_part[8..].copy_from_slice(&random().to_le_bytes()[..2]);
    let id = uuid::Builder::from_unix_timestamp_millis(milliseconds, &random_part).into_uuid();
    RequestId::parse(id.simple().encode_lower(&mut [0; 32])).unwrap_or_else(RequestId::generate)
}

fn generate_trace() -> Trace {
    let trace_id = u128::from(random()) << 64 | u128::from(random());
    // Neither may be zero; a bit that is always set costs one of 64.
    Trace { trace_id: trace_id | 1, span_id: random() | 1, flags: 0, state: None, baggage: None }
}

/// 64 bits that nobody can guess: SipHash under keys that the standard library seeds from the kernel once per thread
/// and steps at every use. Three getrandom calls per request would cost more than the rest of the pipeline.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_callers_valid_id_is_kept_and_another_is_replaced() {
        let kept = identify(&headers(&[("x-request-id", "order-7")]));
        assert_eq!((kept.id.as_str(), kept.id_header.to_str().unwrap()), ("order-7", "order-7"));
        for hostile in ["", "two words", "tab\tbed"] {
            let made = identify(&headers(&[("x-request-id", hostile)]));
            assert_eq!(made.id.as_str().len(), 32, "{hostile:?}");
            assert_eq!(made.id_header.to_str().unwrap(), made.id.as_str());
        }
    }

    #[test]
    fn made_ids_differ_also_across_threads_and_begin_with_the_time() {
        let make = || (0..10_000).map(|_| generate_request_id()).collect::<Vec<_>>();
        let mut all = make();
        all.extend(std::thread::spawn(make).join().unwrap());
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        let version = all[0].as_str().as_bytes()[12];
        assert_eq!(version, b'7');
    }

    #[test]
    fn the_trace_and_its_baggage_come_in() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let whole = headers(&[("traceparent", parent), ("tracestate", "a=1"), ("baggage", "tenant=7")]);
        let trace = identify(&whole).trace;
        assert_eq!(trace.traceparent(), parent);
        assert_eq!((trace.state.as_deref(), trace.baggage.as_deref()), (Some("a=1"), Some("tenant=7")));
    }

    #[test]
    fn a_malformed_trace_is_replaced_together_with_its_state() {
        let trace = identify(&headers(&[("traceparent", "00-xyz"), ("tracestate", "a=1")])).trace;
        assert!(trace.traceparent().parse::<Trace>().is_ok());
        assert_eq!(trace.state, None);
    }
}
