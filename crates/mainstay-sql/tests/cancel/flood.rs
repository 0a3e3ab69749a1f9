//! Many cancels at once are no flood of connections.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use mainstay_core::{Code, Result};
use mainstay_sql::testing::Scene;
use mainstay_sql::{DatabaseSettings, Db, Dialect};
use mainstay_telemetry::Metrics;
use tokio::sync::Semaphore;

use crate::bounds::SLOW;
use crate::in_full;
use crate::observer::Observer;
use crate::proxy::{Proxy, Trouble};

const CALLERS: u32 = 500;
const CONNECTIONS: u32 = 24;

/// Cancels at a time, as each driver has them; a server starts a process or a thread for each.
const CANCELS: u32 = 4;

/// MySQL: where the machine is too busy for a killed statement to end in time, its connection is killed and replaced,
/// and for a moment both are there.
const REPLACED: u32 = CONNECTIONS;

pub(crate) async fn five_hundred_cancels_open_few_connections(scene: Scene) -> Result<()> {
    let observer = Observer::new(&scene).await?;
    let ctx = &scene.ctx;
    let proxy = Proxy::to(&scene.settings, Trouble::Nothing).await?;
    let settings = DatabaseSettings {
        max_connections: CONNECTIONS,
        acquire_timeout: Duration::from_secs(60),
        ..proxy.settings.clone()
    };
    let db = Db::new(&settings, &Metrics::new())?;
    db.connect(ctx).await?;

    // All in one moment: as many as there are connections run, the others wait for one.
    let (all, canceler) = ctx.with_cancel();
    let callers = (0..CALLERS).map(|_| {
        let (db, all) = (db.clone(), all.clone());
        tokio::spawn(async move { db.query(SLOW).execute(&all).await })
    });
    let callers: Vec<_> = callers.collect();
    while observer.busy().await? < i64::from(CONNECTIONS) {}
    canceler.cancel();
    for ended in join_all(callers).await {
        assert_eq!(ended.unwrap().unwrap_err().code(), Code::Cancelled);
    }
    observer.quiet_at_last().await?;

    // And each of them while it runs, as fast as the pool hands out connections.
    let (cancelled, places) = (Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(CONNECTIONS as usize)));
    let callers = (0..CALLERS).map(|caller| {
        let (db, ctx, cancelled, places) = (db.clone(), ctx.clone(), cancelled.clone(), places.clone());
        tokio::spawn(async move {
            let _place = places.acquire_owned().await.expect("never closed");
            let short = ctx.with_timeout(Duration::from_millis(5 + u64::from(caller % 10)));
            let error = db.query(SLOW).execute(&short).await.unwrap_err();
            assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
            cancelled.fetch_add(1, Ordering::Relaxed);
        })
    });
    for ended in join_all(callers.collect::<Vec<_>>()).await {
        ended.unwrap();
    }
    assert_eq!(cancelled.load(Ordering::Relaxed), CALLERS);
    observer.quiet_at_last().await?;

    let (opened, peak) = proxy.counts();
    let closing = if db.dialect() == Dialect::Mysql { REPLACED } else { 0 };
    assert!(peak <= CONNECTIONS + CANCELS + closing, "{peak} at a time, {opened} in all, for a pool of {CONNECTIONS}");
    if in_full() {
        let name = db.dialect();
        writeln!(
            io::stdout(),
            "{name}: {CALLERS} cancels at once and {CALLERS} in a row on a pool of {CONNECTIONS}: at most {peak} connections, {opened} in all"
        )?;
    }
    observer.every_connection_is_clean(&db, CONNECTIONS as usize).await?;
    db.close(ctx).await;
    observer.close().await;
    Ok(())
}
