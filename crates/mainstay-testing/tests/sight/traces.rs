use super::*;
use mainstay_testing::{FinishedSpan, SpanKind, Spans};

fn only<'a>(spans: &'a Spans, name: &'a str) -> &'a FinishedSpan {
    let found: Vec<_> = spans.named(name).collect();
    assert_eq!(found.len(), 1, "{name} in {spans:?}");
    found[0]
}

#[tokio::test]
async fn one_trace_goes_from_the_request_over_the_event_to_its_effect() {
    let app = TestApp::of("stand", stand).start().await.unwrap();
    one_sale(&app).await;
    // A span ends a moment after what it is of can be seen.
    for name in ["POST /sell", "process stand.sold", "relay events"] {
        while app.spans().named(name).count() == 0 {
            tokio::task::yield_now().await;
        }
    }
    let spans = app.spans();
    let request = only(&spans, "POST /sell");
    let sent = only(&spans, "send stand.sold");
    let processed = only(&spans, "process stand.sold");
    assert_eq!(format!("{:032x}", request.trace_id), TRACE);
    assert_eq!(format!("{:016x}", request.parent_id), "00f067aa0ba902b7", "the caller's span");
    for (span, kind, parent) in [
        (request, SpanKind::Server, request.parent_id),
        (sent, SpanKind::Producer, request.span_id),
        (processed, SpanKind::Consumer, sent.span_id),
    ] {
        assert_eq!((span.trace_id, span.kind, span.parent_id), (request.trace_id, kind, parent), "{span:?}");
    }
    assert_eq!(processed.links, [(sent.trace_id, sent.span_id)]);
    assert_eq!(processed.attribute("messaging.consumer.group.name").as_deref(), Some("count"));
    for (parent, text) in [(request, "INSERT INTO mainstay_outbox"), (processed, "UPDATE stand")] {
        let statement =
            spans.children(parent).find(|span| span.attribute("db.query.text").unwrap_or_default().contains(text));
        let statement = statement.unwrap_or_else(|| panic!("{text} in {spans:?}"));
        assert_eq!((statement.kind, statement.error), (SpanKind::Client, None));
        assert_eq!(statement.attribute("db.system.name").as_deref(), Some("sqlite"));
    }
    let whole =
        spans.named("migrate up").find(|whole| spans.children(whole).any(|one| one.name == "migrate up 0001_stand"));
    assert!(whole.is_some(), "{spans:?}");
    for operation in ["BEGIN", "COMMIT"] {
        assert!(spans.children(request).any(|span| span.name == operation), "{operation} in {spans:?}");
    }
}

#[tokio::test]
async fn a_call_between_services_is_one_trace_and_a_failure_is_seen() {
    let (inner, outer) =
        (TestApp::of("inner", stand).start().await.unwrap(), TestApp::of("outer", caller).start().await.unwrap());
    let asked = outer.get(&format!("/ask?url={}", inner.url("/nowhere"))).await.unwrap();
    assert_eq!(asked.status(), 404, "{}", asked.text());
    // A span ends with the last byte of its answer, which the client may have before it is counted.
    while outer.spans().named("GET /ask").count() == 0 || inner.spans().named("GET").count() == 0 {
        tokio::task::yield_now().await;
    }
    let (theirs, ours) = (inner.spans(), outer.spans());
    let (answered, call, request) = (only(&theirs, "GET"), only(&ours, "GET"), only(&ours, "GET /ask"));
    assert_eq!((answered.trace_id, answered.parent_id), (call.trace_id, call.span_id));
    assert_eq!((call.kind, call.parent_id, call.error), (SpanKind::Client, request.span_id, Some("Not Found")));
    assert_eq!((request.parent_id, request.error), (0, None), "a client's mistake is no failure of the server");
    assert!(request.attributes.iter().all(|(_, value)| !format!("{value:?}").contains("nowhere")), "{request:?}");
}

#[derive(serde::Deserialize)]
struct Ask {
    url: String,
}

async fn ask(ctx: Context, axum::extract::Query(ask): axum::extract::Query<Ask>) -> Result<String> {
    mainstay::http::Client::new()?.get(ask.url).send(&ctx).await?.text().await
}

fn caller(app: &mut App<NoSettings>) -> Result<()> {
    app.http(Routes::new().route_axum("/ask", axum::routing::get(ask)));
    Ok(())
}
