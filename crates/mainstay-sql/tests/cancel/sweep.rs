//! Transactions cut at every await point in turn.

use std::io::{self, Write};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use mainstay_core::{Context, Error, Result};
use mainstay_sql::testing::Scene;
use mainstay_sql::{CommitUnknown, Db};
use mainstay_telemetry::Metrics;
use tokio::time::Instant;

use crate::bounds::{LIMIT, SLOW};
use crate::in_full;
use crate::observer::Observer;

const CONNECTIONS: usize = 2;

/// How a transaction is cut at one of its polls.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Drop,
    Cancel,
}

/// What its caller was told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Told {
    Committed,
    Failed,
    Unknown,
    /// It was dropped: it may be committed, or not, or still on its way.
    Nothing,
}

/// Each round is a transaction that writes two rows. However it is cut, both are there or neither, what was told is
/// true, and the pool is as good as new.
pub(crate) async fn a_transaction_cut_at_any_await_is_whole_or_nothing(scene: Scene) -> Result<()> {
    let observer = Observer::new(&scene).await?;
    let (mut settings, ctx) = (scene.settings, scene.ctx);
    (settings.max_connections, settings.sqlite_readers) = (CONNECTIONS as u32, CONNECTIONS);
    let db = Db::new(&settings, &Metrics::new())?;
    db.connect(&ctx).await?;
    db.query("CREATE TABLE ledger (id INTEGER NOT NULL, side INTEGER NOT NULL)").execute(&ctx).await?;
    let rounds = if in_full() { 1_000 } else { 100 };
    let (mut told, mut polls, mut most) = (Vec::new(), [0, 0], 0);
    for round in 0..rounds {
        let cut = if round % 2 == 0 { Cut::Drop } else { Cut::Cancel };
        let polls = &mut polls[round as usize % 2];
        *polls += 1;
        told.push(transfer(&db, &ctx, round, cut, *polls).await?);
        if told.last() == Some(&Told::Committed) {
            most = most.max(*polls);
            *polls = 0; // it completed in so many: from the first again
        }
        if round % 20 == 19 {
            observer.every_connection_is_clean(&db, CONNECTIONS).await?;
        }
    }
    // After this nothing is on its way any more.
    observer.every_connection_is_clean(&db, CONNECTIONS).await?;
    db.close(&ctx).await;
    let mut counts = [0; 5];
    for (round, told) in told.iter().enumerate() {
        let rows = scene.db.read("SELECT COUNT(*) FROM ledger WHERE id = $1").bind(round as i64);
        let rows: i64 = rows.one(&ctx).await?;
        let truth = match told {
            Told::Committed => rows == 2,
            Told::Failed => rows == 0,
            Told::Unknown | Told::Nothing => rows == 0 || rows == 2,
        };
        assert!(truth, "round {round}: told {told:?}, and {rows} rows of two are there");
        counts[match (told, rows) {
            (Told::Committed, _) => 0,
            (Told::Failed, _) => 1,
            (Told::Unknown, _) => 2,
            (Told::Nothing, 2) => 3,
            (Told::Nothing, _) => 4,
        }] += 1;
    }
    let [committed, failed, unknown, finished, undone] = counts;
    assert!(committed > 0 && failed > 0 && undone > 0, "the sweep met all of its ends: {counts:?}");
    if in_full() {
        let name = db.dialect();
        writeln!(
            io::stdout(),
            "{name}: {rounds} transactions cut at polls 1 to {most}: told committed {committed}, failed {failed}, unknown {unknown}; dropped and committed {finished}, dropped and undone {undone}; 0 half, 0 lost"
        )?;
    }
    observer.close().await;
    Ok(())
}

/// Also before the server has seen it, and while it is prepared.
pub(crate) async fn a_statement_cut_at_any_await_is_stopped(scene: Scene) -> Result<()> {
    let observer = Observer::new(&scene).await?;
    let (mut settings, ctx) = (scene.settings, scene.ctx);
    (settings.max_connections, settings.sqlite_readers, settings.statement_cache) = (1, 1, 0);
    let db = Db::new(&settings, &Metrics::new())?;
    db.connect(&ctx).await?;
    for round in 0..if in_full() { 200 } else { 30 } {
        let polls = round % 10 + 1;
        // A statement that waits is polled only when something has happened to it.
        let cut = {
            let statement = pin!(db.query(SLOW).execute(&ctx));
            tokio::time::timeout(Duration::from_millis(50), after(polls, statement)).await
        };
        assert!(!matches!(cut, Ok(Some(_))), "the statement ended: {cut:?}");
        let gone = Instant::now();
        db.query("SELECT 1").execute(&ctx).await?;
        observer.quiet_at_last().await?;
        assert!(gone.elapsed() < LIMIT, "cut after {polls} polls, it ran on for {:?}", gone.elapsed());
    }
    db.close(&ctx).await;
    observer.close().await;
    Ok(())
}

async fn transfer(db: &Db, ctx: &Context, round: i64, cut: Cut, polls: u32) -> Result<Told> {
    let (own, canceler) = ctx.with_cancel();
    let own = &own;
    let insert = "INSERT INTO ledger (id, side) VALUES ($1, $2)";
    let whole = db.transaction(own, |tx| async move {
        tx.query(insert).bind(round).bind(1).execute(own).await?;
        tx.query(insert).bind(round).bind(2).execute(own).await
    });
    let mut whole = Box::pin(whole);
    match (after(polls, whole.as_mut()).await, cut) {
        (Some(result), _) => result.map(|_| Told::Committed),
        (None, Cut::Drop) => Ok(Told::Nothing),
        (None, Cut::Cancel) => {
            canceler.cancel();
            match whole.await {
                Ok(_) => Ok(Told::Committed),
                Err(error) => told(error),
            }
        }
    }
}

fn told(error: Error) -> Result<Told> {
    match error.code() {
        _ if error.is::<CommitUnknown>() => Ok(Told::Unknown),
        mainstay_core::Code::Cancelled => Ok(Told::Failed),
        _ => Err(error),
    }
}

/// Polls `future` so many times: each time it wakes is an await where it can be cut.
async fn after<F: Future>(polls: u32, mut future: Pin<&mut F>) -> Option<F::Output> {
    let mut left = polls;
    std::future::poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(cx).map(Some)
    })
    .await
}
