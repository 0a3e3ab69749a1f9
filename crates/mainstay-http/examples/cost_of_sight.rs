//! A service that answers `hello`, with as much telemetry as it is told, for `.ci/cost-of-sight` to measure. It serves until
//! its standard input ends, and then tells how much processor time it used.
//!
//! `cost_of_sight ADDRESS off|logged|traced [COLLECTOR]`: `off` counts its metrics, which costs some atomics and can't be
//! turned off, and logs nothing; `logged` also writes the access log; `traced` also records and exports every request.

#![allow(clippy::print_stderr, reason = "a program for measuring, whose standard output is its log")]

use std::io::Read;

use mainstay_core::{Component, Context, Error, Result};
use mainstay_http::routing::get;
use mainstay_http::{Client, HttpSettings, Routes, Server};
use mainstay_telemetry::trace::{TraceSettings, Tracer};
use mainstay_telemetry::{LogFormat, LogSettings, Metrics, start_logging};

async fn hello(_: Context) -> &'static str {
    "hello\n"
}

#[tokio::main]
async fn main() -> Result<()> {
    let usage = || Error::invalid_argument("cost_of_sight ADDRESS off|logged|traced [COLLECTOR]");
    let mut words = std::env::args().skip(1);
    let addr = words.next().and_then(|addr| addr.parse().ok()).ok_or_else(usage)?;
    let mode = words.next().ok_or_else(usage)?;
    let endpoint = if mode == "traced" { words.next().ok_or_else(usage)? } else { String::new() };
    let metrics = Metrics::new();
    if mode != "off" {
        start_logging(&LogSettings { format: LogFormat::Json, repeats: 0, ..LogSettings::default() })?;
    }
    let settings = TraceSettings { endpoint: endpoint.clone(), ..TraceSettings::default() };
    let client = Client::new()?;
    let (tracer, exporter) = Tracer::new("hello", &settings, &metrics, || {
        Box::new(move |path, body| {
            let call = client.post(format!("{endpoint}{path}")).header("content-type", "application/x-protobuf");
            Box::pin(async move { call.body(body).send(&Context::background()).await.map(drop) })
        })
    });
    let settings = HttpSettings { addr, ..HttpSettings::default() };
    let routes = Routes::new().route("/", get(hello));
    let server = Server::new("http", settings, routes, &metrics).with_tracer(tracer);
    let ctx = Context::background();
    if let Some(exporter) = &exporter {
        exporter.start(&ctx).await?;
    }
    server.start(&ctx).await?;
    let until = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    tokio::select! {
        served = server.run(&ctx) => served?,
        _ = until => {}
    }
    if let Some(exporter) = &exporter {
        exporter.stop(&ctx).await;
    }
    metrics.watch_process();
    for line in metrics.render_prometheus().lines() {
        let told = ["process_cpu_seconds_total", "http_server_request_duration_seconds_count", "trace_spans_"];
        if told.iter().any(|name| line.starts_with(name)) {
            eprintln!("{line}");
        }
    }
    Ok(())
}
