use axum::body::{Body, to_bytes};
use http::Request;
use mainstay_core::{Error, Phase, Secret};
use mainstay_telemetry::{Importance, LogFormat, LogSettings, logger};

use tokio::sync::watch;
use tower::ServiceExt;

use super::*;

struct Scene {
    phase: watch::Sender<Phase>,
    health: Health,
    router: Router,
}

impl Scene {
    fn new() -> Self {
        Self::with(AdminSettings::default())
    }

    fn at(addr: &str, token: &str) -> Self {
        Self::with(AdminSettings { addr: addr.parse().unwrap(), token: Secret::from(token) })
    }

    fn with(settings: AdminSettings) -> Self {
        Self::logging(settings, LogControl::default())
    }

    fn logging(settings: AdminSettings, logs: LogControl) -> Self {
        let (phase, watch) = watch::channel(Phase::Starting);
        let health = Health::new(watch);
        let admin = Admin {
            service: "shop <1>".to_owned(),
            settings,
            health: health.clone(),
            metrics: Metrics::new(),
            logs,
            components: Roster::default(),
            in_hand: InHand::default(),
            tracer: Tracer::off(),
            openapi: json!({ "openapi": "3.1.0" }),
        };
        Self { phase, health, router: admin.into_router() }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.ask(Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn get_as(&self, path: &str, authorization: &str) -> u16 {
        let request = Request::get(path).header(header::AUTHORIZATION, authorization);
        self.ask(request.body(Body::empty()).unwrap()).await.0
    }

    async fn ask(&self, request: Request<Body>) -> (u16, String) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.into()).unwrap())
    }
}

#[tokio::test]
async fn probes_follow_the_life_of_the_service() {
    let scene = Scene::new();
    for (phase, startup, ready) in [(Phase::Starting, 503, 503), (Phase::Ready, 200, 200), (Phase::Draining, 200, 503)]
    {
        scene.phase.send_replace(phase);
        assert_eq!(scene.get("/livez").await.0, 200, "{phase:?}");
        assert_eq!(scene.get("/startupz").await.0, startup, "{phase:?}");
        assert_eq!(scene.get("/readyz").await.0, ready, "{phase:?}");
    }
}

#[tokio::test]
async fn readiness_names_the_dependency_that_is_down() {
    let scene = Scene::new();
    scene.phase.send_replace(Phase::Ready);
    scene.health.depend("database", Importance::Critical, |_| async { Err(Error::unavailable("down")) });
    let (status, body) = scene.get("/readyz").await;
    assert_eq!(status, 503);
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let down = json!([{ "name": "database", "importance": "critical", "error": "down" }]);
    assert_eq!(body, json!({ "status": "unready", "ready": false, "down": down }));
    let verbose: serde_json::Value = serde_json::from_str(&scene.get("/readyz?x&verbose").await.1).unwrap();
    let check = &verbose["checks"][0];
    assert_eq!((&check["name"], &check["up"], &check["error"]), (&json!("database"), &json!(false), &json!("down")));
    assert!(check["for_seconds"].is_number() && check["took_seconds"].is_number(), "{verbose}");
    let live: serde_json::Value = serde_json::from_str(&scene.get("/livez?verbose").await.1).unwrap();
    assert_eq!(live, json!({ "status": "live", "service": "shop <1>", "phase": "ready" }));
}

#[tokio::test]
async fn the_explorer_is_whole_without_a_network() {
    let scene = Scene::new();
    let (status, page) = scene.get("/docs").await;
    assert_eq!(status, 200);
    for asset in ["/docs/explorer.js", "/docs/explorer.css"] {
        assert!(page.contains(asset));
        let (status, text) = scene.get(asset).await;
        assert_eq!(status, 200);
        assert!(!text.contains("http://") && !text.contains("https://"), "{asset} loads from elsewhere");
    }
    assert!(!page.contains("http://") && !page.contains("https://"));
    assert!(scene.get("/").await.1.contains("shop &lt;1>"));
    assert_eq!(scene.get("/openapi.json").await.1, r#"{"openapi":"3.1.0"}"#);
}

/// What answers without a token wherever the port is, and what shows more.
const OPEN: [&str; 4] = ["/livez", "/readyz", "/startupz", "/metrics"];
const REST: [&str; 8] =
    ["/", "/debug/traces", "/log/filter", "/openapi.json", "/docs", "/docs/explorer.js", "/nowhere", "/metrics/"];

#[tokio::test]
async fn on_loopback_everything_is_open_until_a_token_is_set() {
    for addr in ["127.0.0.1:9000", "127.9.9.9:9000", "[::1]:9000", "[::ffff:127.0.0.1]:9000"] {
        let scene = Scene::at(addr, "");
        assert_eq!(scene.get("/docs").await.0, 200, "{addr}");
        assert_eq!(Scene::at(addr, "s3cret").get("/docs").await.0, 401, "{addr}");
    }
}

#[tokio::test]
async fn off_loopback_only_health_and_metrics_answer_without_the_token() {
    for addr in ["0.0.0.0:9000", "10.0.0.7:9000", "[::]:9000", "[::ffff:10.0.0.7]:9000"] {
        let scene = Scene::at(addr, "s3cret\n");
        scene.phase.send_replace(Phase::Ready);
        for path in OPEN {
            assert_eq!(scene.get(path).await.0, 200, "{addr} {path}");
        }
        for path in REST {
            assert_eq!(scene.get(path).await.0, 401, "{addr} {path}");
            for wrong in
                ["Bearer", "Bearer ", "Bearer s3cre", "Bearer s3crets", "Basic s3cret", "s3cret", "Bearer x s3cret"]
            {
                assert_eq!(scene.get_as(path, wrong).await, 401, "{addr} {path} {wrong}");
            }
        }
        assert_eq!(scene.get_as("/docs", "Bearer s3cret").await, 200);
        assert_eq!(scene.get_as("/docs", "bearer  s3cret").await, 200);
        assert_eq!(scene.get_as("/nowhere", "Bearer s3cret").await, 404);
    }
}

#[tokio::test]
async fn off_loopback_without_a_token_nothing_opens_the_rest() {
    for token in ["", "  \n"] {
        let scene = Scene::at("0.0.0.0:9000", token);
        assert_eq!(scene.get("/metrics").await.0, 200);
        for path in REST {
            assert_eq!(scene.get(path).await.0, 401, "{path}");
            assert_eq!(scene.get_as(path, "Bearer ").await, 401, "{path}");
        }
    }
}

#[tokio::test]
async fn on_loopback_a_page_from_elsewhere_is_refused() {
    let scene = Scene::new();
    scene.phase.send_replace(Phase::Ready);
    let ask = async |path: &str, name: &str, value: &str| {
        let request = Request::get(path).header(name, value).body(Body::empty()).unwrap();
        scene.ask(request).await.0
    };
    for ours in ["localhost:9000", "127.0.0.1:9000", "[::1]:9000", "LOCALHOST"] {
        assert_eq!(ask("/docs", "host", ours).await, 200, "{ours}");
        assert_eq!(ask("/docs", "origin", &format!("http://{ours}")).await, 200, "{ours}");
    }
    for foreign in [
        "evil.example",
        "evil.example:9000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "null",
        "10.0.0.1",
        "",
    ] {
        assert_eq!(ask("/docs", "host", foreign).await, 403, "{foreign}");
        assert_eq!(ask("/log/filter", "origin", foreign).await, 403, "{foreign}");
        assert_eq!(ask("/readyz", "host", foreign).await, 200, "a probe may use any name");
    }
    let exposed = Scene::at("0.0.0.0:9000", "s3cret");
    let request = Request::get("/docs").header("host", "shop.internal").header("authorization", "Bearer s3cret");
    assert_eq!(exposed.ask(request.body(Body::empty()).unwrap()).await.0, 200);
}

#[tokio::test]
async fn the_log_filter_is_changed_and_the_change_is_on_record() {
    let lines = Arc::new(std::sync::Mutex::new(Vec::new()));
    let settings = LogSettings { format: LogFormat::Json, ..LogSettings::default() };
    let sink = Sink(lines.clone());
    let (subscriber, control) = logger(&settings, move || sink.clone()).unwrap();
    let _guard = tracing::subscriber::set_default(subscriber);
    let scene = Scene::logging(AdminSettings::default(), control);
    let put =
        async |filter: &str| scene.ask(Request::put("/log/filter").body(Body::from(filter.to_owned())).unwrap()).await;
    assert_eq!(scene.get("/log/filter").await, (200, "info\n".to_owned()));
    tracing::debug!("too soon");
    assert_eq!(put("debug\n").await, (200, "debug\n(before: info)\n".to_owned()));
    tracing::debug!("in time");
    for wrong in ["mainstay=loud", "", &"a".repeat(5000)] {
        assert_eq!(put(wrong).await.0, 400, "{wrong}");
    }
    assert_eq!(scene.get("/log/filter").await.1, "debug\n");
    let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
    assert!(text.contains("in time") && !text.contains("too soon"), "{text}");
    let audit: Vec<_> = text.lines().filter(|line| line.contains("mainstay::audit")).collect();
    assert!(audit[0].contains(r#""filter":"debug","outcome":"OK""#), "{audit:?}");
    assert!(audit[1].contains(r#""outcome":"INVALID_ARGUMENT""#), "{audit:?}");
}

#[derive(Clone)]
struct Sink(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn metrics_come_in_the_format_that_is_asked_for() {
    let scene = Scene::new();
    let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
    for (accept, open) in [
        (None, false),
        (Some("*/*"), false),
        (Some("text/plain"), false),
        (Some("application/openmetrics-text; q=0"), false),
        (Some("application/openmetrics-text"), true),
        (Some(prometheus), true),
    ] {
        let mut request = Request::get("/metrics");
        if let Some(accept) = accept {
            request = request.header("accept", accept);
        }
        let response = scene.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        assert_eq!((kind.contains("openmetrics"), body.ends_with(b"# EOF\n")), (open, open), "{accept:?}");
    }
}
