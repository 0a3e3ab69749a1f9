//! The table of `docs/cancel-policy.md`, row by row: what ran, what is stored in a database, what the access log says.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{Context, Result};
use mainstay_http::axum::extract::Request;
use mainstay_http::routing::{self, CancelPolicy, MethodRoutes, get};
use mainstay_http::{HttpSettings, Routes};
use mainstay_sql::testing::TestDatabase;
use mainstay_sql::{Db, Dialect};
use tokio::io::AsyncWriteExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::scene::{Logs, Scene, Wire, settings, until};

/// A row that isn't true fails by name instead of hanging.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Row {
    method: String,
    /// What is special about the request, its route or its server; empty for nothing.
    variation: String,
    leaves: String,
    handler: String,
    stored: String,
    log: String,
}

fn rows() -> Vec<Row> {
    let lines = include_str!("../../docs/cancel-policy.md").lines().filter(|line| line.starts_with("| `"));
    let rows = lines.map(|line| {
        let cells: Vec<_> =
            line.trim_matches('|').split('|').map(|cell| cell.replace('`', "").trim().to_owned()).collect();
        let [request, leaves, handler, stored, log] = cells.try_into().unwrap();
        let (method, variation) = request.split_once(", ").unwrap_or((&request, ""));
        Row { method: method.to_owned(), variation: variation.to_owned(), leaves, handler, stored, log }
    });
    rows.collect()
}

#[test]
fn every_method_has_a_row_for_each_moment() {
    for method in ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] {
        for moment in ["before its head is complete", "in its transaction", "after its commit"] {
            let found =
                rows().iter().any(|row| row.method == method && row.variation.is_empty() && row.leaves == moment);
            assert!(found, "{method} {moment}");
        }
    }
}

#[tokio::test]
async fn every_row_of_the_table_is_true() {
    let mut wrong = Vec::new();
    for row in rows() {
        match timeout(LIMIT, happens(&row)).await {
            Ok(found) if found == (row.handler.clone(), row.stored.clone(), row.log.clone()) => {}
            Ok(found) => wrong.push(format!("{row:?}: {found:?}")),
            Err(_) => wrong.push(format!("{row:?}: hangs")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What becomes of the handler, what is stored, and the access log's line, in the words of the table.
async fn happens(row: &Row) -> (String, String, String) {
    let database = TestDatabase::create(Dialect::Sqlite).await.unwrap();
    let db = database.connect(&Context::background()).await.unwrap();
    db.query("CREATE TABLE ledger (entry BIGINT)").execute(&Context::background()).await.unwrap();
    let logs = Logs::capture();
    let gate = || Arc::new(Semaphore::new(0));
    let (events, mut seen) = mpsc::unbounded_channel();
    let work = Work { db: db.clone(), events, entered: gate(), committed: gate() };
    let limits = HttpSettings { allow_half_close: row.variation.contains("allow_half_close"), ..settings() };
    let routes = Routes::new().route("/work", route(row, &work)).route("/ok", get(|| async { "ok" }));
    let scene = Scene::with(limits, routes).await;

    let mut wire = scene.connect().await;
    let head_breaks_off = row.leaves == "before its head is complete";
    let body_breaks_off = row.leaves == "before its body is complete";
    wire.send(&request(row, head_breaks_off, body_breaks_off)).await;
    if !head_breaks_off && !body_breaks_off {
        assert_eq!(seen.recv().await, Some(ENTERED));
        if row.leaves == "after its commit" {
            work.entered.add_permits(1);
            assert_eq!(seen.recv().await, Some(COMMITTED));
        }
    }
    let half_closed = leave(wire, row).await;

    if row.log.ends_with("detached") && !body_breaks_off {
        let detached = |line: &serde_json::Value| line["message"] == "the client left; the handler runs on";
        until(|| logs.of("mainstay::http").iter().any(detached)).await;
    }
    for _ in 0..20 {
        scene.get("/ok").await; // on the server's own thread: it has looked at the connection meanwhile
    }
    if row.handler != "is dropped" {
        work.entered.add_permits(1);
        work.committed.add_permits(1);
    }
    let handler = match head_breaks_off || body_breaks_off {
        true => "never starts",
        false => loop {
            match seen.recv().await.unwrap() {
                COMMITTED => {}
                end => break end,
            }
        },
    };
    let line = || logs.of("mainstay::access").into_iter().find(|line| line["route"] == "/work");
    if row.log != "none" {
        until(|| line().is_some()).await;
    }
    let log =
        line().map_or("none".to_owned(), |line| format!("{} {}", line["status"], line["outcome"].as_str().unwrap()));
    drop(half_closed);
    let count: i64 = db.read("SELECT COUNT(*) FROM ledger").one(&Context::background()).await.unwrap();
    (handler.to_owned(), if count == 0 { "nothing" } else { "its entry" }.to_owned(), log)
}

const IGNORED_SHORT: &str = "with 4 bytes that its handler ignores";
const IGNORED: &str = "with 200 KiB that its handler ignores";
const HELD: &str = "with 200 KiB that its handler takes and doesn't read";

const ENTERED: &str = "is in its transaction";
const COMMITTED: &str = "has committed";

/// A handler that writes an entry and waits twice: inside its transaction and after it.
#[derive(Clone)]
struct Work {
    db: Db,
    events: mpsc::UnboundedSender<&'static str>,
    entered: Arc<Semaphore>,
    committed: Arc<Semaphore>,
}

impl Work {
    async fn run(self, ctx: Context) -> Result<()> {
        let mut end = End { events: self.events.clone(), how: "is dropped" };
        self.db
            .transaction(&ctx, |tx| async {
                let tx = tx;
                tx.query("INSERT INTO ledger VALUES (1)").execute(&ctx).await?;
                self.events.send(ENTERED).unwrap();
                self.entered.acquire().await.unwrap().forget();
                Ok(())
            })
            .await?;
        self.events.send(COMMITTED).unwrap();
        self.committed.acquire().await.unwrap().forget();
        end.how = "runs to its end";
        Ok(())
    }
}

struct End {
    events: mpsc::UnboundedSender<&'static str>,
    how: &'static str,
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.events.send(self.how); // a test that has given up doesn't listen
    }
}

fn route(row: &Row, work: &Work) -> MethodRoutes {
    let work = work.clone();
    let reads = {
        let work = work.clone();
        move |ctx: Context, _: String| work.clone().run(ctx)
    };
    let holds = {
        let work = work.clone();
        async move |ctx: Context, _body: Request| work.clone().run(ctx).await
    };
    let route = match row.method.as_str() {
        "GET" if row.variation == IGNORED || row.variation == IGNORED_SHORT => {
            get(move |ctx: Context| work.clone().run(ctx))
        }
        "GET" if row.variation == HELD => get(holds),
        "GET" | "HEAD" => get(reads),
        "OPTIONS" => routing::options(reads),
        "POST" => routing::post(reads),
        "PUT" => routing::put(reads),
        "PATCH" => routing::patch(reads),
        "DELETE" => routing::delete(reads),
        other => panic!("no such method: {other}"),
    };
    match row.variation.as_str() {
        "CancelPolicy::Drop" => route.cancel(CancelPolicy::Drop),
        "CancelPolicy::Detach" => route.cancel(CancelPolicy::Detach),
        "a deadline of 200 ms" => route.deadline(Duration::from_millis(200)),
        "" | IGNORED | IGNORED_SHORT | HELD | "with another request behind it" => route,
        "closing its sending side only" | "allow_half_close" | "allow_half_close, closing its sending side only" => {
            route
        }
        other => panic!("no such variation: {other}"),
    }
}

fn request(row: &Row, head_breaks_off: bool, body_breaks_off: bool) -> String {
    let head = format!("{} /work HTTP/1.1\r\nHost: test\r\n", row.method);
    match row.variation.as_str() {
        _ if head_breaks_off => head,
        _ if body_breaks_off => format!("{head}Content-Length: 10\r\n\r\nhalf"),
        IGNORED_SHORT => format!("{head}Content-Length: 4\r\n\r\nbody"),
        IGNORED | HELD => format!("{head}Content-Length: 204800\r\n\r\n{}", "x".repeat(204_800)),
        "with another request behind it" => format!("{head}\r\nGET /ok HTTP/1.1\r\nHost: test\r\n\r\n"),
        _ => format!("{head}\r\n"),
    }
}

/// Closes the connection, or its sending side: then what is left of it is returned.
async fn leave(mut wire: Wire, row: &Row) -> Option<Wire> {
    if !row.variation.contains("sending side") {
        return None;
    }
    wire.stream.shutdown().await.unwrap();
    Some(wire)
}
