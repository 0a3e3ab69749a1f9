//! What a gRPC call costs on our server and on bare tonic, side by side: processor time of the server's process per call, in
//! interleaved rounds. `just cost-of-grpc` runs it; the figures are in `docs/performance.md`.

#![allow(clippy::print_stdout, reason = "a program for measuring")]
#![allow(clippy::unwrap_used, reason = "a program for measuring, which ends where something is wrong")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use conformance::calls::v1::Number;
use conformance::process::free_port;
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::{self, BoxStream, StreamExt};
use http::uri::PathAndQuery;
use mainstay::grpc::{Grpc, Outgoing, Service};
use mainstay::http::{HttpSettings, Server};
use mainstay::prelude::*;
use mainstay::telemetry::Metrics;
use tonic::server::{NamedService, ServerStreamingService, UnaryService};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

const ROUNDS: usize = 7;
/// How many calls are open at a time, over how many connections.
const OPEN: usize = 16;
const CONNECTIONS: usize = 2;
const MESSAGES: i64 = 100;
/// Kind of call, path, and how many of them are a round.
const KINDS: [(&str, &str, usize); 2] =
    [("unary", "/bench.Bench/Echo", 40_000), ("stream of 100", "/bench.Bench/Count", 3_000)];

#[tokio::main]
async fn main() {
    let words: Vec<_> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["tonic", addr] => bare(addr.parse().unwrap()).await,
        ["mainstay", addr] => ours(addr.parse().unwrap()).await,
        _ => compare().await,
    }
}

async fn compare() {
    for (kind, path, calls) in KINDS {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            rounds.push((cost("tonic", path, calls).await, cost("mainstay", path, calls).await));
        }
        let mut ratios: Vec<_> = rounds.iter().map(|(bare, ours)| ours / bare).collect();
        let median = |mut of: Vec<f64>| {
            of.sort_by(f64::total_cmp);
            of[of.len() / 2]
        };
        let (bare, ours): (Vec<_>, Vec<_>) = rounds.into_iter().unzip();
        ratios.sort_by(f64::total_cmp);
        println!(
            "{kind}: tonic {:.1} us, mainstay {:.1} us, ratio {:.3} [{:.3}-{:.3}]",
            median(bare),
            median(ours),
            ratios[ROUNDS / 2],
            ratios[0],
            ratios[ROUNDS - 1]
        );
    }
}

/// Microseconds of processor time that the server of this kind uses per call.
async fn cost(server: &str, path: &'static str, calls: usize) -> f64 {
    let addr = free_port();
    let program = std::env::current_exe().unwrap();
    let mut child = Command::new(program).args([server, &addr.to_string()]).stdin(Stdio::null()).spawn().unwrap();
    while std::net::TcpStream::connect(addr).is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    load(addr, path, calls / 10).await; // warm
    let before = cpu(&child);
    load(addr, path, calls).await;
    let used = cpu(&child) - before;
    child.kill().unwrap();
    child.wait().unwrap();
    used * 1e6 / calls as f64
}

/// Seconds of processor time so far.
fn cpu(child: &Child) -> f64 {
    let schedstat = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    let nanoseconds = schedstat.filter_map(|task| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    nanoseconds.sum::<u64>() as f64 / 1e9
}

async fn load(addr: SocketAddr, path: &'static str, calls: usize) {
    let connect = |_| async { Channel::from_shared(format!("http://{addr}")).unwrap().connect().await.unwrap() };
    let channels = join_all((0..CONNECTIONS).map(connect)).await;
    let workers = (0..OPEN).map(|worker| {
        let mut client = tonic::client::Grpc::new(channels[worker % CONNECTIONS].clone());
        tokio::spawn(async move {
            for _ in 0..calls / OPEN {
                client.ready().await.unwrap();
                let codec = ProstCodec::<Number, Number>::default();
                let request = Request::new(Number { value: 7, padding: vec![1; 64] });
                let answer = client.server_streaming(request, PathAndQuery::from_static(path), codec).await.unwrap();
                let mut messages = answer.into_inner();
                while messages.message().await.unwrap().is_some() {}
            }
        })
    });
    for worker in workers {
        worker.await.unwrap();
    }
}

fn numbers(first: Number) -> impl Iterator<Item = Number> {
    (0..MESSAGES).map(move |value| Number { value, ..first.clone() })
}

async fn ours(addr: SocketAddr) {
    let service = Service::new("bench.Bench", &[])
        .unary("Echo", |_: Context, number: Number| async { Ok::<_, Error>(number) })
        .server_streaming("Count", |_: Context, first: Number| async {
            Ok(Outgoing::new(stream::iter(numbers(first).map(Ok))))
        });
    let settings = HttpSettings { addr, ..HttpSettings::default() };
    let server = Server::new("bench", settings, Grpc::new().service(service).into_routes(), &Metrics::new());
    let ctx = Context::background();
    server.start(&ctx).await.unwrap();
    server.run(&ctx).await.unwrap();
}

async fn bare(addr: SocketAddr) {
    tonic::transport::Server::builder().tcp_nodelay(true).add_service(Bench).serve(addr).await.unwrap();
}

/// What tonic's code generator makes of the same two methods.
#[derive(Clone)]
struct Bench;

impl NamedService for Bench {
    const NAME: &'static str = "bench.Bench";
}

impl UnaryService<Number> for Bench {
    type Response = Number;
    type Future = BoxFuture<'static, Result<Response<Number>, Status>>;

    fn call(&mut self, request: Request<Number>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(request.into_inner())) })
    }
}

impl ServerStreamingService<Number> for Bench {
    type Response = Number;
    type ResponseStream = BoxStream<'static, Result<Number, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Number>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(stream::iter(numbers(request.into_inner()).map(Ok)).boxed())) })
    }
}

impl tower::Service<http::Request<tonic::body::Body>> for Bench {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Number, Number>::default());
            Ok(match request.uri().path() {
                "/bench.Bench/Echo" => grpc.unary(Bench, request).await,
                _ => grpc.server_streaming(Bench, request).await,
            })
        })
    }
}
