//! What comes in is read, validated, and refused by name.

use garde::Validate;
use mainstay_core::{ByteSize, Result};
use mainstay_http::routing::{get, post};
use mainstay_http::{Created, HttpSettings, Json, NoContent, Path, Query, Routes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::scene::{Scene, settings};

#[derive(Debug, Deserialize, Serialize, ToSchema, Validate)]
struct NewOrder {
    #[garde(length(min = 1))]
    customer: String,
    #[garde(dive, length(min = 1))]
    lines: Vec<Line>,
}

#[derive(Debug, Deserialize, Serialize, ToSchema, Validate)]
struct Line {
    #[garde(length(min = 1))]
    sku: String,
    #[garde(range(min = 1))]
    quantity: i64,
}

async fn place(Json(new): Json<NewOrder>) -> Result<Created<Json<NewOrder>>> {
    Ok(Created::at("/v1/orders/1", Json(new)))
}

#[derive(Deserialize, ToSchema, Validate)]
struct Page {
    #[garde(inner(range(min = 1, max = 100)))]
    limit: Option<u32>,
    #[garde(length(min = 2))]
    customer: String,
}

async fn list(Query(page): Query<Page>) -> Result<String> {
    Ok(format!("{} {:?}", page.customer, page.limit))
}

async fn by_id(Path(id): Path<u32>) -> String {
    id.to_string()
}

async fn by_pair(Path((shelf, id)): Path<(String, u32)>) -> String {
    format!("{shelf}/{id}")
}

#[derive(Deserialize)]
struct Names {
    shelf: String,
    number: u32,
}

async fn by_names(Path(names): Path<Names>) -> String {
    format!("{}/{}", names.shelf, names.number)
}

async fn forget() -> NoContent {
    NoContent
}

async fn scene() -> Scene {
    let routes = Routes::new()
        .route("/orders", post(place).get(list).delete(forget))
        .route("/id/{id}", get(by_id))
        .route("/pair/{shelf}/{id}", get(by_pair))
        .route("/names/{shelf}/{number}", get(by_names));
    Scene::with(HttpSettings { max_body_bytes: ByteSize::kib(1), ..settings() }, routes).await
}

fn first(problem: &serde_json::Value) -> (&str, &str) {
    let violation = &problem["errors"][0];
    (violation["path"].as_str().unwrap(), violation["message"].as_str().unwrap())
}

#[tokio::test]
async fn a_valid_body_is_taken_and_the_answer_tells_where() {
    let answer = scene().await.post_json("/orders", r#"{"customer":"c","lines":[{"sku":"a","quantity":1}]}"#).await;
    assert_eq!((answer.status, answer.headers["location"].as_str()), (201, "/v1/orders/1"));
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.text(), r#"{"customer":"c","lines":[{"sku":"a","quantity":1}]}"#);
    assert_eq!(scene().await.ask("DELETE /orders", "", "").await.status, 204);
}

#[tokio::test]
async fn every_violation_is_reported_by_its_path() {
    let body = r#"{"customer":"","lines":[{"sku":"a","quantity":1},{"sku":"","quantity":0}]}"#;
    let problem = scene().await.post_json("/orders", body).await.problem(400, "INVALID_ARGUMENT");
    let paths: Vec<_> = problem["errors"].as_array().unwrap().iter().map(|e| e["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["customer", "lines[1].quantity", "lines[1].sku"]);
    assert_eq!(problem["detail"], "the request has 3 invalid fields");
}

#[tokio::test]
async fn malformed_json_is_placed_and_a_wrong_type_is_named() {
    let scene = scene().await;
    let problem = scene.post_json("/orders", "{\n  \"customer\": }").await.problem(400, "INVALID_ARGUMENT");
    assert!(first(&problem).1.contains("line 2 column 15"), "{problem}");
    let body = r#"{"customer":"c","lines":[{"sku":"a","quantity":"many"}]}"#;
    let problem = scene.post_json("/orders", body).await.problem(400, "INVALID_ARGUMENT");
    assert_eq!(first(&problem).0, "lines[0].quantity");
    assert!(first(&problem).1.contains("expected i64"), "{problem}");
    for broken in [r#"{"customer":"c"}"#, "[]", "{} {}", "null", "\u{feff}{}", "{\"customer\":\"\\ud800\"}"] {
        scene.post_json("/orders", broken).await.problem(400, "INVALID_ARGUMENT");
    }
    let nested = "[".repeat(1000);
    scene.post_json("/orders", &nested).await.problem(400, "INVALID_ARGUMENT");
    let empty = "Content-Type: application/json\r\nContent-Length: 0\r\n";
    scene.ask("POST /orders", empty, "").await.problem(400, "INVALID_ARGUMENT");
}

#[tokio::test]
async fn only_json_is_taken_as_json() {
    let scene = scene().await;
    let body = r#"{"customer":"c","lines":[{"sku":"a","quantity":1}]}"#;
    for (kind, status) in [
        ("", 415),
        ("Content-Type: text/plain\r\n", 415),
        ("Content-Type: application/jsonp\r\n", 415),
        ("Content-Type: application/json\r\n", 201),
        ("Content-Type: Application/JSON; charset=utf-8\r\n", 201),
        ("Content-Type: application/vnd.shop+json\r\n", 201),
    ] {
        let answer = scene.ask("POST /orders", kind, body).await;
        assert_eq!(answer.status, status, "{kind}");
        if status == 415 {
            assert!(answer.problem(415, "INVALID_ARGUMENT")["detail"].as_str().unwrap().contains("application/json"));
        }
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_announced_or_not() {
    let scene = scene().await;
    let large = " ".repeat(1025);
    let problem = scene.post_json("/orders", &large).await.problem(413, "RESOURCE_EXHAUSTED");
    assert!(problem["detail"].as_str().unwrap().contains("1024 bytes"));
    let chunked = format!(
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{large}\r\n0\r\n",
        large.len()
    );
    scene.ask("POST /orders", &chunked, "").await.problem(413, "RESOURCE_EXHAUSTED");
}

#[tokio::test]
async fn a_body_that_pauses_is_refused() {
    let settings = HttpSettings { body_read_timeout: std::time::Duration::from_millis(20), ..settings() };
    let scene = Scene::with(settings, Routes::new().route("/orders", post(place))).await;
    let mut wire = scene.connect().await;
    wire.send("POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{").await;
    wire.answer().await.problem(408, "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn a_route_may_take_larger_bodies_than_the_server_and_axums_own_limit() {
    async fn length(body: axum::body::Bytes) -> String {
        body.len().to_string()
    }
    let routes = Routes::new().route("/", post(length).body_limit(ByteSize::mib(4))).route("/small", post(length));
    let scene = Scene::new(routes).await;
    let large = "x".repeat(3 * 1024 * 1024);
    assert_eq!(scene.ask("POST /", "", &large).await.text(), large.len().to_string());
    scene.ask("POST /small", "Content-Length: 3145728\r\n", "").await.problem(413, "RESOURCE_EXHAUSTED");
}

#[tokio::test]
async fn query_parameters_are_named_when_they_are_wrong() {
    let scene = scene().await;
    assert_eq!(scene.get("/orders?customer=ann&limit=5").await.text(), "ann Some(5)");
    for (query, path) in
        [("?customer=ann&limit=x", "limit"), ("?customer=ann&limit=0", "limit"), ("?customer=a", "customer")]
    {
        let problem = scene.get(&format!("/orders{query}")).await.problem(400, "INVALID_ARGUMENT");
        assert_eq!(first(&problem).0, path, "{problem}");
    }
    let problem = scene.get("/orders").await.problem(400, "INVALID_ARGUMENT");
    assert!(first(&problem).1.contains("customer"), "{problem}");
}

#[tokio::test]
async fn path_parameters_are_named_when_they_are_wrong() {
    let scene = scene().await;
    assert_eq!(scene.get("/id/7").await.text(), "7");
    assert_eq!(scene.get("/pair/a%20b/7").await.text(), "a b/7");
    assert_eq!(scene.get("/names/a/7").await.text(), "a/7");
    for (path, name) in [
        ("/id/x", "id"),
        ("/id/-1", "id"),
        ("/id/99999999999", "id"),
        ("/pair/a/x", "id"),
        ("/names/a/x", "number"),
        ("/id/%ff", "id"),
    ] {
        let problem = scene.get(path).await.problem(400, "INVALID_ARGUMENT");
        assert_eq!(first(&problem).0, name, "{path}: {problem}");
    }
}
