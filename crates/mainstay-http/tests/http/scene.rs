//! The scene of every test: a running server, a raw connection to it, and what it logged.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_core::{Component, Context};
use mainstay_http::{HttpSettings, Routes, Server};
use mainstay_telemetry::{LogFormat, LogSettings, Metrics, logger};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

pub(crate) struct Scene {
    pub(crate) server: Arc<Server>,
    pub(crate) addr: SocketAddr,
    pub(crate) metrics: Metrics,
    run: JoinHandle<mainstay_core::Result<()>>,
}

pub(crate) fn settings() -> HttpSettings {
    HttpSettings { addr: ([127, 0, 0, 1], 0).into(), ..HttpSettings::default() }
}

impl Scene {
    pub(crate) async fn new(routes: impl Into<Routes>) -> Self {
        Self::with(settings(), routes).await
    }

    pub(crate) async fn with(settings: HttpSettings, routes: impl Into<Routes>) -> Self {
        let metrics = Metrics::new();
        let server = Arc::new(Server::new("http", settings, routes, &metrics));
        server.start(&Context::background()).await.unwrap();
        let addr = server.local_addr().unwrap();
        let running = server.clone();
        let run = tokio::spawn(async move { running.run(&Context::background()).await });
        Self { server, addr, metrics, run }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(crate) async fn connect(&self) -> Wire {
        Wire { stream: TcpStream::connect(self.addr).await.unwrap(), buffer: Vec::new(), is_head: false }
    }

    /// One request over a connection of its own; `head` is everything between the request line and the empty line.
    pub(crate) async fn ask(&self, line: &str, head: &str, body: &str) -> Answer {
        let mut wire = self.connect().await;
        wire.request(line, head, body).await;
        wire.answer().await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), "", "").await
    }

    pub(crate) async fn post_json(&self, path: &str, body: &str) -> Answer {
        self.ask(&format!("POST {path}"), "Content-Type: application/json\r\n", body).await
    }

    /// Stops the server within `budget` and returns what was cut.
    pub(crate) async fn stop(self, budget: Duration) -> Vec<String> {
        let names = self.server.stop(&Context::background().with_timeout(budget)).await;
        self.run.await.unwrap().unwrap();
        names
    }
}

/// A client that speaks nothing but HTTP/2.
pub(crate) fn http2_client() -> reqwest::Client {
    mainstay_http::Client::new().unwrap(); // installs the TLS provider, without which reqwest panics
    reqwest::Client::builder().http2_prior_knowledge().build().unwrap()
}

/// A plain connection, read and written byte by byte.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
    /// The last request was a HEAD: its answer announces a body and has none.
    is_head: bool,
}

impl Wire {
    pub(crate) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    pub(crate) async fn request(&mut self, line: &str, head: &str, body: &str) {
        self.is_head = line.starts_with("HEAD ");
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        self.send(&format!("{line} HTTP/1.1\r\nHost: test\r\n{head}{length}\r\n{body}")).await;
    }

    /// The next response with a Content-Length, or without a body.
    pub(crate) async fn answer(&mut self) -> Answer {
        self.read_until(b"\r\n\r\n").await;
        let end = find(&self.buffer, b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let split = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        let headers: HashMap<_, _> = lines.filter_map(split).collect();
        let length = headers
            .get("content-length")
            .filter(|_| !self.is_head)
            .map_or(0, |length| length.parse::<usize>().unwrap());
        while self.buffer.len() < length {
            assert!(self.read().await > 0, "the body broke off after {} of {length} bytes", self.buffer.len());
        }
        Answer { status, headers, body: self.buffer.drain(..length).collect() }
    }

    /// Reads until `pattern` has come.
    pub(crate) async fn read_until(&mut self, pattern: &[u8]) {
        while find(&self.buffer, pattern).is_none() {
            let text = String::from_utf8_lossy(pattern).into_owned();
            assert!(self.read().await > 0, "closed before {text:?}: {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    /// Waits for the server to close, and returns what it sent before. A reset is a close.
    pub(crate) async fn closed(mut self) -> Vec<u8> {
        while self.read().await > 0 {}
        self.buffer
    }

    async fn read(&mut self) -> usize {
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("{error}"),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The body as a problem document that fits the head.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(
            (problem["status"].as_u64(), problem["code"].as_str()),
            (Some(status.into()), Some(code)),
            "{problem}"
        );
        assert_eq!(problem["request_id"], self.headers["x-request-id"]);
        problem
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// What is logged on this thread while it lives. Tests run on one thread each, server included.
pub(crate) struct Logs {
    lines: Arc<Mutex<Vec<u8>>>,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Logs {
    pub(crate) fn capture() -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = lines.clone();
        let settings = LogSettings { filter: "debug".to_owned(), format: LogFormat::Json, ..LogSettings::default() };
        let (subscriber, _) = logger(&settings, move || Sink(sink.clone())).unwrap();
        Self { lines, _guard: tracing::subscriber::set_default(subscriber) }
    }

    pub(crate) fn of(&self, target: &str) -> Vec<Value> {
        let text = String::from_utf8(self.lines.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["target"] == target).collect()
    }
}

struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lets everything that is ready run, until `condition` holds. Fails by the test's own time limit, never by a count.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}
