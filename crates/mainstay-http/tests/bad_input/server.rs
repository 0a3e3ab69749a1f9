//! The server under test, in a process of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, io};

use garde::Validate;
use mainstay_core::{Component, Context};
use mainstay_http::routing::{get, post};
use mainstay_http::{HttpSettings, Json, Path, Query, Routes, Server};
use mainstay_telemetry::Metrics;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Limits that a test can wait for.
pub(crate) const IMPATIENT: &str = "impatient";
/// The defaults, with room for many connections.
pub(crate) const PATIENT: &str = "patient";

/// Says that this process is the server, and which.
const VARIABLE: &str = "MAINSTAY_BAD_INPUT_SERVER";
/// Long enough for a busy machine to send a request in, short enough to wait for.
const SHORT: Duration = Duration::from_secs(2);

/// A running server; killed on drop.
pub(crate) struct ServerProcess {
    child: Child,
    pub(crate) addr: SocketAddr,
}

impl ServerProcess {
    pub(crate) fn start(kind: &str) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.env(VARIABLE, kind).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addr = line.trim().parse().unwrap_or_else(|_| panic!("the server didn't start: {line:?}"));
        Self { child, addr }
    }

    /// The memory it has resident, in KiB; `None` where the system doesn't tell.
    pub(crate) fn resident_kib(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

/// Whether this process was started to be the server.
pub(crate) fn is_wanted() -> bool {
    env::var_os(VARIABLE).is_some()
}

/// Serves until the test that started it is gone.
pub(crate) fn serve() {
    std::panic::set_hook(Box::new(|_| {})); // the handler that panics is one of the cases
    let impatient = env::var(VARIABLE).is_ok_and(|kind| kind == IMPATIENT);
    let defaults = HttpSettings { addr: ([127, 0, 0, 1], 0).into(), ..HttpSettings::default() };
    let settings = match impatient {
        true => {
            HttpSettings { first_byte_timeout: SHORT, header_read_timeout: SHORT, body_read_timeout: SHORT, ..defaults }
        }
        false => HttpSettings {
            first_byte_timeout: Duration::from_secs(600),
            idle_timeout: Duration::from_secs(600),
            max_connections: 20_000,
            ..defaults
        },
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let server = Server::new("http", settings, routes(), &Metrics::new());
        let ctx = Context::background();
        server.start(&ctx).await.unwrap();
        let mut out = io::stdout().lock();
        writeln!(out, "{}", server.local_addr().unwrap()).unwrap();
        out.flush().unwrap();
        drop(out);
        let parent = tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new()));
        tokio::select! {
            ended = server.run(&ctx) => ended.unwrap(),
            _ = parent => {}
        }
    });
    runtime.shutdown_background();
}

#[derive(Deserialize, Serialize, ToSchema, Validate)]
struct Order {
    #[garde(length(min = 1))]
    customer: String,
}

#[derive(Deserialize, Serialize, ToSchema, Validate)]
#[garde(allow_unvalidated)]
struct Anything {
    value: serde_json::Value,
}

#[derive(Deserialize, ToSchema, Validate)]
struct Page {
    #[garde(length(max = 20))]
    search: String,
}

#[allow(clippy::panic, reason = "the case is a handler that panics")]
async fn panics() {
    panic!("by intention");
}

fn routes() -> Routes {
    let order = |Json(order): Json<Order>| async move { Json(order) };
    let anything = |Json(anything): Json<Anything>| async move { Json(anything) };
    Routes::new()
        .route("/ok", get(|| async { "ok" }))
        .route("/orders", post(order))
        .route("/hurried", post(order).deadline(SHORT))
        .route("/anything", post(anything))
        .route("/text", post(|text: String| async move { text }))
        .route("/bodiless", post(|| async { "read nothing" }))
        .route("/numbers/{number}", get(|Path(number): Path<u64>| async move { number.to_string() }))
        .route("/names/{name}", get(|Path(name): Path<String>| async move { name }))
        .route("/search", get(|Query(page): Query<Page>| async move { page.search }))
        .route("/panic", get(panics))
}
