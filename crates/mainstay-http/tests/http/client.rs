//! The client against our own server.

use std::time::Duration;

use garde::Validate;
use mainstay_core::{ByteSize, Code, Context, Error, FieldViolation, RequestId, Result, Trace};
use mainstay_http::routing::{get, post};
use mainstay_http::{Client, Json, Routes};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use utoipa::ToSchema;

use crate::scene::Scene;

#[derive(Debug, Deserialize, PartialEq, Serialize, ToSchema, Validate)]
#[garde(allow_unvalidated)]
struct Seen {
    request_id: String,
    trace_id: String,
    span_id: u64,
    state: Option<String>,
    baggage: Option<String>,
    left: Option<u64>,
}

async fn seen(ctx: Context) -> Json<Seen> {
    let trace = ctx.trace().unwrap();
    Json(Seen {
        request_id: ctx.request_id().unwrap().to_string(),
        trace_id: format!("{:032x}", trace.trace_id),
        span_id: trace.span_id,
        state: trace.state.as_deref().map(str::to_owned),
        baggage: trace.baggage.as_deref().map(str::to_owned),
        left: ctx.remaining().map(|left| left.as_millis() as u64),
    })
}

async fn echo(Json(value): Json<Seen>) -> Json<Seen> {
    Json(value)
}

async fn refuse() -> Result<()> {
    Err(Error::failed_precondition("out of stock")
        .with_detail(FieldViolation::new("lines[0]", "only 3 left"))
        .retry_after(Duration::from_secs(7)))
}

async fn scene() -> Scene {
    let routes = Routes::new()
        .route("/seen", get(seen).without_deadline())
        .route("/echo", post(echo))
        .route("/refuse", get(refuse))
        .route("/plain", get(|| async { (axum::http::StatusCode::BAD_GATEWAY, "upstream down: secret") }))
        .route("/large", get(|| async { "x".repeat(4096) }));
    Scene::new(routes).await
}

#[tokio::test]
async fn what_travels_with_the_context_arrives() {
    let scene = scene().await;
    let mut trace = Trace::generate();
    (trace.state, trace.baggage) = (Some("a=1".into()), Some("k=v".into()));
    let ctx = Context::background()
        .with_request_id(RequestId::parse("r-1").unwrap())
        .with_trace(trace.clone())
        .with_timeout(Duration::from_secs(100));
    let client = Client::new().unwrap();
    let seen: Seen = client.get(scene.url("/seen")).send(&ctx).await.unwrap().json().await.unwrap();
    assert_eq!((seen.request_id.as_str(), seen.trace_id), ("r-1", format!("{:032x}", trace.trace_id)));
    assert_ne!(seen.span_id, trace.span_id, "a call is a span of its own");
    assert_eq!((seen.state.as_deref(), seen.baggage.as_deref()), (Some("a=1"), Some("k=v")));
    assert!(seen.left.is_some_and(|left| left <= 99_995), "less the allowance for the way home: {:?}", seen.left);
    let free: Seen = client.get(scene.url("/seen")).send(&Context::background()).await.unwrap().json().await.unwrap();
    assert_eq!(free.left, None);
    let echoed: Seen = client.post(scene.url("/echo")).json(&free).send(&ctx).await.unwrap().json().await.unwrap();
    assert_eq!(echoed, free);
}

#[tokio::test]
async fn a_problem_document_comes_back_as_the_error_it_was() {
    let scene = scene().await;
    let error = Client::new().unwrap().get(scene.url("/refuse")).send(&Context::background()).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::FailedPrecondition, "out of stock"));
    assert_eq!(error.field_violations().next().unwrap().path, "lines[0]");
    assert_eq!(error.retry_delay(), Some(Duration::from_secs(7)));
    assert!(error.report().to_string().contains("/refuse answered 409"), "{}", error.report());
}

#[tokio::test]
async fn another_failure_is_the_nearest_code_and_its_body_stays_private() {
    let scene = scene().await;
    let client = Client::new().unwrap();
    let error = client.get(scene.url("/plain")).send(&Context::background()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unknown);
    assert!(!error.message().contains("secret") && error.report().to_string().contains("secret"));
    let error = client.get(scene.url("/nowhere?token=abc")).send(&Context::background()).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(!format!("{error:?}").contains("abc"), "a query may hold secrets: {error:?}");
}

#[tokio::test]
async fn nobody_there_is_unavailable() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://user:password@{}/x", socket.local_addr().unwrap());
    drop(socket);
    let error = Client::new().unwrap().get(url).send(&Context::background()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");
    assert!(!format!("{error:?}").contains("password"), "{error:?}");
}

#[tokio::test]
async fn a_call_without_time_is_refused_before_it_connects() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let url = format!("http://{}/", socket.local_addr().unwrap());
    let ctx = Context::background().with_timeout(Duration::from_millis(4));
    let error = Client::new().unwrap().get(url).send(&ctx).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(socket.accept().is_err(), "nobody connected");
}

#[tokio::test]
async fn the_end_of_the_context_ends_the_call_on_both_sides() {
    let (events, mut seen) = mpsc::unbounded_channel();
    let wait = move |ctx: Context| {
        let events = events.clone();
        async move {
            events.send(None).unwrap();
            tokio::spawn(async move { events.send(Some(ctx.done().await)) });
            std::future::pending::<()>().await;
        }
    };
    let scene = Scene::new(Routes::new().route("/", get(wait))).await;
    let (ctx, canceler) = Context::background().with_cancel();
    let (client, url) = (Client::new().unwrap(), scene.url("/"));
    let call = tokio::spawn(async move { client.get(url).send(&ctx).await });
    assert_eq!(seen.recv().await, Some(None));
    canceler.cancel();
    assert_eq!(call.await.unwrap().unwrap_err().code(), Code::Cancelled);
    assert!(seen.recv().await.unwrap().is_some(), "the server's handler heard of it");

    let client = Client::new().unwrap();
    let ctx = Context::background().with_timeout(Duration::from_millis(60));
    let error = client.get(scene.url("/")).send(&ctx).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn an_answer_beyond_the_limit_is_an_error() {
    let scene = scene().await;
    let client = Client::new().unwrap().with_max_response(ByteSize::kib(1));
    let reply = client.get(scene.url("/large")).send(&Context::background()).await.unwrap();
    assert_eq!(reply.text().await.unwrap_err().code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn a_malformed_url_is_an_error_and_no_panic() {
    for url in ["", "not a url", "http://", "ftp://x/"] {
        assert!(Client::new().unwrap().get(url).send(&Context::background()).await.is_err(), "{url}");
    }
}
