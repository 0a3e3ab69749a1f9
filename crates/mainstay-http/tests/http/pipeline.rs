//! Ids, traces, deadlines, limits, metrics and the access log.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::{MatchedPath, State};
use axum::http::{HeaderName, HeaderValue};
use mainstay_core::{ByteSize, Context, Result};
use mainstay_http::routing::{get, post};
use mainstay_http::{HttpSettings, Path, Routes};
use tower_http::set_header::SetResponseHeaderLayer;

use crate::scene::{Logs, Scene, settings, until};

async fn ok() -> &'static str {
    "ok"
}

async fn identity(ctx: Context) -> String {
    let trace = ctx.trace().unwrap();
    format!("{} {} {:?} {:?}", ctx.request_id().unwrap(), trace.traceparent(), trace.state, trace.baggage)
}

#[tokio::test]
async fn the_request_id_is_echoed_and_a_bad_one_replaced() {
    let scene = Scene::new(Routes::new().route("/", get(identity))).await;
    let answer = scene.ask("GET /", "X-Request-Id: abc-1\r\n", "").await;
    assert_eq!(answer.headers["x-request-id"], "abc-1");
    assert!(answer.text().starts_with("abc-1 "));
    let answer = scene.ask("GET /", "X-Request-Id: two words\r\n", "").await;
    assert_eq!(answer.headers["x-request-id"].len(), 32);
    assert!(answer.text().starts_with(&answer.headers["x-request-id"]));
    let other = scene.get("/").await;
    assert_ne!(other.headers["x-request-id"], answer.headers["x-request-id"]);
    assert_eq!(scene.get("/nowhere").await.headers["x-request-id"].len(), 32);
}

#[tokio::test]
async fn the_callers_trace_reaches_the_handler() {
    let scene = Scene::new(Routes::new().route("/", get(identity))).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let head = format!("traceparent: {parent}\r\ntracestate: a=1\r\nbaggage: k=v\r\n");
    let answer = scene.ask("GET /", &head, "").await;
    assert!(answer.text().ends_with(&format!("{parent} Some(\"a=1\") Some(\"k=v\")")), "{}", answer.text());
}

#[tokio::test]
async fn layers_are_made_when_the_server_is_and_not_for_each_request() {
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let layer = tower::layer::layer_fn(move |route: axum::routing::Route| {
        count.fetch_add(1, Ordering::SeqCst);
        route
    });
    let scene = Scene::new(Routes::new().route("/", get(ok)).layer(layer)).await;
    let before = made.load(Ordering::SeqCst);
    for path in ["/", "/", "/nowhere"] {
        scene.get(path).await;
    }
    assert_eq!(made.load(Ordering::SeqCst), before);
    assert!(before > 0);
}

async fn remaining(ctx: Context) -> String {
    ctx.remaining().map_or("none".to_owned(), |left| left.as_millis().to_string())
}

#[tokio::test]
async fn a_caller_can_shorten_the_deadline_and_never_lengthen_it() {
    let limits = HttpSettings { request_timeout: Duration::from_secs(1000), ..settings() };
    let routes = Routes::new()
        .route("/server", get(remaining))
        .route("/route", get(remaining).deadline(Duration::from_secs(100)))
        .route("/longer", get(remaining).deadline(Duration::from_secs(9999)))
        .route("/none", get(remaining).without_deadline());
    let scene = Scene::with(limits, routes).await;
    for (path, head, most) in [
        ("/server", "", Some(1_000_000)),
        ("/server", "Grpc-Timeout: 10S\r\n", Some(10_000)),
        ("/server", "Connect-Timeout-Ms: 20000\r\n", Some(20_000)),
        ("/server", "Grpc-Timeout: 99H\r\n", Some(1_000_000)),
        ("/route", "", Some(100_000)),
        ("/route", "Connect-Timeout-Ms: 200000\r\n", Some(100_000)),
        ("/longer", "", Some(1_000_000)),
        ("/none", "", None),
        ("/none", "Grpc-Timeout: 10S\r\n", Some(10_000)),
    ] {
        let answer = scene.ask(&format!("GET {path}"), head, "").await;
        let left = answer.text().parse::<u64>().ok();
        match most {
            None => assert_eq!(answer.text(), "none"),
            // Within a fifth of the limit: far from every other limit in the table, and no measure of speed.
            Some(most) => assert!(left.is_some_and(|left| left <= most && left > most / 5), "{path} {head} {left:?}"),
        }
    }
}

#[tokio::test]
async fn a_malformed_deadline_is_refused_by_name() {
    let scene = Scene::new(Routes::new().route("/", get(ok))).await;
    for head in ["Grpc-Timeout: soon", "Connect-Timeout-Ms: 1s", "Grpc-Timeout: 5"] {
        let problem = scene.ask("GET /", &format!("{head}\r\n"), "").await.problem(400, "INVALID_ARGUMENT");
        let name = head.split(':').next().unwrap().to_lowercase();
        assert_eq!(problem["errors"][0]["path"], name);
    }
}

#[tokio::test]
async fn at_the_deadline_the_handler_is_dropped_and_the_answer_is_504() {
    struct OnDrop(tokio::sync::mpsc::UnboundedSender<()>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            let _ = self.0.send(()); // a test that has ended doesn't listen
        }
    }
    let (dropped, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let forever = move || {
        let guard = OnDrop(dropped.clone());
        async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        }
    };
    let routes = Routes::new().route("/", get(forever.clone()).post(forever).deadline(Duration::from_millis(30)));
    let scene = Scene::with(HttpSettings { request_timeout: Duration::from_millis(30), ..settings() }, routes).await;
    for line in ["GET /", "POST /"] {
        let problem = scene.ask(line, "", "").await.problem(504, "DEADLINE_EXCEEDED");
        assert_eq!(problem["detail"], "the deadline passed");
        assert!(seen.try_recv().is_ok(), "the handler was dropped before its client was told");
    }
}

async fn never() -> &'static str {
    panic!("the handler ran")
}

#[tokio::test]
async fn a_deadline_that_has_passed_on_arrival_never_reaches_the_handler() {
    let scene = Scene::new(Routes::new().route("/", get(never))).await;
    scene.ask("GET /", "Connect-Timeout-Ms: 0\r\n", "").await.problem(504, "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_a_problem() {
    let limits = HttpSettings { max_header_bytes: ByteSize::kib(2), max_header_count: 8, ..settings() };
    let scene = Scene::with(limits, Routes::new().route("/", get(ok))).await;
    let large = format!("X-Large: {}\r\n", "x".repeat(3000));
    scene.ask("GET /", &large, "").await.problem(431, "RESOURCE_EXHAUSTED");
    let many: String = (0..20).map(|i| format!("X-{i}: y\r\n")).collect();
    scene.ask("GET /", &many, "").await.problem(431, "RESOURCE_EXHAUSTED");
    let target = format!("GET /{}", "x".repeat(3000));
    scene.ask(&target, "", "").await.problem(431, "RESOURCE_EXHAUSTED");
    assert_eq!(scene.get("/").await.text(), "ok");
    // What is larger still is the parser's business: refused too, without a document.
    let huge = format!("X-Huge: {}\r\n", "x".repeat(200_000));
    assert_eq!(scene.ask("GET /", &huge, "").await.status, 431);
}

async fn echo(Path(id): Path<String>) -> Result<String> {
    Ok(id)
}

#[tokio::test]
async fn metrics_count_by_method_template_and_status() {
    let scene = Scene::new(Routes::new().route("/things/{id}", get(echo))).await;
    for path in ["/things/1", "/things/2", "/nowhere/1", "/nowhere/2"] {
        scene.get(path).await;
    }
    scene.ask("BREW /things/1", "", "").await;
    scene.ask("HEAD /things/1", "", "").await;
    until(|| scene.metrics.render().contains("_OTHER")).await;
    let text = scene.metrics.render();
    let count = |method: &str, route: &str, status: u16| {
        let labels = format!(
            "http_server_request_duration_seconds_count{{http_request_method=\"{method}\",http_route=\"{route}\",\
             http_response_status_code=\"{status}\"}} "
        );
        text.lines().find_map(|line| line.strip_prefix(&labels)?.parse::<u64>().ok())
    };
    assert_eq!(count("GET", "/things/{id}", 200), Some(2), "{text}");
    assert_eq!(count("GET", "", 404), Some(2), "{text}");
    assert_eq!(count("_OTHER", "/things/{id}", 405), Some(1), "{text}");
    assert_eq!(count("HEAD", "/things/{id}", 200), Some(1), "{text}");
    assert!(!text.contains("nowhere") && !text.contains("BREW"), "a client can't make labels: {text}");
    assert!(text.contains(r#"http_server_active_requests{http_request_method="GET"} 0"#), "{text}");
}

#[tokio::test]
async fn a_request_is_active_until_the_last_byte_of_its_body() {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<String>();
    let receiver = std::sync::Arc::new(std::sync::Mutex::new(Some(receiver)));
    let stream = move || {
        let receiver = receiver.lock().unwrap().take().unwrap();
        let chunks = futures_util::stream::unfold(receiver, |mut receiver| async move {
            let chunk = receiver.recv().await?;
            Some((Ok::<_, std::io::Error>(chunk), receiver))
        });
        async move { axum::body::Body::from_stream(chunks) }
    };
    let logs = Logs::capture();
    let scene = Scene::new(Routes::new().route("/", get(stream))).await;
    let active = |count: u32| format!("http_server_active_requests{{http_request_method=\"GET\"}} {count}");
    let mut wire = scene.connect().await;
    wire.request("GET /", "", "").await;
    sender.send("first".into()).unwrap();
    wire.read_until(b"first").await;
    assert!(scene.metrics.render().contains(&active(1)));
    assert!(logs.of("mainstay::access").is_empty());
    drop(sender);
    wire.read_until(b"0\r\n\r\n").await;
    until(|| scene.metrics.render().contains(&active(0))).await;
    assert_eq!(logs.of("mainstay::access")[0]["outcome"], "complete");
}

#[tokio::test]
async fn each_request_logs_one_line() {
    let logs = Logs::capture();
    let scene = Scene::new(Routes::new().route("/things/{id}", get(echo))).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    scene.ask("GET /things/7?secret=1", &format!("X-Request-Id: r-1\r\ntraceparent: {parent}\r\n"), "").await;
    until(|| !logs.of("mainstay::access").is_empty()).await;
    let lines = logs.of("mainstay::access");
    assert_eq!(lines.len(), 1);
    let fields = &lines[0];
    assert_eq!(fields["method"], "GET");
    assert_eq!(fields["route"], "/things/{id}");
    assert_eq!(fields["status"], 200);
    assert_eq!(fields["request_id"], "r-1");
    assert_eq!(fields["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(fields["outcome"], "complete");
    assert!(fields["duration"].as_f64().is_some());
    assert!(!lines[0].to_string().contains("secret"));
}

#[tokio::test]
async fn tower_layers_work_on_one_route_and_on_all() {
    let header = |name: &'static str| {
        SetResponseHeaderLayer::overriding(HeaderName::from_static(name), HeaderValue::from_static("set"))
    };
    let routes =
        Routes::new().route("/one", get(ok).layer(header("x-one"))).route("/other", get(ok)).layer(header("x-all"));
    let scene = Scene::new(routes).await;
    let one = scene.get("/one").await;
    assert_eq!((one.headers["x-one"].as_str(), one.headers["x-all"].as_str()), ("set", "set"));
    let other = scene.get("/other").await;
    assert!(!other.headers.contains_key("x-one") && other.headers["x-all"] == "set");
    assert_eq!(scene.get("/nowhere").await.headers["x-all"], "set");
}

async fn state_of(State(name): State<&'static str>, path: MatchedPath) -> String {
    format!("{name} {}", path.as_str())
}

#[tokio::test]
async fn nested_routes_have_their_own_state_options_and_full_templates() {
    let plain = axum::Router::new().route("/plain/{id}", axum::routing::get(state_of));
    let inner = Routes::new()
        .route("/", get(state_of))
        .route("/slow", get(never_ends).deadline(Duration::from_millis(20)))
        .route_axum("/own", axum::routing::get(state_of))
        .merge_axum(plain)
        .with_state("inner");
    let outer = Routes::new().route("/v1/outer", get(state_of)).with_state("outer");
    let scene = Scene::new(outer.merge(Routes::new().nest("/v1", inner))).await;
    for (path, text) in [
        ("/v1", "inner /v1"),
        ("/v1/own", "inner /v1/own"),
        ("/v1/plain/7", "inner /v1/plain/{id}"),
        ("/v1/outer", "outer /v1/outer"),
    ] {
        assert_eq!(scene.get(path).await.text(), text);
    }
    scene.get("/v1/slow").await.problem(504, "DEADLINE_EXCEEDED");
    scene.get("/v1/plain").await.problem(404, "NOT_FOUND");
}

async fn never_ends() {
    std::future::pending().await
}

#[tokio::test]
async fn odd_targets_are_answered_like_any_other() {
    let scene = Scene::new(Routes::new().route("/", get(ok))).await;
    for (line, status) in [("OPTIONS *", 404), ("CONNECT test:80", 404), ("GET http://test/", 200), ("GET //", 404)] {
        assert_eq!(scene.ask(line, "", "").await.status, status, "{line}");
    }
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let scene = Scene::new(Routes::new().route("/", post(ok).get(ok))).await;
    let mut wire = scene.connect().await;
    for _ in 0..3 {
        wire.request("POST /", "", "body").await;
        assert_eq!(wire.answer().await.text(), "ok");
        wire.request("GET /", "", "").await;
        assert_eq!(wire.answer().await.text(), "ok");
    }
}
