//! Streams: bounded memory, and a connection that comes back however they end.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use mainstay_core::{Code, Result};
use mainstay_sql::testing::Scene;
use mainstay_sql::{Db, Statement, sql, values};
use mainstay_telemetry::Metrics;

/// 100,000 rows of about 2 KiB: 200 MB if somebody collects them.
const MANY: Statement = sql! {
    mysql: "SELECT seq AS n, REPEAT('x', 2000) AS filler FROM (
              SELECT a.n + b.n * 10 + c.n * 100 + d.n * 1000 + e.n * 10000 + 1 AS seq
              FROM digits a, digits b, digits c, digits d, digits e) AS numbers",
    postgres: "SELECT n, REPEAT('x', 2000) AS filler FROM generate_series(1, 100000) AS n",
    sqlite: "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 100000)
             SELECT n, printf('%.2000c', 'x') AS filler FROM numbers",
};

pub(crate) async fn a_long_stream_runs_in_bounded_memory(Scene { db, ctx, .. }: Scene) -> Result<()> {
    prepare(&db, &ctx).await?;
    // The first rows, so that what is allocated once is not counted.
    db.read(MANY).stream::<(i64, String)>(&ctx).take(2_000).try_for_each(|_| async { Ok(()) }).await?;
    let before = resident_bytes();
    let mut most = before;
    let (mut count, mut sum) = (0_i64, 0_i64);
    let mut rows = db.read(MANY).stream::<(i64, String)>(&ctx);
    while let Some((n, filler)) = rows.try_next().await? {
        assert_eq!(filler.len(), 2_000);
        count += 1;
        sum += n;
        if count % 1_000 == 0 {
            tokio::task::yield_now().await; // slower than what produces, which gets every chance to run ahead
            most = most.max(resident_bytes());
        }
    }
    assert_eq!((count, sum), (100_000, 5_000_050_000));
    let grown = most.saturating_sub(before);
    assert!(grown <= 64 << 20, "grew by {} MiB", grown >> 20);
    Ok(())
}

pub(crate) async fn a_stream_dropped_half_way_frees_its_connection(
    Scene { ctx, settings, db, .. }: Scene,
) -> Result<()> {
    prepare(&db, &ctx).await?;
    let mut settings = settings;
    settings.max_connections = 1;
    let db = Db::new(&settings, &Metrics::new())?;
    db.connect(&ctx).await?;
    for taken in [0, 1, 40, 500] {
        let mut rows = db.read(MANY).stream::<(i64, String)>(&ctx);
        for _ in 0..taken {
            assert!(rows.try_next().await?.is_some());
        }
        drop(rows);
        db.ping(&ctx).await?;
    }
    db.close(&ctx).await;
    Ok(())
}

pub(crate) async fn a_stream_ends_with_its_deadline(Scene { db, ctx, .. }: Scene) -> Result<()> {
    prepare(&db, &ctx).await?;
    let (short, cancel) = ctx.with_cancel();
    let mut rows = db.read(MANY).stream::<(i64, String)>(&short);
    assert!(rows.try_next().await?.is_some());
    cancel.cancel();
    // What was already on its way may still arrive; then comes the reason, and then nothing.
    let error = loop {
        match rows.next().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("the stream ended as if it was complete"),
        }
    };
    assert_eq!(error.code(), Code::Cancelled);
    assert!(rows.next().await.is_none());
    db.ping(&ctx).await
}

pub(crate) async fn a_stream_in_a_transaction_excludes_other_statements(Scene { db, ctx, .. }: Scene) -> Result<()> {
    prepare(&db, &ctx).await?;
    let ctx = &ctx;
    db.transaction(ctx, |tx| async move {
        tx.query("INSERT INTO kept (n) VALUES (1)").execute(ctx).await?;
        let mut rows = tx.read(MANY).stream::<(i64, String)>(ctx);
        assert!(rows.try_next().await?.is_some());
        let error = tx.query("INSERT INTO kept (n) VALUES (2)").execute(ctx).await.unwrap_err();
        assert!(error.report().to_string().contains("collect"), "{error:?}");
        drop(rows);
        // What was left of it is out of the way.
        tx.query("INSERT INTO kept (n) VALUES (3)").execute(ctx).await?;
        let all: Vec<i64> = tx.read("SELECT n FROM kept ORDER BY n").stream::<i64>(ctx).try_collect().await?;
        assert_eq!(all, [1, 3]);
        Ok(())
    })
    .await?;
    assert_eq!(db.read("SELECT COUNT(*) FROM kept").one::<i64>(ctx).await?, 2);
    tokio::time::timeout(Duration::from_secs(60), db.ping(ctx)).await.expect("the pool is free")
}

async fn prepare(db: &Db, ctx: &mainstay_core::Context) -> Result<()> {
    db.query("CREATE TABLE kept (n BIGINT NOT NULL)").execute(ctx).await?;
    db.query("CREATE TABLE digits (n BIGINT NOT NULL)").execute(ctx).await?;
    db.query("INSERT INTO digits (n) VALUES ($1)").batch(ctx, (0..10).map(|n| values![n])).await?;
    Ok(())
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4096
}
