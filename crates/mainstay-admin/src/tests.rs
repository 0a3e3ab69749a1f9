use axum::body::{Body, to_bytes};
use http::Request;
use mainstay_core::{Error, Phase};
use mainstay_telemetry::Importance;
use serde_json::json;
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
        let (phase, watch) = watch::channel(Phase::Starting);
        let health = Health::new(watch);
        let admin = Admin {
            service: "shop <1>".to_owned(),
            health: health.clone(),
            metrics: Metrics::new(),
            openapi: json!({ "openapi": "3.1.0" }),
        };
        Self { phase, health, router: admin.into_router() }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
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
    assert!(body.contains(r#""name":"database","importance":"critical","error":"down""#), "{body}");
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
