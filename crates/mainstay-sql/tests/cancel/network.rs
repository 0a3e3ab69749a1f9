//! What a bad network does to cancels and commits.

use std::time::Duration;

use mainstay_core::{Code, Result};
use mainstay_sql::testing::Scene;
use mainstay_sql::{CommitUnknown, DatabaseSettings, Db};
use mainstay_telemetry::Metrics;
use tokio::time::Instant;

use crate::bounds::{LIMIT, SLOW};
use crate::in_full;
use crate::observer::Observer;
use crate::proxy::{Proxy, Trouble};

/// No connection is closed and no packet comes back: only time tells that something is wrong. The caller hears, some
/// seconds after its deadline, that nobody knows; and the pool gets its place back.
pub(crate) async fn a_commit_into_a_silent_network_is_unknown(scene: Scene) -> Result<()> {
    scene.db.query("CREATE TABLE entries (id INTEGER PRIMARY KEY)").execute(&scene.ctx).await?;
    tokio::try_join!(falls_silent_at_commit(&scene, 1, true), falls_silent_at_commit(&scene, 2, false)).map(drop)
}

async fn falls_silent_at_commit(scene: &Scene, id: i64, heard: bool) -> Result<()> {
    let ctx = &scene.ctx;
    let proxy = Proxy::to(&scene.settings, Trouble::SilentAtCommit { heard }).await?;
    let acquire_timeout = Duration::from_secs(60);
    let settings = DatabaseSettings { max_connections: 1, acquire_timeout, ..proxy.settings.clone() };
    let db = Db::new(&settings, &Metrics::new())?;
    db.connect(ctx).await?;
    let short = &ctx.with_timeout(Duration::from_secs(1));
    let insert = "INSERT INTO entries (id) VALUES ($1)";
    let unknown = db.transaction(short, |tx| async move { tx.query(insert).bind(id).execute(short).await });
    let error = unknown.await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
    assert!(error.is::<CommitUnknown>(), "{error:?}");
    proxy.heal();
    if in_full() {
        // The COMMIT has a limit of its own; then its connection is closed, and there is place for another.
        db.query("SELECT 1").execute(ctx).await?;
    }
    db.close(&ctx.with_timeout(Duration::from_millis(100))).await;
    let stored = "SELECT COUNT(*) FROM entries WHERE id = $1";
    while heard && scene.db.read(stored).bind(id).one::<i64>(ctx).await? == 0 {
        tokio::task::yield_now().await; // it happened, though nobody could tell
    }
    Ok(())
}

/// A cancel that comes before its statement, or between its preparation and itself, finds nothing to stop.
pub(crate) async fn a_cancel_that_overtakes_its_statement_is_sent_again(scene: Scene) -> Result<()> {
    let (observer, ctx) = (Observer::new(&scene).await?, &scene.ctx);
    let proxy = Proxy::to(&scene.settings, Trouble::SlowFirst(Duration::from_millis(40))).await?;
    let settings = DatabaseSettings { max_connections: 1, ..proxy.settings.clone() };
    let db = Db::new(&settings, &Metrics::new())?;
    db.connect(ctx).await?;
    for milliseconds in [1, 20, 60, 90] {
        let short = ctx.with_timeout(Duration::from_millis(milliseconds));
        assert_eq!(db.query(SLOW).execute(&short).await.unwrap_err().code(), Code::DeadlineExceeded);
        db.query("SELECT 1").execute(ctx).await?; // comes after the statement, on whatever connection
        let gone = Instant::now();
        observer.quiet_at_last().await?;
        assert!(gone.elapsed() < LIMIT, "given up after {milliseconds} ms, it ran on for {:?}", gone.elapsed());
    }
    db.close(ctx).await;
    observer.close().await;
    Ok(())
}
