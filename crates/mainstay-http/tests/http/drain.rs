//! How the server stops.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::Event;
use futures_util::{StreamExt, stream};
use mainstay_core::{Component, Context};
use mainstay_http::routing::{get, post};
use mainstay_http::sse::Sse;
use mainstay_http::{Draining, Routes, Server};
use mainstay_telemetry::Metrics;
use tokio::sync::{Notify, mpsc};

use crate::scene::{Scene, http2_client, settings};

const LONG: Duration = Duration::from_secs(60);

/// A handler that says when it has begun and waits to be let go.
fn held() -> (Arc<Notify>, mpsc::UnboundedReceiver<()>, impl Fn() -> stream::Once<HeldFuture> + Clone) {
    let release = Arc::new(Notify::new());
    let (begun, seen) = mpsc::unbounded_channel();
    let let_go = release.clone();
    let make = move || {
        let (release, begun) = (let_go.clone(), begun.clone());
        stream::once(Box::pin(async move {
            begun.send(()).unwrap();
            release.notified().await;
            "done"
        }) as HeldFuture)
    };
    (release, seen, make)
}

type HeldFuture = std::pin::Pin<Box<dyn Future<Output = &'static str> + Send>>;

#[tokio::test]
async fn a_request_in_flight_is_finished_and_told_to_close() {
    let (release, mut seen, make) = held();
    let handler = move || {
        let mut held = make();
        async move { held.next().await.unwrap() }
    };
    let scene = Scene::new(Routes::new().route("/", get(handler))).await;
    let (addr, server) = (scene.addr, scene.server.clone());
    let mut wire = scene.connect().await;
    wire.request("GET /", "", "").await;
    seen.recv().await.unwrap();
    let stopping = tokio::spawn(scene.stop(LONG));
    // The listener is closed once the drain has begun; the request in flight is not touched.
    while tokio::net::TcpStream::connect(addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
    release.notify_one();
    let answer = wire.answer().await;
    assert_eq!((answer.text(), answer.headers["connection"].as_str()), ("done", "close"));
    assert!(stopping.await.unwrap().is_empty());
    assert!(wire.closed().await.is_empty());
    drop(server);
}

#[tokio::test]
async fn idle_and_silent_connections_dont_hold_up_the_drain() {
    let scene = Scene::new(Routes::new().route("/", get(|| async { "ok" }))).await;
    let mut idle = scene.connect().await;
    idle.request("GET /", "", "").await;
    idle.answer().await;
    let silent = scene.connect().await;
    assert!(scene.stop(LONG).await.is_empty());
    assert!(idle.closed().await.is_empty());
    assert!(silent.closed().await.is_empty());
}

#[tokio::test]
async fn a_client_that_pauses_for_less_than_a_second_is_answered_once_more() {
    let scene = Scene::new(Routes::new().route("/", get(|| async { "ok" }))).await;
    let mut wire = scene.connect().await;
    wire.request("GET /", "", "").await;
    wire.answer().await;
    // The pause is the client's: after 100 ms the server keeps nothing of the connection but its socket.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let stopping = tokio::spawn(scene.stop(LONG));
    tokio::task::yield_now().await;
    wire.request("GET /", "", "").await;
    assert_eq!(wire.answer().await.headers["connection"], "close");
    assert!(wire.closed().await.is_empty());
    assert!(stopping.await.unwrap().is_empty());
}

#[tokio::test]
async fn a_request_that_was_half_sent_when_the_drain_began_is_answered() {
    let scene = Scene::new(Routes::new().route("/", get(|| async { "ok" }))).await;
    // The server has certainly read the first half when it has answered a request that came after it.
    let mut half = scene.connect().await;
    half.send("GET / HTTP/1.1\r\nHost:").await;
    scene.get("/").await;
    let stopping = tokio::spawn(scene.stop(LONG));
    tokio::task::yield_now().await;
    half.send(" x\r\n\r\n").await;
    assert_eq!(half.answer().await.text(), "ok");
    assert!(stopping.await.unwrap().is_empty());
}

#[tokio::test]
async fn connections_that_the_kernel_has_queued_are_served() {
    // Two places: one is held, so that the rest waits in the kernel's queue until the drain takes it.
    let (release, mut seen, make) = held();
    let handler = move || {
        let mut held = make();
        async move { held.next().await.unwrap() }
    };
    let limits = mainstay_http::HttpSettings { max_connections: 1, ..settings() };
    let scene = Scene::with(limits, Routes::new().route("/", post(handler)).route("/ok", get(|| async { "ok" }))).await;
    let mut first = scene.connect().await;
    first.request("POST /", "", "").await;
    seen.recv().await.unwrap();
    let mut queued = scene.connect().await;
    queued.request("GET /ok", "", "").await;
    let stopping = tokio::spawn(scene.stop(LONG));
    assert_eq!(queued.answer().await.text(), "ok");
    release.notify_one();
    assert_eq!(first.answer().await.text(), "done");
    assert!(stopping.await.unwrap().is_empty());
}

#[tokio::test]
async fn what_outlives_the_budget_is_cut_and_named() {
    let (_release, mut seen, make) = held();
    let handler = move || {
        let mut held = make();
        async move { held.next().await.unwrap() }
    };
    let scene = Scene::new(Routes::new().route("/things/{id}", get(handler))).await;
    let mut wire = scene.connect().await;
    wire.request("GET /things/7", "X-Request-Id: r-1\r\n", "").await;
    seen.recv().await.unwrap();
    let names = scene.stop(Duration::from_millis(30)).await;
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(names[0].starts_with("GET /things/{id} (request r-1, ") && names[0].ends_with(" s)"), "{names:?}");
    assert!(wire.closed().await.is_empty(), "nothing of an answer was sent");
}

#[tokio::test]
async fn http2_requests_are_drained_and_cut_like_the_others() {
    let (release, mut seen, make) = held();
    let handler = move || {
        let mut held = make();
        async move { held.next().await.unwrap() }
    };
    let scene = Scene::new(Routes::new().route("/a", get(handler.clone())).route("/b", get(handler))).await;
    let client = http2_client();
    let finished = tokio::spawn(client.get(scene.url("/a")).send());
    seen.recv().await.unwrap();
    let server = scene.server.clone();
    let stopping = tokio::spawn(scene.stop(LONG));
    release.notify_one();
    assert_eq!(finished.await.unwrap().unwrap().text().await.unwrap(), "done");
    assert!(stopping.await.unwrap().is_empty());
    drop(server);

    let (_release, mut seen, make) = held();
    let handler = move || {
        let mut held = make();
        async move { held.next().await.unwrap() }
    };
    let scene = Scene::new(Routes::new().route("/b", post(handler))).await;
    let cut = tokio::spawn(client.post(scene.url("/b")).send());
    seen.recv().await.unwrap();
    let names = scene.stop(Duration::from_millis(30)).await;
    assert!(names.len() == 1 && names[0].starts_with("POST /b (request "), "{names:?}");
    assert!(cut.await.unwrap().is_err());
}

#[tokio::test]
async fn server_sent_events_end_when_the_drain_begins() {
    async fn ticks(ctx: Context) -> Sse {
        let first = stream::iter([Ok::<_, Infallible>(Event::default().data("tick"))]);
        Sse::new(&ctx, first.chain(stream::pending()))
    }
    let scene = Scene::new(Routes::new().route("/", get(ticks).without_deadline())).await;
    let mut wire = scene.connect().await;
    wire.request("GET /", "", "").await;
    wire.read_until(b"data: tick\n\n").await;
    let stopping = tokio::spawn(scene.stop(LONG));
    wire.read_until(b"0\r\n\r\n").await; // the end of a chunked body: politely, not cut
    assert!(stopping.await.unwrap().is_empty());
}

#[tokio::test]
async fn a_handler_hears_that_the_drain_has_begun() {
    let (begun, mut seen) = mpsc::unbounded_channel();
    let handler = move |ctx: Context| {
        let begun = begun.clone();
        async move {
            let draining = Draining::of(&ctx).unwrap();
            begun.send(draining.has_begun()).unwrap();
            draining.wait().await;
            "goodbye"
        }
    };
    let scene = Scene::new(Routes::new().route("/", get(handler))).await;
    let mut wire = scene.connect().await;
    wire.request("GET /", "", "").await;
    assert_eq!(seen.recv().await, Some(false));
    let stopping = tokio::spawn(scene.stop(LONG));
    assert_eq!(wire.answer().await.text(), "goodbye");
    assert!(stopping.await.unwrap().is_empty());
}

#[tokio::test]
async fn stopping_before_running_closes_the_listener_and_run_returns() {
    let server = Server::new("http", settings(), Routes::new(), &Metrics::new());
    server.start(&Context::background()).await.unwrap();
    let addr = server.local_addr().unwrap();
    assert!(server.stop(&Context::background()).await.is_empty());
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
    server.run(&Context::background()).await.unwrap();
}

#[tokio::test]
async fn routes_that_cant_be_served_fail_the_start_by_name() {
    let routes = Routes::new().route("orders", get(|| async {}));
    let server = Server::new("http", settings(), routes, &Metrics::new());
    let error = server.start(&Context::background()).await.unwrap_err();
    assert_eq!(error.code(), mainstay_core::Code::FailedPrecondition);
    assert!(error.message().contains("`orders`"), "{error}");
}
