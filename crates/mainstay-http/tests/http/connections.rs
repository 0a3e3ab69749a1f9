//! Connections that misbehave, and too many of them.

use std::time::Duration;

use mainstay_core::{Component, Context};
use mainstay_http::routing::get;
use mainstay_http::{HttpSettings, Routes, Server};
use mainstay_telemetry::Metrics;

use crate::scene::{Scene, http2_client, settings};

const SHORT: Duration = Duration::from_millis(40);

fn routes() -> Routes {
    Routes::new().route("/", get(|| async { "ok" }))
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let scene = Scene::with(HttpSettings { first_byte_timeout: SHORT, ..settings() }, routes()).await;
    assert!(scene.connect().await.closed().await.is_empty());
}

#[tokio::test]
async fn a_head_that_dribbles_is_cut_although_bytes_keep_coming() {
    let scene = Scene::with(HttpSettings { header_read_timeout: SHORT, ..settings() }, routes()).await;
    let mut wire = scene.connect().await;
    wire.send("GET / HTTP/1.1\r\nX-Slow: ").await;
    let (mut reading, mut writing) = wire.stream.into_split();
    let dribble = async {
        while tokio::io::AsyncWriteExt::write_all(&mut writing, b"x").await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let closed = async {
        let mut bytes = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut bytes).await;
        bytes
    };
    let (_, bytes) = tokio::join!(dribble, closed);
    assert!(!bytes.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn a_dribbled_second_head_is_cut_too() {
    let scene = Scene::with(HttpSettings { header_read_timeout: SHORT, ..settings() }, routes()).await;
    let mut wire = scene.connect().await;
    wire.request("GET /", "", "").await;
    assert_eq!(wire.answer().await.text(), "ok");
    wire.send("GET").await;
    assert!(wire.closed().await.is_empty());
}

#[tokio::test]
async fn an_http2_preface_that_never_ends_is_cut() {
    let scene = Scene::with(HttpSettings { header_read_timeout: SHORT, ..settings() }, routes()).await;
    let mut wire = scene.connect().await;
    wire.send("PRI * HTTP/2").await;
    assert!(wire.closed().await.is_empty());
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_last_response() {
    let scene = Scene::with(HttpSettings { idle_timeout: SHORT, ..settings() }, routes()).await;
    let mut wire = scene.connect().await;
    wire.request("GET /", "", "").await;
    assert_eq!(wire.answer().await.text(), "ok");
    assert!(wire.closed().await.is_empty());
}

#[tokio::test]
async fn an_idle_http2_connection_is_told_goodbye() {
    let scene = Scene::with(HttpSettings { idle_timeout: SHORT, ..settings() }, routes()).await;
    let mut wire = scene.connect().await;
    wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let bytes = wire.closed().await;
    let goaway = [7, 0, 0, 0, 0, 0]; // type, flags, stream 0
    assert!(bytes.windows(6).any(|window| window == goaway), "{bytes:?}");
}

#[tokio::test]
async fn a_client_that_doesnt_read_its_response_is_cut() {
    let (sender, mut left) = tokio::sync::mpsc::unbounded_channel();
    let endless = move |ctx: Context| {
        let sender = sender.clone();
        async move {
            tokio::spawn(async move { sender.send(ctx.done().await) });
            let chunk = || Ok::<_, std::io::Error>(vec![0_u8; 64 * 1024]);
            axum::body::Body::from_stream(futures_util::stream::repeat_with(chunk))
        }
    };
    let limits = HttpSettings { write_timeout: SHORT, ..settings() };
    let scene = Scene::with(limits, Routes::new().route("/", get(endless).without_deadline())).await;
    let mut wire = scene.connect().await;
    wire.request("GET /", "", "").await;
    assert!(left.recv().await.is_some(), "cut while the client holds the connection open and reads nothing");
    drop(wire);
}

#[tokio::test]
async fn above_the_connection_limit_new_ones_wait_and_are_served_later() {
    let scene = Scene::with(HttpSettings { max_connections: 2, ..settings() }, routes()).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut wire = scene.connect().await;
        wire.request("GET /", "", "").await;
        wire.answer().await;
        open.push(wire);
    }
    let mut waiting = scene.connect().await;
    waiting.request("GET /", "", "").await;
    // Both open connections still answer, and the third has not been accepted: nothing of it is readable.
    for wire in &mut open {
        wire.request("GET /", "", "").await;
        assert_eq!(wire.answer().await.text(), "ok");
    }
    let mut byte = [0];
    assert!(waiting.stream.try_read(&mut byte).is_err());
    drop(open.pop());
    assert_eq!(waiting.answer().await.text(), "ok");
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_served_on_the_same_port() {
    let scene = Scene::new(routes()).await;
    let client = http2_client();
    let response = client.get(scene.url("/")).send().await.unwrap();
    assert_eq!(response.version(), reqwest::Version::HTTP_2);
    assert_eq!(response.text().await.unwrap(), "ok");
    assert_eq!(scene.get("/").await.text(), "ok");
}

#[tokio::test]
async fn garbage_ends_its_connection_and_nothing_else() {
    let scene = Scene::new(routes()).await;
    for garbage in ["\0\0\0\0\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\u{16}\u{3}\u{1}hello\r\n\r\n"] {
        let mut wire = scene.connect().await;
        wire.send(garbage).await;
        let bytes = wire.closed().await;
        assert!(bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 4"), "{garbage:?}: {bytes:?}");
    }
    assert_eq!(scene.get("/").await.text(), "ok");
}

#[tokio::test]
async fn a_port_in_use_fails_the_start_with_the_hint() {
    let scene = Scene::new(routes()).await;
    let second = Server::new("http", HttpSettings { addr: scene.addr, ..settings() }, routes(), &Metrics::new())
        .with_address_hint("set SHOP_HTTP__ADDR");
    let error = second.start(&Context::background()).await.unwrap_err();
    assert_eq!(error.code(), mainstay_core::Code::FailedPrecondition);
    assert!(error.message().contains(&scene.addr.to_string()) && error.message().contains("SHOP_HTTP__ADDR"));
}

#[tokio::test]
async fn a_socket_that_was_handed_over_is_served() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    let server = Server::new("http", settings(), routes(), &Metrics::new()).with_listener(socket);
    server.start(&Context::background()).await.unwrap();
    assert_eq!(server.local_addr(), Some(addr));
}
