//! Transactions: what they keep, what they undo, and who may use them when.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mainstay_core::{Code, Context, Error, Result};
use mainstay_sql::testing::Scene;
use mainstay_sql::{DatabaseError, DatabaseErrorKind, Db, Dialect, Isolation, Tx, TxOptions, values};
use tokio::sync::Barrier;

const TABLE: &str = "CREATE TABLE counters (id INTEGER PRIMARY KEY, n BIGINT NOT NULL)";
const INSERT: &str = "INSERT INTO counters (id, n) VALUES ($1, $2)";
const ADD: &str = "UPDATE counters SET n = n + $2 WHERE id = $1";
const GET: &str = "SELECT n FROM counters WHERE id = $1";
const COUNT: &str = "SELECT COUNT(*) FROM counters";

async fn count(db: &Db, ctx: &Context) -> Result<i64> {
    db.read(COUNT).one(ctx).await
}

async fn insert(db: &Db, ctx: &Context, id: i32) -> Result<()> {
    db.query(INSERT).bind(id).bind(0).execute(ctx).await.map(drop)
}

pub(crate) async fn a_transaction_commits_or_rolls_back(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query(TABLE).execute(&ctx).await?;
    let (db, ctx) = (&db, &ctx);
    let returned = db
        .transaction(ctx, |tx| async move {
            insert(&tx, ctx, 1).await?;
            assert_eq!(count(&tx, ctx).await?, 1);
            Ok("value")
        })
        .await?;
    assert_eq!((returned, count(db, ctx).await?), ("value", 1));

    let result: Result<()> = db
        .transaction(ctx, |tx| async move {
            insert(&tx, ctx, 2).await?;
            Err(Error::failed_precondition("changed my mind"))
        })
        .await;
    assert_eq!(result.unwrap_err().message(), "changed my mind");
    assert_eq!(count(db, ctx).await?, 1);
    Ok(())
}

/// As a service writes it: a repository that takes `&Db`.
pub(crate) async fn a_repository_works_in_and_out_of_a_transaction(Scene { db, ctx, .. }: Scene) -> Result<()> {
    struct Counters;
    impl Counters {
        async fn add(&self, ctx: &Context, db: &Db, id: i32, n: i64) -> Result<i64> {
            db.query(ADD).bind(id).bind(n).execute(ctx).await?;
            db.query(GET).bind(id).one(ctx).await
        }
    }
    db.query(TABLE).execute(&ctx).await?;
    insert(&db, &ctx, 1).await?;
    let (counters, ctx) = (&Counters, &ctx);
    assert_eq!(counters.add(ctx, &db, 1, 5).await?, 5);
    assert_eq!(db.transaction(ctx, |tx| async move { counters.add(ctx, &tx, 1, 7).await }).await?, 12);
    assert_eq!(db.read(GET).bind(1).one::<i64>(ctx).await?, 12);
    Ok(())
}

/// The future has to be `Send` with a closure that borrows, or it would not compile in a handler.
pub(crate) async fn a_transaction_fits_into_a_spawned_future(Scene { db, ctx, .. }: Scene) -> Result<()> {
    struct Service {
        db: Db,
    }
    impl Service {
        async fn place(&self, ctx: &Context, ids: &[i32]) -> Result<usize> {
            self.db
                .transaction(ctx, |tx| async move {
                    for id in ids {
                        self.insert(ctx, &tx, *id).await?;
                    }
                    Ok(ids.len())
                })
                .await
        }
        async fn insert(&self, ctx: &Context, db: &Db, id: i32) -> Result<()> {
            insert(db, ctx, id).await
        }
    }
    db.query(TABLE).execute(&ctx).await?;
    let service = Arc::new(Service { db: db.clone() });
    let placed = tokio::spawn({
        let ctx = ctx.clone();
        async move { service.place(&ctx, &[1, 2, 3]).await }
    });
    assert_eq!(placed.await.unwrap()?, 3);
    assert_eq!(count(&db, &ctx).await?, 3);
    Ok(())
}

pub(crate) async fn nested_transactions_undo_only_themselves(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query(TABLE).execute(&ctx).await?;
    let (db, ctx) = (&db, &ctx);
    db.transaction(ctx, |tx| async move {
        insert(&tx, ctx, 1).await?;
        let failed: Result<()> = tx
            .transaction(ctx, |inner| async move {
                insert(&inner, ctx, 2).await?;
                insert(&inner, ctx, 1).await // taken
            })
            .await;
        assert_eq!(failed.unwrap_err().code(), Code::AlreadyExists);
        tx.transaction(ctx, |inner| async move {
            insert(&inner, ctx, 3).await?;
            let undone: Result<()> = inner
                .transaction(ctx, |innermost| async move {
                    insert(&innermost, ctx, 4).await?;
                    Err(Error::aborted("no"))
                })
                .await;
            assert!(undone.is_err());
            insert(&inner, ctx, 5).await
        })
        .await?;
        insert(&tx, ctx, 6).await
    })
    .await?;
    assert_eq!(db.read("SELECT id FROM counters ORDER BY id").all::<i64>(ctx).await?, [1, 3, 5, 6]);

    // The outer one undoes what the inner one kept.
    let undone: Result<()> = db
        .transaction(ctx, |tx| async move {
            tx.transaction(ctx, |inner| async move { insert(&inner, ctx, 9).await }).await?;
            Err(Error::aborted("no"))
        })
        .await;
    assert!(undone.is_err());
    assert_eq!(count(db, ctx).await?, 4);
    // One that fails last of all is undone by the commit.
    db.transaction(ctx, |tx| async move {
        let undone: Result<()> = tx
            .transaction(ctx, |inner| async move {
                insert(&inner, ctx, 10).await?;
                Err(Error::aborted("no"))
            })
            .await;
        assert!(undone.is_err());
        Ok(())
    })
    .await?;
    assert_eq!(count(db, ctx).await?, 4);
    Ok(())
}

pub(crate) async fn the_outer_handle_waits_for_the_nested_one(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query(TABLE).execute(&ctx).await?;
    let ctx = &ctx;
    db.transaction(ctx, |tx| async move {
        let outer = &tx;
        let mut finished = None;
        let seen = &mut finished;
        let inner = tx
            .transaction(ctx, |inner| {
                *seen = Some(inner.clone());
                async move {
                    let error = insert(outer, ctx, 1).await.unwrap_err();
                    assert!(error.report().to_string().contains("nested transaction is open"), "{error:?}");
                    insert(&inner, ctx, 2).await
                }
            })
            .await;
        inner?;
        let error = insert(&finished.unwrap(), ctx, 3).await.unwrap_err();
        assert!(error.report().to_string().contains("has ended"), "{error:?}");
        insert(&tx, ctx, 4).await
    })
    .await?;
    assert_eq!(db.read("SELECT id FROM counters ORDER BY id").all::<i64>(ctx).await?, [2, 4]);
    Ok(())
}

pub(crate) async fn a_nested_transaction_dropped_half_way_is_undone(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query(TABLE).execute(&ctx).await?;
    let ctx = &ctx;
    db.transaction(ctx, |tx| async move {
        insert(&tx, ctx, 1).await?;
        let (reached, mut wait) = tokio::sync::mpsc::channel::<()>(1);
        let (tx, reached) = (&tx, &reached);
        let inner = tx.transaction(ctx, |inner| async move {
            insert(&inner, ctx, 2).await?;
            let _ = reached.send(()).await;
            std::future::pending::<Result<()>>().await
        });
        tokio::select! {
            _ = inner => panic!("it never ends"),
            _ = wait.recv() => {}
        }
        insert(tx, ctx, 3).await
    })
    .await?;
    assert_eq!(db.read("SELECT id FROM counters ORDER BY id").all::<i64>(ctx).await?, [1, 3]);
    Ok(())
}

pub(crate) async fn a_handle_is_dead_after_its_transaction(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query(TABLE).execute(&ctx).await?;
    let (db, ctx) = (&db, &ctx);
    let committed: Tx = db.transaction(ctx, |tx| async move { Ok(tx) }).await?;
    let mut leaked = None;
    let slot = &mut leaked;
    let failed: Result<()> = db
        .transaction(ctx, |tx| {
            *slot = Some(tx);
            async { Err(Error::aborted("no")) }
        })
        .await;
    assert!(failed.is_err());
    for dead in [committed, leaked.unwrap()] {
        let error = insert(&dead, ctx, 1).await.unwrap_err();
        assert!(error.report().to_string().contains("has ended"), "{error:?}");
        assert!(dead.transaction(ctx, |_| async { Ok(()) }).await.is_err());
    }
    assert_eq!(count(db, ctx).await?, 0);
    Ok(())
}

pub(crate) async fn the_pools_own_handle_is_refused_inside(Scene { db, ctx, settings, .. }: Scene) -> Result<()> {
    db.query(TABLE).execute(&ctx).await?;
    let other = Db::new(&settings, &mainstay_telemetry::Metrics::new())?;
    other.connect(&ctx).await?;
    let (db, other, ctx) = (&db, &other, &ctx);
    db.transaction(ctx, |tx| async move {
        for error in [
            db.query(INSERT).bind(1).bind(1).execute(ctx).await.unwrap_err(),
            db.transaction(ctx, |_| async { Ok(()) }).await.unwrap_err(),
            futures_util::StreamExt::next(&mut db.read(COUNT).stream::<i64>(ctx)).await.unwrap().unwrap_err(),
        ] {
            assert_eq!(error.code(), Code::Internal);
            assert!(error.report().to_string().contains("use the `Tx`"), "{error:?}");
        }
        // Another pool is another matter, and so is another task.
        assert_eq!(count(other, ctx).await?, 0);
        let (db, detached) = (db.clone(), ctx.clone());
        assert_eq!(tokio::spawn(async move { count(&db, &detached).await }).await.unwrap()?, 0);
        insert(&tx, ctx, 1).await
    })
    .await?;
    assert_eq!(count(db, ctx).await?, 1);
    other.close(ctx).await;
    Ok(())
}

pub(crate) async fn a_panic_rolls_back(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query(TABLE).execute(&ctx).await?;
    let task = tokio::spawn({
        let (db, ctx) = (db.clone(), ctx.clone());
        async move {
            let ctx = &ctx;
            db.transaction(ctx, |tx| async move {
                insert(&tx, ctx, 1).await?;
                if count(&tx, ctx).await? == 1 {
                    std::panic::resume_unwind(Box::new("as a panic does, without its noise"));
                }
                Ok(())
            })
            .await
        }
    });
    assert!(task.await.unwrap_err().is_panic());
    insert(&db, &ctx, 1).await?; // no lock is left, and no row
    Ok(())
}

pub(crate) async fn a_failed_statement_that_was_ignored_is_never_committed_silently(
    Scene { db, ctx, .. }: Scene,
) -> Result<()> {
    db.query(TABLE).execute(&ctx).await?;
    let ctx = &ctx;
    let result = db
        .transaction(ctx, |tx| async move {
            insert(&tx, ctx, 1).await?;
            let _ignored = insert(&tx, ctx, 1).await;
            Ok(())
        })
        .await;
    // PostgreSQL has given the transaction up and must not pretend; the others go on after such an error.
    let kept = count(&db, ctx).await?;
    match db.dialect() {
        Dialect::Postgres => assert_eq!((result.unwrap_err().code(), kept), (Code::AlreadyExists, 0)),
        _ => assert_eq!((result.is_ok(), kept), (true, 1)),
    }
    Ok(())
}

pub(crate) async fn conflicting_writers_all_succeed_in_the_end(Scene { ctx, mut settings, .. }: Scene) -> Result<()> {
    const WRITERS: usize = 50;
    settings.acquire_timeout = std::time::Duration::from_secs(60); // they are more than there are connections
    let db = Db::new(&settings, &mainstay_telemetry::Metrics::new())?;
    db.connect(&ctx).await?;
    db.query(TABLE).execute(&ctx).await?;
    db.query(INSERT).batch(&ctx, [values![1, 0], values![2, 0]]).await?;
    let (db, ctx) = (&db, &ctx);
    let attempts = Arc::new(AtomicU32::new(0));
    let writers = (0..WRITERS).map(|_| {
        let (db, ctx, attempts) = (db.clone(), ctx.clone(), attempts.clone());
        tokio::spawn(async move {
            let (ctx, attempts) = (&ctx, &*attempts);
            let serializable = TxOptions::new().isolation(Isolation::Serializable);
            db.transaction_with(ctx, serializable, |tx| async move {
                attempts.fetch_add(1, Ordering::Relaxed);
                for id in [1, 2] {
                    let n: i64 = tx.query(GET).bind(id).one(ctx).await?;
                    tx.query("UPDATE counters SET n = $2 WHERE id = $1").bind(id).bind(n + 1).execute(ctx).await?;
                }
                Ok(())
            })
            .await
        })
    });
    // All are started before the first is awaited.
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap()?;
    }
    for id in [1, 2] {
        assert_eq!(db.read(GET).bind(id).one::<i64>(ctx).await?, WRITERS as i64);
    }
    assert!(attempts.load(Ordering::Relaxed) >= WRITERS as u32);
    db.close(ctx).await;
    Ok(())
}

pub(crate) async fn statements_awaited_together_take_turns(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query(TABLE).execute(&ctx).await?;
    let ctx = &ctx;
    db.transaction(ctx, |tx| async move {
        let tx = &tx;
        let inserts = (0..20).map(|id| insert(tx, ctx, id));
        futures_util::future::try_join_all(inserts).await.map(drop)
    })
    .await?;
    assert_eq!(count(&db, ctx).await?, 20);
    Ok(())
}

pub(crate) async fn a_deadlock_is_aborted_and_tried_again(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query(TABLE).execute(&ctx).await?;
    db.query(INSERT).batch(&ctx, [values![1, 0], values![2, 0]]).await?;
    let both_hold_one = Arc::new(Barrier::new(2));
    let conflicts = Arc::new(AtomicU32::new(0));
    let spawn = |order: [i32; 2]| {
        let (db, ctx, barrier, conflicts) = (db.clone(), ctx.clone(), both_hold_one.clone(), conflicts.clone());
        tokio::spawn(async move {
            let (ctx, barrier, conflicts, first) = (&ctx, &*barrier, &*conflicts, &AtomicU32::new(0));
            db.transaction(ctx, |tx| async move {
                tx.query(ADD).bind(order[0]).bind(1).execute(ctx).await?;
                if first.fetch_add(1, Ordering::Relaxed) == 0 {
                    barrier.wait().await;
                }
                let second = tx.query(ADD).bind(order[1]).bind(1).execute(ctx).await;
                if let Err(error) = &second {
                    assert_eq!(error.code(), Code::Aborted, "{error:?}");
                    let kind = error.downcast_ref::<DatabaseError>().map(|fault| fault.kind);
                    assert_eq!(kind, Some(DatabaseErrorKind::Deadlock));
                    conflicts.fetch_add(1, Ordering::Relaxed);
                }
                second.map(drop)
            })
            .await
        })
    };
    let (one, other) = (spawn([1, 2]), spawn([2, 1]));
    one.await.unwrap()?;
    other.await.unwrap()?;
    assert!(conflicts.load(Ordering::Relaxed) >= 1, "they met in opposite order");
    for id in [1, 2] {
        assert_eq!(db.read(GET).bind(id).one::<i64>(&ctx).await?, 2);
    }
    Ok(())
}

pub(crate) async fn what_comes_after_a_commit_is_called_once_and_never_without_it(
    Scene { db, ctx, .. }: Scene,
) -> Result<()> {
    db.query(TABLE).execute(&ctx).await?;
    let (db, ctx) = (&db, &ctx);
    let [kept, undone, nested, panicked] = &[(); 4].map(|()| Arc::new(AtomicU32::new(0)));
    let called = |counter: &Arc<AtomicU32>| counter.load(Ordering::SeqCst);
    let count = |counter: &Arc<AtomicU32>| {
        let counter = counter.clone();
        move || {
            counter.fetch_add(1, Ordering::SeqCst);
        }
    };
    db.transaction(ctx, |tx| async move {
        tx.after_commit(count(panicked))?;
        tx.after_commit(|| std::panic::resume_unwind(Box::new("as a panic does, without its noise")))?;
        tx.after_commit(count(kept))?;
        tx.transaction(ctx, |tx| async move { tx.after_commit(count(nested)) }).await?;
        let failed: Result<()> = tx
            .transaction(ctx, |tx| async move {
                tx.after_commit(count(undone))?;
                Err(Error::failed_precondition("changed my mind"))
            })
            .await;
        assert!(failed.is_err());
        insert(&tx, ctx, 1).await?;
        assert_eq!(called(kept), 0, "before the commit");
        Ok(())
    })
    .await?;
    assert_eq!((called(panicked), called(kept), called(nested), called(undone)), (1, 1, 1, 0));

    let failed: Result<()> = db
        .transaction(ctx, |tx| async move {
            tx.after_commit(count(undone))?;
            insert(&tx, ctx, 1).await // it is there
        })
        .await;
    assert!(failed.is_err());
    assert_eq!(called(undone), 0);
    Ok(())
}
