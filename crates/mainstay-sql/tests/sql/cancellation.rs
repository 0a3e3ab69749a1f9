//! What is given up stops, and its connection comes back clean.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use mainstay_core::{Code, Context, Result};
use mainstay_sql::testing::Scene;
use mainstay_sql::{DatabaseSettings, Db, Dialect, Statement, sql};
use mainstay_telemetry::Metrics;
use tokio::sync::oneshot;

/// Runs for far longer than any test.
pub(crate) const SLOW: Statement = sql! {
    mysql: "SELECT SLEEP(600)",
    postgres: "SELECT pg_sleep(600)",
    sqlite: "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT COUNT(*) FROM n",
};

const TABLE: &str = "CREATE TABLE entries (id INTEGER NOT NULL, half INTEGER NOT NULL)";

pub(crate) async fn a_deadline_stops_a_statement_and_frees_its_connection(scene: Scene) -> Result<()> {
    let (db, ctx) = (with_one_connection(&scene.settings, &scene.ctx).await?, scene.ctx);
    for milliseconds in [0, 1, 5, 20, 50] {
        let short = ctx.with_timeout(Duration::from_millis(milliseconds));
        let error = db.read(SLOW).execute(&short).await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
        db.query("SELECT 1").execute(&ctx).await?;
        // The same in a transaction, which is over with it.
        let short = ctx.with_timeout(Duration::from_millis(milliseconds));
        let begun = &short;
        let result = db.transaction(begun, |tx| async move { tx.read(SLOW).execute(begun).await }).await;
        assert_eq!(result.unwrap_err().code(), Code::DeadlineExceeded);
        db.query("SELECT 1").execute(&ctx).await?;
    }
    db.close(&ctx).await;
    Ok(())
}

pub(crate) async fn a_dropped_statement_frees_its_connection(scene: Scene) -> Result<()> {
    let (db, ctx) = (with_one_connection(&scene.settings, &scene.ctx).await?, scene.ctx);
    for milliseconds in [0, 1, 2, 5, 10, 30] {
        let dropped = tokio::time::timeout(Duration::from_millis(milliseconds), db.query(SLOW).execute(&ctx)).await;
        assert!(dropped.is_err());
        db.query("SELECT 1").execute(&ctx).await?;
    }
    // At every await point: also between what is sent and what the server has read.
    for polls in (0..6).cycle().take(60) {
        let statement = tokio::time::timeout(Duration::from_millis(10), db.query(SLOW).execute(&ctx));
        assert!(!matches!(cut_after(polls, statement).await, Some(Ok(_))));
        db.query("SELECT 1").execute(&ctx).await?;
    }
    db.close(&ctx).await;
    Ok(())
}

pub(crate) async fn a_transaction_dropped_anywhere_leaves_nothing_open(scene: Scene) -> Result<()> {
    let (db, ctx) = (with_one_connection(&scene.settings, &scene.ctx).await?, scene.ctx);
    db.query(TABLE).execute(&ctx).await?;
    let ctx = &ctx;
    let mut completed = 0;
    for polls in 0..80 {
        let insert = "INSERT INTO entries (id, half) VALUES ($1, $2)";
        let whole = db.transaction(ctx, |tx| async move {
            tx.query(insert).bind(polls).bind(1).execute(ctx).await?;
            tx.transaction(ctx, |inner| async move { inner.query(insert).bind(polls).bind(2).execute(ctx).await }).await
        });
        match cut_after(polls, whole).await {
            Some(result) => assert_eq!(result?, 1, "an insert of one row"),
            None => {
                // Nothing, or all of it, if the commit was on its way.
                let rows = db.query("SELECT COUNT(*) FROM entries WHERE id = $1").bind(polls).one::<i64>(ctx).await?;
                assert!(rows == 0 || rows == 2, "{rows} rows of a transaction that was cut after {polls} polls");
                continue;
            }
        }
        completed += 1;
        let rows = db.query("SELECT COUNT(*) FROM entries WHERE id = $1").bind(polls).one::<i64>(ctx).await?;
        assert_eq!(rows, 2);
    }
    assert!(completed > 0, "even 80 polls were too few");
    db.close(ctx).await;
    Ok(())
}

pub(crate) async fn a_full_pool_is_unavailable_in_time(Scene { ctx, mut settings, .. }: Scene) -> Result<()> {
    settings.max_connections = 1;
    settings.acquire_timeout = Duration::from_millis(50);
    let metrics = Metrics::new();
    let db = Db::new(&settings, &metrics)?;
    db.connect(&ctx).await?;
    let (db, ctx) = (&db, &ctx);
    db.transaction(ctx, |_tx| async move {
        let other = {
            let (db, ctx) = (db.clone(), ctx.clone());
            tokio::spawn(async move { db.transaction(&ctx, |_| async { Ok(()) }).await })
        };
        let error = other.await.unwrap().unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error:?}");
        // A caller in a hurry hears its own reason.
        let waiting = {
            let (db, ctx) = (db.clone(), ctx.with_timeout(Duration::from_millis(5)));
            tokio::spawn(async move { db.transaction(&ctx, |_| async { Ok(()) }).await })
        };
        assert_eq!(waiting.await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
        Ok(())
    })
    .await?;
    db.transaction(ctx, |_| async { Ok(()) }).await?;
    if db.dialect() != Dialect::Sqlite {
        let text = metrics.render();
        for line in ["sql_client_connection_timeouts_total 1", "sql_client_connections{state=\"idle\"} 1"] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
    db.close(ctx).await;
    Ok(())
}

pub(crate) async fn closing_waits_for_what_is_in_hand(Scene { db, ctx, settings, .. }: Scene) -> Result<()> {
    db.query(TABLE).execute(&ctx).await?;
    let closing = Db::new(&settings, &Metrics::new())?;
    closing.connect(&ctx).await?;
    let ((begun, has_begun), (go_on, may_go_on)) = (oneshot::channel(), oneshot::channel());
    let in_hand = tokio::spawn({
        let (db, ctx) = (closing.clone(), ctx.clone());
        let mut signals = Some((begun, may_go_on));
        async move {
            let ctx = &ctx;
            db.transaction(ctx, |tx| {
                let (begun, may_go_on) = signals.take().expect("no conflict, so no second attempt");
                async move {
                    begun.send(()).expect("the test waits");
                    may_go_on.await.expect("the test goes on");
                    tx.query("INSERT INTO entries (id, half) VALUES (1, 1)").execute(ctx).await
                }
            })
            .await
        }
    });
    has_begun.await.unwrap();
    let mut close = pin!(closing.close(&ctx));
    assert!(futures_util::poll!(close.as_mut()).is_pending(), "a transaction is open");
    assert_eq!(closing.ping(&ctx).await.unwrap_err().code(), Code::Unavailable);
    go_on.send(()).unwrap();
    assert_eq!(in_hand.await.unwrap()?, 1);
    close.await;
    assert_eq!(db.read("SELECT COUNT(*) FROM entries").one::<i64>(&ctx).await?, 1);

    // Until the patience ends: then what is left is cut.
    let closing = Db::new(&settings, &Metrics::new())?;
    closing.connect(&ctx).await?;
    let stuck = tokio::spawn({
        let (db, ctx) = (closing.clone(), ctx.clone());
        async move { db.read(SLOW).execute(&ctx).await }
    });
    tokio::task::yield_now().await;
    closing.close(&ctx.with_timeout(Duration::from_millis(50))).await;
    assert!(stuck.await.unwrap().is_err());
    Ok(())
}

async fn with_one_connection(settings: &DatabaseSettings, ctx: &Context) -> Result<Db> {
    let mut settings = settings.clone();
    settings.max_connections = 1;
    settings.sqlite_readers = 1;
    let db = Db::new(&settings, &Metrics::new())?;
    db.connect(ctx).await?;
    Ok(db)
}

/// Polls `future` so many times and then drops it: each time it wakes is an await point where that can happen.
async fn cut_after<F: Future>(polls: i32, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
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
