//! How long the database works for someone who doesn't wait any more.

use std::io::{self, Write};
use std::time::Duration;

use futures_util::TryStreamExt;
use mainstay_core::{Code, Context, Result};
use mainstay_sql::testing::Scene;
use mainstay_sql::{Db, Dialect, Statement, sql};
use mainstay_telemetry::Metrics;
use tokio::time::Instant;

use crate::in_full;
use crate::observer::Observer;

/// What `docs/guarantees.md` promises of the median, and what tests allow.
const BOUND: Duration = Duration::from_millis(100);
pub(crate) const LIMIT: Duration = Duration::from_secs(1);
const CONNECTIONS: usize = 4;

pub(crate) const SLOW: Statement = sql! {
    mysql: "SELECT SLEEP(30)",
    postgres: "SELECT pg_sleep(30)",
    sqlite: "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n",
};

/// More rows than anyone reads.
const ROWS: Statement = sql! {
    mysql: "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900)
            SELECT n.i FROM n, n AS m, n AS o",
    postgres: "SELECT generate_series(1, 1000000000)",
    sqlite: "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
};

#[derive(Clone, Copy, Debug)]
enum Work {
    Statement,
    Transaction,
    Stream,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Deadline,
    Drop,
}

pub(crate) async fn the_database_runs_nothing_for_who_has_gone(scene: Scene) -> Result<()> {
    let observer = Observer::new(&scene).await?;
    let (mut settings, ctx) = (scene.settings, scene.ctx);
    (settings.max_connections, settings.sqlite_readers) = (CONNECTIONS as u32, CONNECTIONS);
    let db = Db::new(&settings, &Metrics::new())?;
    db.connect(&ctx).await?;
    db.query("CREATE TABLE notes (id INTEGER NOT NULL)").execute(&ctx).await?;
    let rounds = if in_full() { 20 } else { 3 };
    for work in [Work::Statement, Work::Transaction, Work::Stream] {
        let mut figures = Vec::new();
        for end in [End::Deadline, End::Drop] {
            let mut outlived = Vec::new();
            for _ in 0..rounds {
                outlived.push(how_long_it_outlives(work, end, &db, &observer, &ctx).await?);
                observer.every_connection_is_clean(&db, CONNECTIONS).await?;
            }
            outlived.sort_unstable();
            let (median, worst) = (outlived[outlived.len() / 2], outlived[outlived.len() - 1]);
            let limit = if in_full() { BOUND } else { LIMIT };
            assert!(median <= limit, "{work:?} ended by {end:?}: the database worked on for {outlived:?}");
            figures.push(format!("{:.1} ms (worst {:.1})", milliseconds(median), milliseconds(worst)));
        }
        if in_full() {
            let [deadline, gone] = figures.as_slice() else { unreachable!("two ends") };
            writeln!(io::stdout(), "| {} | {work:?} | {deadline} | {gone} |", db.dialect())?;
        }
    }
    if db.dialect() == Dialect::Sqlite {
        let before = observer.sqlite_ticks();
        tokio::time::sleep(Duration::from_millis(300)).await; // what is measured is CPU time over a time
        let used = observer.sqlite_ticks() - before;
        assert!(used <= 1, "SQLite's threads used {used} ticks of CPU for nobody");
    }
    assert_eq!(db.read("SELECT COUNT(*) FROM notes").one::<i64>(&ctx).await?, 0, "what was cut is undone");
    db.close(&ctx).await;
    observer.close().await;
    Ok(())
}

/// Starts `work`, sees that the database does it, ends it, and measures until the database does nothing.
async fn how_long_it_outlives(work: Work, end: End, db: &Db, observer: &Observer, ctx: &Context) -> Result<Duration> {
    let mut patience = Duration::from_millis(100);
    loop {
        let short = match end {
            End::Deadline => ctx.with_timeout(patience),
            End::Drop => ctx.clone(),
        };
        let mut waiting = Box::pin(never_ends(work, db, &short));
        let seen = tokio::select! {
            biased;
            ended = &mut waiting => Err(ended.unwrap_err()),
            seen = observer.busy_at_last() => Ok(seen?),
        };
        let gone = match (end, seen) {
            (End::Drop, seen) => {
                seen?;
                drop(waiting);
                Instant::now()
            }
            (End::Deadline, Ok(())) => {
                let error = waiting.await.unwrap_err();
                assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
                short.deadline().unwrap()
            }
            (End::Deadline, Err(error)) => {
                // The machine is so busy that the deadline passed before anyone saw the statement.
                assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
                observer.quiet_at_last().await?;
                patience *= 2;
                continue;
            }
        };
        observer.quiet_at_last().await?;
        return Ok(gone.elapsed());
    }
}

async fn never_ends(work: Work, db: &Db, ctx: &Context) -> Result<()> {
    match work {
        Work::Statement => db.read(SLOW).execute(ctx).await.map(drop),
        Work::Transaction => {
            let work = db.transaction(ctx, |tx| async move {
                tx.query("INSERT INTO notes (id) VALUES (1)").execute(ctx).await?;
                tx.query(SLOW).execute(ctx).await
            });
            work.await.map(drop)
        }
        Work::Stream => db.read(ROWS).stream::<i64>(ctx).try_for_each(|_| async { Ok(()) }).await,
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
