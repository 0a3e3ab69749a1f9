//! What becomes of a handler whose client leaves.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_core::{Cause, Context};
use mainstay_http::Routes;
use mainstay_http::routing::{CancelPolicy, get, post};
use tokio::sync::{mpsc, oneshot};

use crate::scene::{Logs, Scene, Wire, http2_client, until};

/// A handler that tells how it fares: begun, finished or dropped, and its context's cause at that moment.
#[derive(Clone)]
struct Probe {
    events: mpsc::UnboundedSender<Event>,
    release: Arc<Mutex<Option<oneshot::Receiver<()>>>>,
}

#[derive(Debug, Eq, PartialEq)]
enum Event {
    Begun,
    Finished,
    Dropped(Option<Cause>),
}

struct OnDrop(Context, mpsc::UnboundedSender<Event>, bool);

impl Drop for OnDrop {
    fn drop(&mut self) {
        if !self.2 {
            let _ = self.1.send(Event::Dropped(self.0.cause())); // a test that has ended doesn't listen
        }
    }
}

fn probe() -> (Probe, mpsc::UnboundedReceiver<Event>, oneshot::Sender<()>) {
    let (events, seen) = mpsc::unbounded_channel();
    let (finish, release) = oneshot::channel();
    (Probe { events, release: Arc::new(Mutex::new(Some(release))) }, seen, finish)
}

async fn wait(probe: Probe, ctx: Context) -> &'static str {
    let mut guard = OnDrop(ctx, probe.events.clone(), false);
    probe.events.send(Event::Begun).unwrap();
    let release = probe.release.lock().unwrap().take().unwrap();
    release.await.unwrap();
    guard.2 = true;
    probe.events.send(Event::Finished).unwrap();
    "finished"
}

async fn leave(scene: &Scene, line: &str, seen: &mut mpsc::UnboundedReceiver<Event>) {
    let mut wire: Wire = scene.connect().await;
    wire.request(line, "", "").await;
    assert_eq!(seen.recv().await, Some(Event::Begun));
    drop(wire);
}

#[tokio::test]
async fn a_safe_methods_handler_is_dropped_when_the_client_leaves() {
    let (probe, mut seen, _finish) = probe();
    let logs = Logs::capture();
    let scene = Scene::new(Routes::new().route("/", get(move |ctx: Context| wait(probe.clone(), ctx)))).await;
    leave(&scene, "GET /", &mut seen).await;
    assert_eq!(seen.recv().await, Some(Event::Dropped(Some(Cause::ClientGone))));
    until(|| !logs.of("mainstay::access").is_empty()).await;
    let fields = &logs.of("mainstay::access")[0];
    assert_eq!((fields["status"].as_u64(), fields["outcome"].as_str()), (Some(499), Some("client_left")));
}

#[tokio::test]
async fn another_methods_handler_runs_on_and_the_drain_waits_for_it() {
    let (probe, mut seen, finish) = probe();
    let logs = Logs::capture();
    let scene = Scene::new(Routes::new().route("/", post(move |ctx: Context| wait(probe.clone(), ctx)))).await;
    leave(&scene, "POST /", &mut seen).await;
    let metrics = scene.metrics.clone();
    let detached = |line: &serde_json::Value| line["message"] == "the client left; the handler runs on";
    until(|| logs.of("mainstay::http").iter().any(detached)).await;
    assert!(metrics.render().contains(r#"http_server_active_requests{http_request_method="POST"} 1"#));
    let stopping = tokio::spawn(scene.stop(Duration::from_secs(60)));
    finish.send(()).unwrap();
    assert_eq!(seen.recv().await, Some(Event::Finished));
    assert!(stopping.await.unwrap().is_empty());
    let fields = &logs.of("mainstay::access")[0];
    assert_eq!((fields["status"].as_u64(), fields["outcome"].as_str()), (Some(200), Some("detached")));
    assert!(metrics.render().contains(r#"http_server_active_requests{http_request_method="POST"} 0"#));
}

#[tokio::test]
async fn a_detached_handler_still_has_its_deadline() {
    let (probe, mut seen, _finish) = probe();
    let handler = post(move |ctx: Context| wait(probe.clone(), ctx)).deadline(Duration::from_millis(50));
    let scene = Scene::new(Routes::new().route("/", handler)).await;
    leave(&scene, "POST /", &mut seen).await;
    assert_eq!(seen.recv().await, Some(Event::Dropped(Some(Cause::DeadlineExceeded))));
    assert!(scene.stop(Duration::from_secs(60)).await.is_empty());
}

#[tokio::test]
async fn a_detached_handler_that_outlives_the_drain_is_cut_and_named() {
    let (probe, mut seen, _finish) = probe();
    let handler = post(move |ctx: Context| wait(probe.clone(), ctx));
    let scene = Scene::new(Routes::new().route("/v1/orders", handler)).await;
    let mut wire = scene.connect().await;
    wire.request("POST /v1/orders", "X-Request-Id: r-9\r\n", "").await;
    assert_eq!(seen.recv().await, Some(Event::Begun));
    drop(wire);
    let names = scene.stop(Duration::from_millis(50)).await;
    assert_eq!(seen.recv().await, Some(Event::Dropped(Some(Cause::ShuttingDown))));
    assert_eq!(names.len(), 1);
    assert!(names[0].starts_with("POST /v1/orders (request r-9, "), "{names:?}");
}

#[tokio::test]
async fn a_route_can_override_the_policy_both_ways() {
    let (first, mut seen, finish) = probe();
    let detached = get(move |ctx: Context| wait(first.clone(), ctx)).cancel(CancelPolicy::Detach);
    let scene = Scene::new(Routes::new().route("/", detached)).await;
    leave(&scene, "GET /", &mut seen).await;
    finish.send(()).unwrap();
    assert_eq!(seen.recv().await, Some(Event::Finished));

    let (second, mut seen, _finish) = probe();
    let dropped = post(move |ctx: Context| wait(second.clone(), ctx)).cancel(CancelPolicy::Drop);
    let scene = Scene::new(Routes::new().route("/", dropped)).await;
    leave(&scene, "POST /", &mut seen).await;
    assert_eq!(seen.recv().await, Some(Event::Dropped(Some(Cause::ClientGone))));
}

#[tokio::test]
async fn a_reset_http2_stream_cancels_its_handler_and_no_other() {
    let (probe, mut seen, _finish) = probe();
    let routes = Routes::new()
        .route("/wait", get(move |ctx: Context| wait(probe.clone(), ctx)))
        .route("/ok", get(|| async { "ok" }));
    let scene = Scene::new(routes).await;
    let client = http2_client();
    let call = tokio::spawn(client.get(scene.url("/wait")).send());
    assert_eq!(seen.recv().await, Some(Event::Begun));
    call.abort();
    assert_eq!(seen.recv().await, Some(Event::Dropped(Some(Cause::ClientGone))));
    assert_eq!(client.get(scene.url("/ok")).send().await.unwrap().text().await.unwrap(), "ok");
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_body_cancels_the_context() {
    let (sender, mut causes) = mpsc::unbounded_channel();
    let stream = move |ctx: Context| {
        let sender = sender.clone();
        async move {
            tokio::spawn(async move { sender.send(ctx.done().await) });
            let chunk = || Ok::<_, std::io::Error>("chunk");
            axum::body::Body::from_stream(futures_util::stream::repeat_with(chunk))
        }
    };
    let scene = Scene::new(Routes::new().route("/", get(stream))).await;
    let mut wire = scene.connect().await;
    wire.request("GET /", "", "").await;
    wire.read_until(b"chunk").await;
    drop(wire);
    assert_eq!(causes.recv().await, Some(Cause::ClientGone));
}
