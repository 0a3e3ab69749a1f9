//! One request through two services into a database: HTTP, service A, our client, service B, SQL.

#![allow(clippy::unwrap_used, reason = "a case fails by panicking, and its helpers are no `#[test]` functions")]
#![allow(clippy::print_stderr, reason = "the figures are for whoever runs this with --nocapture")]

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{Code, Component, Context, RequestId, Result, Trace};
use mainstay_http::routing::{MethodRoutes, get};
use mainstay_http::{Client, HttpSettings, Routes, Server};
use mainstay_sql::testing::{Harness, Needs, Scene};
use mainstay_sql::{DatabaseSettings, Db, Dialect, Statement, cases, sql};
use mainstay_telemetry::Metrics;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

fn main() -> ExitCode {
    let harness = cases![
        Harness::new(); Sqlite, Postgres, Mysql;
        the_first_services_deadline_stops_the_seconds_statement,
        a_caller_that_leaves_stops_the_statement_two_services_away
    ];
    harness
        .case("a_call_that_cant_finish_is_refused_before_it_starts", Needs::Nothing, refused_before_it_starts)
        .case("a_caller_can_shorten_a_deadline_and_never_lengthen_it", Needs::Nothing, shortened_and_never_lengthened)
        .run()
}

/// Runs for far longer than any test.
const SLOW: Statement = sql! {
    mysql: "SELECT SLEEP(600)",
    postgres: "SELECT pg_sleep(600)",
    sqlite: "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT COUNT(*) FROM n",
};

/// What service A gives each request.
const DEADLINE: Duration = Duration::from_millis(300);

/// Longer than the servers' own limit, which holds then: 30 s.
const NEVER: Duration = Duration::from_secs(3_600);

/// How long what should have stopped may go on: generous, because it proves that it stops and not how soon.
const PATIENCE: Duration = Duration::from_secs(5);

async fn the_first_services_deadline_stops_the_seconds_statement(scene: Scene) -> Result<()> {
    let mut chain = Chain::start(&scene, DEADLINE).await?;
    let mut late = Vec::new();
    for round in 0..6 {
        let url = chain.first.url("/");
        // Service B drops the handler of a GET when A gives up; that of a POST ends by the deadline that came with it.
        let call = if round % 2 == 0 { Client::new()?.get(url) } else { Client::new()?.post(url) };
        let trace = Trace::generate();
        let ctx = scene.ctx.with_request_id(RequestId::generate()).with_trace(trace.clone());
        let began = Instant::now();
        let error = call.send(&ctx).await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");

        let (first, second) = (chain.seen().await, chain.seen().await);
        assert!(first.left.unwrap() <= DEADLINE, "{first:?}");
        assert!(second.left < first.left, "B has less than A had: {first:?}, {second:?}");
        for seen in [&first, &second] {
            assert_eq!((Some(&seen.request_id), seen.trace.trace_id), (ctx.request_id(), trace.trace_id));
        }
        assert_ne!(first.trace.span_id, second.trace.span_id, "each call is a span of its own");

        chain.nothing_runs(&scene).await?;
        late.push(began.elapsed().saturating_sub(DEADLINE));
    }
    late.sort();
    eprintln!("{}: the database is free {:?} after the deadline (median of 6)", scene.db.dialect(), late[3]);
    chain.db.close(&scene.ctx).await;
    Ok(())
}

async fn a_caller_that_leaves_stops_the_statement_two_services_away(scene: Scene) -> Result<()> {
    let mut chain = Chain::start(&scene, NEVER).await?;
    let (call, ctx) = (Client::new()?.get(chain.first.url("/")), scene.ctx.clone());
    let caller = tokio::spawn(async move { call.send(&ctx).await.map(drop) });
    chain.seen().await;
    chain.seen().await;
    caller.abort();
    chain.nothing_runs(&scene).await?;
    chain.db.close(&scene.ctx).await;
    Ok(())
}

async fn refused_before_it_starts() -> Result<()> {
    let (events, mut seen) = unbounded_channel();
    let service = Service::start(Routes::new().route("/", looking(events))).await?;
    let client = Client::new()?;
    for milliseconds in 0..=5 {
        let ctx = Context::background().with_timeout(Duration::from_millis(milliseconds));
        let error = client.get(service.url("/")).send(&ctx).await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
    }
    client.get(service.url("/")).send(&Context::background().with_request_id(id("last"))).await?;
    assert_eq!(seen.recv().await.unwrap().request_id, id("last"), "no call before it arrived");
    Ok(())
}

async fn shortened_and_never_lengthened() -> Result<()> {
    const OWN: Duration = Duration::from_secs(20);
    let (events, mut seen) = unbounded_channel();
    let second = Service::start(Routes::new().route("/", looking(events.clone()).deadline(OWN))).await?;
    let first = Service::start(Routes::new().route("/", forwarding(second.url("/"), events, NEVER))).await?;
    let client = Client::new()?;
    for (asked, header, most) in [
        (Duration::from_secs(10), None, Duration::from_millis(9_990)), // shorter for both: two hops of 5 ms
        (Duration::from_secs(3_600), None, OWN),                       // the caller has an hour, B its own 20 s
        (Duration::from_secs(10), Some("3600000"), Duration::from_secs(20)), // nor by a header
    ] {
        let mut call = client.get(first.url("/"));
        if let Some(milliseconds) = header {
            call = call.header("connect-timeout-ms", milliseconds);
        }
        call.send(&Context::background().with_timeout(asked)).await?;
        let (at_first, at_second) = (seen.recv().await.unwrap(), seen.recv().await.unwrap());
        assert!(at_first.left.unwrap() <= Duration::from_secs(30), "the server's own limit: {at_first:?}");
        assert!(at_second.left.unwrap() <= most && at_second.left < at_first.left, "{at_first:?}, {at_second:?}");
    }
    Ok(())
}

/// Service A in front of service B in front of a database with one connection.
struct Chain {
    db: Db,
    first: Service,
    _second: Service,
    seen: UnboundedReceiver<Seen>,
}

impl Chain {
    async fn start(scene: &Scene, deadline: Duration) -> Result<Self> {
        let one = DatabaseSettings { max_connections: 1, sqlite_readers: 1, ..scene.settings.clone() };
        let db = Db::new(&one, &Metrics::new())?;
        db.connect(&scene.ctx).await?;
        let (events, seen) = unbounded_channel();
        let second = Service::start(Routes::new().route("/slow", querying(db.clone(), events.clone()))).await?;
        let routes = forwarding(second.url("/slow"), events, deadline);
        let first = Service::start(Routes::new().route("/", routes)).await?;
        Ok(Self { db, first, _second: second, seen })
    }

    async fn seen(&mut self) -> Seen {
        self.seen.recv().await.unwrap()
    }

    /// The only connection is free again, and its server works for nobody.
    async fn nothing_runs(&self, scene: &Scene) -> Result<()> {
        let ctx = scene.ctx.with_timeout(PATIENCE);
        self.db.read("SELECT 1").execute(&ctx).await?;
        let running = match scene.db.dialect() {
            Dialect::Postgres => {
                "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' \
                 AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()"
            }
            Dialect::Mysql => {
                "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() AND info LIKE 'SELECT SLEEP%'"
            }
            _ => return Ok(()), // the reader's thread has just answered
        };
        while scene.db.read(running).one::<i64>(&ctx).await? > 0 {
            tokio::task::yield_now().await; // until `ctx` is done, which is an error
        }
        Ok(())
    }
}

/// What a handler finds in its context.
#[derive(Debug)]
struct Seen {
    left: Option<Duration>,
    request_id: RequestId,
    trace: Trace,
}

impl Seen {
    fn of(ctx: &Context) -> Self {
        let (request_id, trace) = (ctx.request_id().unwrap().clone(), ctx.trace().unwrap().clone());
        Self { left: ctx.remaining(), request_id, trace }
    }
}

/// GET and POST, answered at once.
fn looking(events: UnboundedSender<Seen>) -> MethodRoutes {
    get(async move |ctx: Context| events.send(Seen::of(&ctx)).unwrap())
}

/// GET and POST that call another service, within `deadline`.
fn forwarding(url: String, events: UnboundedSender<Seen>, deadline: Duration) -> MethodRoutes {
    let client = Client::new().unwrap();
    let handler = move |method: mainstay_http::axum::http::Method, ctx: Context| {
        let (client, url, events) = (client.clone(), url.clone(), events.clone());
        async move {
            events.send(Seen::of(&ctx)).unwrap();
            client.call(method, url).send(&ctx).await.map(drop)
        }
    };
    get(handler.clone()).deadline(deadline).post(handler).deadline(deadline)
}

/// GET and POST that run a statement without end.
fn querying(db: Db, events: UnboundedSender<Seen>) -> MethodRoutes {
    let handler = move |ctx: Context| {
        let (db, events) = (db.clone(), events.clone());
        async move {
            events.send(Seen::of(&ctx)).unwrap();
            db.read(SLOW).execute(&ctx).await.map(drop)
        }
    };
    get(handler.clone()).post(handler)
}

/// A server on a free port, which ends with the case's runtime.
struct Service(SocketAddr);

impl Service {
    async fn start(routes: Routes) -> Result<Self> {
        let settings = HttpSettings { addr: ([127, 0, 0, 1], 0).into(), ..HttpSettings::default() };
        let server = Arc::new(Server::new("http", settings, routes, &Metrics::new()));
        server.start(&Context::background()).await?;
        let addr = server.local_addr().unwrap();
        tokio::spawn(async move { server.run(&Context::background()).await });
        Ok(Self(addr))
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.0)
    }
}

fn id(text: &str) -> RequestId {
    RequestId::parse(text).unwrap()
}
