//! [`Hogs`]: tasks that hold connections, so that everybody else waits for one.

use std::time::Duration;

use futures_util::future::BoxFuture;
use mainstay::prelude::*;

/// How long each lets go of it before it takes the next: the pool is exhausted again and again, not for ever.
const REST: Duration = Duration::from_millis(300);

/// As many tasks as are to hold a connection each.
pub(crate) struct Hogs {
    count: u64,
    hold: Duration,
    db: Db,
}

impl Hogs {
    pub(crate) fn new(count: u64, hold: Duration, db: Db) -> Self {
        Self { count, hold, db }
    }
}

impl Component for Hogs {
    fn name(&self) -> &str {
        "hogs"
    }

    fn run<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut group = Group::new(ctx);
            for _ in 0..self.count {
                let (db, time) = (self.db.clone(), self.hold);
                group.spawn(move |ctx| hold(ctx, db, time)).await;
            }
            group.wait().await.map(drop)
        })
    }
}

async fn hold(ctx: Context, db: Db, time: Duration) -> Result<()> {
    let ctx = &ctx;
    loop {
        let held = db
            .transaction(ctx, |tx| async move {
                tx.query("INSERT INTO scratch (n) VALUES (1)").execute(ctx).await?;
                tokio::time::sleep(time).await;
                Ok(())
            })
            .await;
        match held {
            Ok(()) => tracing::info!("held a connection"),
            Err(error) => tracing::info!(error = error.report().to_string(), "held no connection"),
        }
        ctx.run(tokio::time::sleep(REST)).await?;
    }
}
