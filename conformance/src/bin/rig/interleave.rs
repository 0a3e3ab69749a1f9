//! [`Interleaver`]: the two scripts in which transactions of one key begin in one order and commit in the other.

use futures_util::future::BoxFuture;
use mainstay::prelude::*;
use tokio::sync::watch;

use conformance::chaos::fleet::{INTERLEAVED, REFUSED};
use conformance::chaos::history::Temper;

use crate::events::Step;
use crate::producer::next;
use crate::settings::Settings;

/// Runs them on as many keys as it has tasks, each key of its own.
pub(crate) struct Interleaver {
    tasks: u64,
    db: Db,
    running: watch::Sender<bool>,
    ended: watch::Sender<bool>,
}

impl Interleaver {
    pub(crate) fn new(settings: &Settings, db: Db) -> Self {
        Self { tasks: settings.tasks, db, running: watch::Sender::new(true), ended: watch::Sender::new(false) }
    }
}

impl Component for Interleaver {
    fn name(&self) -> &str {
        "interleaver"
    }

    fn run<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut group = Group::new(ctx);
            for task in 0..self.tasks {
                let (db, running) = (self.db.clone(), self.running.subscribe());
                group.spawn(move |ctx| interleave(ctx, db, running, format!("key-{task}"))).await;
            }
            let outcome = group.wait().await;
            self.ended.send_replace(true);
            outcome.map(drop)
        })
    }

    fn stop<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async move {
            self.running.send_replace(false);
            let mut ended = self.ended.subscribe();
            let finished = ctx.run(ended.wait_for(|ended| *ended)).await.is_ok();
            if finished { Vec::new() } else { vec!["an interleaved transaction".to_owned()] }
        })
    }
}

async fn interleave(ctx: Context, db: Db, running: watch::Receiver<bool>, key: String) -> Result<()> {
    let mut early_publish = false;
    while *running.borrow() {
        // Nothing is said of events that were undone: a pair is two transactions, and one may have been committed.
        match pair(&ctx, &db, &key, early_publish).await {
            Ok(()) => tracing::info!(early_publish, "{INTERLEAVED}"),
            Err(error) => tracing::warn!(error = error.report().to_string(), "{REFUSED}"),
        }
        early_publish = !early_publish;
    }
    Ok(())
}

/// The outer transaction begins first, and has written; the inner one begins later and commits first.
///
/// With `early_publish` the outer one publishes, too, before the inner one has begun: whoever gives out numbers at
/// `publish` gets them in the wrong order.
async fn pair(ctx: &Context, db: &Db, key: &str, early_publish: bool) -> Result<()> {
    let temper = Temper::Tame.code();
    db.transaction(ctx, |outer| async move {
        outer.query("INSERT INTO scratch (n) VALUES (1)").execute(ctx).await?;
        let now: i64 = outer.query("SELECT kseq FROM key_counters WHERE event_key = $1").bind(key).one(ctx).await?;
        let late = Step { key: key.to_owned(), kseq: now + 2, event_id: Uuid::new_v4(), temper };
        if early_publish {
            late.clone().send(ctx, &outer).await?;
        }
        // Spawned, because it doesn't belong to the outer transaction.
        let (db, task_ctx, inner_key) = (db.clone(), ctx.clone(), key.to_owned());
        let inner = tokio::spawn(async move {
            let (ctx, key) = (&task_ctx, inner_key.as_str());
            let inner = |tx: Tx| async move {
                let kseq = next(ctx, &tx, key).await?;
                Step { key: key.to_owned(), kseq, event_id: Uuid::new_v4(), temper }.send(ctx, &tx).await
            };
            db.transaction(ctx, inner).await
        });
        inner.await.map_err(Error::from_any)??;
        let kseq = next(ctx, &outer, key).await?;
        if kseq != late.kseq {
            return Err(Error::internal("somebody else used this key"));
        }
        if early_publish { Ok(()) } else { late.send(ctx, &outer).await }
    })
    .await
}
