//! Errors come out as problem documents, whoever made them, and private things stay in the log.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use mainstay_core::{Code, Context, Error, ErrorInfo, Result, ResultExt};
use mainstay_http::routing::{get, post};
use mainstay_http::{Path, Problem, Routes};

use crate::scene::{Logs, Scene, settings};

async fn fail(Path(code): Path<String>) -> Result<()> {
    let code = Code::from_name(&code).unwrap();
    Err(Error::new(code, "what the caller may know").context("doing secret things"))
}

/// The rows of the first table: code and status.
fn documented() -> Vec<(Code, u16)> {
    let table = include_str!("../../docs/errors.md").lines().filter_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let code = Code::from_name(cells.next()?.trim_matches('`'))?;
        Some((code, cells.next()?.parse().ok()?))
    });
    table.collect()
}

#[tokio::test]
async fn the_documented_table_is_what_the_codes_say_and_the_server_answers() {
    let scene = Scene::new(Routes::new().route("/{code}", get(fail))).await;
    let documented = documented();
    assert_eq!(documented.len(), Code::ALL.len(), "every code has one row");
    for (code, status) in documented {
        assert_eq!(code.http_status(), status, "{code}");
        let problem = scene.get(&format!("/{code}")).await.problem(status, code.name());
        assert_eq!(problem["detail"], "what the caller may know");
        assert_eq!(problem["type"], "about:blank");
        assert!(!problem["title"].as_str().unwrap().is_empty());
    }
}

async fn leak() -> Result<()> {
    Err(std::io::Error::other("password=hunter2")).context("opening /etc/shadow")
}

#[tokio::test]
async fn a_server_fault_tells_the_log_everything_and_the_caller_nothing() {
    let logs = Logs::capture();
    let scene = Scene::new(Routes::new().route("/leak", get(leak))).await;
    let answer = scene.get("/leak").await;
    let problem = answer.problem(500, "INTERNAL");
    assert_eq!(problem["detail"], "internal error");
    for secret in ["hunter2", "shadow"] {
        assert!(!answer.text().contains(secret));
        assert!(!format!("{:?}", answer.headers).contains(secret));
    }
    let lines = logs.of("mainstay::http");
    let line = lines.iter().find(|line| line["level"] == "ERROR").unwrap();
    assert_eq!(line["error"], "opening /etc/shadow: password=hunter2");
    assert_eq!(line["request_id"], problem["request_id"]);
    assert_eq!(line["route"], "/leak");
    assert!(line["location"].as_str().unwrap().contains("errors.rs"));
}

async fn details() -> Result<()> {
    let info = ErrorInfo { reason: "STOCK_EXHAUSTED".into(), domain: "shop".into(), metadata: Default::default() };
    Err(Error::unavailable("come back").retry_after(std::time::Duration::from_millis(1500)).with_detail(info))
}

#[tokio::test]
async fn retry_after_is_whole_seconds_rounded_up_and_info_is_in_the_document() {
    let scene = Scene::new(Routes::new().route("/", get(details))).await;
    let answer = scene.get("/").await;
    let problem = answer.problem(503, "UNAVAILABLE");
    assert_eq!(answer.headers["retry-after"], "2");
    assert_eq!(problem["info"]["reason"], "STOCK_EXHAUSTED");
}

async fn explode() -> &'static str {
    panic!("the {} is on fire", "boiler")
}

async fn explode_later() -> &'static str {
    tokio::task::yield_now().await;
    std::panic::panic_any("plain text")
}

#[tokio::test]
async fn a_panic_is_a_500_for_its_request_and_nothing_for_the_others() {
    let logs = Logs::capture();
    let routes = Routes::new().route("/now", get(explode)).route("/later", get(explode_later)).route("/ok", get(ok));
    let scene = Scene::new(routes).await;
    let mut wire = scene.connect().await;
    for (path, text) in [("/now", "the boiler is on fire"), ("/later", "plain text")] {
        wire.request(&format!("GET {path}"), "", "").await;
        let answer = wire.answer().await;
        answer.problem(500, "INTERNAL");
        assert!(!answer.text().contains(text));
        let logged = logs.of("mainstay::http").pop().unwrap();
        assert!(logged["error"].as_str().unwrap().contains(text), "{logged}");
    }
    wire.request("GET /ok", "", "").await;
    assert_eq!(wire.answer().await.text(), "ok");
}

async fn ok() -> &'static str {
    "ok"
}

#[tokio::test]
async fn the_routers_own_answers_are_problems() {
    let scene = Scene::new(Routes::new().route("/things", get(ok).post(ok))).await;
    scene.get("/nothing/here").await.problem(404, "NOT_FOUND");
    let answer = scene.ask("DELETE /things", "", "").await;
    answer.problem(405, "UNIMPLEMENTED");
    let mut allowed: Vec<_> = answer.headers["allow"].split(',').map(str::trim).collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
    let head = scene.ask("HEAD /nothing", "", "").await;
    assert_eq!((head.status, head.body.len()), (404, 0));
}

async fn axum_json(axum::Json(value): axum::Json<u32>) -> String {
    value.to_string()
}

async fn axum_path(axum::extract::Path(id): axum::extract::Path<u32>) -> String {
    id.to_string()
}

async fn axum_extension(axum::Extension(_): axum::Extension<u32>) {}

async fn axum_string(body: String) -> String {
    body
}

#[tokio::test]
async fn the_rejections_of_plain_axum_extractors_are_problems() {
    let limits = mainstay_http::HttpSettings { max_body_bytes: mainstay_core::ByteSize::bytes(16), ..settings() };
    let router = axum::Router::new()
        .route("/json", axum::routing::post(axum_json))
        .route("/path/{id}", axum::routing::get(axum_path))
        .route("/extension", axum::routing::get(axum_extension))
        .route("/string", axum::routing::post(axum_string));
    let scene = Scene::with(limits, router).await;
    scene.post_json("/json", "x").await.problem(400, "INVALID_ARGUMENT");
    let problem = scene.post_json("/json", "\"x\"").await.problem(422, "INVALID_ARGUMENT");
    assert!(problem["detail"].as_str().unwrap().contains("expected u32"));
    scene.ask("POST /json", "", "1").await.problem(415, "INVALID_ARGUMENT");
    scene.get("/path/x").await.problem(400, "INVALID_ARGUMENT");
    scene.get("/extension").await.problem(500, "INTERNAL");
    let chunked = "Transfer-Encoding: chunked\r\n\r\n20\r\n01234567890123456789012345678901\r\n0\r\n";
    scene.ask("POST /string", chunked, "").await.problem(413, "RESOURCE_EXHAUSTED");
}

async fn deliberate(request: Request) -> axum::response::Response {
    match request.uri().path() {
        "/bare404" => StatusCode::NOT_FOUND.into_response(),
        "/text400" => (StatusCode::BAD_REQUEST, "my own words").into_response(),
        "/html500" => (StatusCode::INTERNAL_SERVER_ERROR, axum::response::Html("<p>oops")).into_response(),
        "/gone" => Problem::new(StatusCode::GONE, Error::not_found("order")).into_response(),
        _ => (StatusCode::IM_A_TEAPOT, "short").into_response(),
    }
}

#[tokio::test]
async fn a_services_own_answers_go_out_untouched() {
    let paths = ["/bare404", "/text400", "/html500", "/teapot", "/gone"];
    let routes = paths.iter().fold(Routes::new(), |routes, path| routes.route(path, get(deliberate)));
    let scene = Scene::new(routes).await;
    for (path, status, body) in [
        ("/bare404", 404, ""),
        ("/text400", 400, "my own words"),
        ("/html500", 500, "<p>oops"),
        ("/teapot", 418, "short"),
    ] {
        let answer = scene.get(path).await;
        assert_eq!((answer.status, answer.text()), (status, body), "{path}");
    }
    scene.get("/gone").await.problem(410, "NOT_FOUND");
}

#[tokio::test]
async fn a_fallback_of_ones_own_is_kept() {
    let router = axum::Router::new().fallback(|| async { (StatusCode::NOT_FOUND, "lost?") });
    let scene = Scene::new(Routes::new().route("/ok", get(ok)).merge_axum(router)).await;
    assert_eq!(scene.get("/x").await.text(), "lost?");
    assert_eq!(scene.get("/ok").await.text(), "ok");
}

async fn context_and_error(ctx: Context) -> Result<String> {
    Ok(ctx.request_id().unwrap().to_string())
}

#[tokio::test]
async fn a_plain_axum_handler_takes_the_context_and_fails_with_our_error() {
    let router = axum::Router::new()
        .route("/id", axum::routing::get(context_and_error))
        .route("/fail/{code}", axum::routing::post(fail));
    let scene = Scene::new(Routes::new().route("/mine", post(ok)).merge_axum(router)).await;
    let answer = scene.ask("GET /id", "X-Request-Id: mine-1\r\n", "").await;
    assert_eq!(answer.text(), "mine-1");
    scene.ask("POST /fail/ABORTED", "", "").await.problem(409, "ABORTED");
}
