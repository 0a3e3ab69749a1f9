//! The commit hook: what it is handed, when, and what it is told afterwards.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use mainstay_core::{BoxFuture, Code, Context, Error, Result};
use mainstay_sql::testing::Scene;
use mainstay_sql::{
    CommitHook, CommitUnknown, Committed, DatabaseError, DatabaseErrorKind, Db, Deferred, Tx, TxOptions,
};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::connected_through_a_proxy;

/// Rows of closures, and rows of the hook.
const TABLES: [&str; 2] = [
    "CREATE TABLE work (item INTEGER PRIMARY KEY)",
    "CREATE TABLE kept (position INTEGER PRIMARY KEY, item INTEGER NOT NULL)",
];
const WORK: &str = "INSERT INTO work (item) VALUES ($1)";
const KEEP: &str = "INSERT INTO kept (position, item) VALUES ($1, $2)";

type Then = dyn Fn(&Tx) -> Result<()> + Send + Sync;

/// Writes what it is handed into `kept`, and remembers all that happened to it.
struct Recorder {
    batches: Mutex<Vec<Vec<i32>>>,
    /// Called after the rows were written.
    then: Box<Then>,
    told: UnboundedSender<Committed>,
}

impl CommitHook for Recorder {
    fn before_commit<'a>(&'a self, ctx: &'a Context, tx: &'a Tx, items: Vec<Deferred>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let items: Vec<_> = items.into_iter().map(|item| *item.downcast::<i32>().expect("a number")).collect();
            for (position, item) in (1_i32..).zip(&items) {
                tx.query(KEEP).bind(position).bind(*item).execute(ctx).await?;
            }
            self.batches.lock().unwrap().push(items);
            (self.then)(tx)
        })
    }

    fn after_commit(&self, committed: Committed) {
        self.told.send(committed).unwrap();
    }
}

struct Hooked {
    hook: Arc<Recorder>,
    told: UnboundedReceiver<Committed>,
}

impl Hooked {
    async fn new(db: &Db, ctx: &Context) -> Result<Self> {
        Self::with(db, ctx, |_| Ok(())).await
    }

    async fn with(db: &Db, ctx: &Context, then: impl Fn(&Tx) -> Result<()> + Send + Sync + 'static) -> Result<Self> {
        for table in TABLES {
            db.query(table).execute(ctx).await?;
        }
        let (sender, told) = mpsc::unbounded_channel();
        let hook = Arc::new(Recorder { batches: Mutex::default(), then: Box::new(then), told: sender });
        db.set_commit_hook(hook.clone())?;
        Ok(Self { hook, told })
    }

    fn batches(&self) -> Vec<Vec<i32>> {
        self.hook.batches.lock().unwrap().clone()
    }

    /// What it was told by now. A transaction that returned has told all it ever will.
    fn told(&mut self) -> Vec<Committed> {
        std::iter::from_fn(|| self.told.try_recv().ok()).collect()
    }
}

async fn work(db: &Db, ctx: &Context) -> Result<Vec<i32>> {
    db.read("SELECT item FROM work ORDER BY item").all(ctx).await
}

async fn kept(db: &Db, ctx: &Context) -> Result<Vec<i32>> {
    db.read("SELECT item FROM kept ORDER BY position").all(ctx).await
}

/// A row, and an item for the hook.
async fn publish(tx: &Tx, ctx: &Context, item: i32) -> Result<()> {
    tx.query(WORK).bind(item).execute(ctx).await?;
    tx.defer(Box::new(item))
}

fn changed_my_mind<T>() -> Result<T> {
    Err(Error::failed_precondition("changed my mind"))
}

/// An error that `transaction` takes for a conflict, made of a real one of this database: others can't make one.
async fn conflict(db: &Db, ctx: &Context) -> Error {
    let error = db.query("SELECT nothing FROM nowhere").execute(ctx).await.expect_err("no such table");
    let mut fault = error.downcast_ref::<DatabaseError>().expect("what the database said").clone();
    fault.kind = DatabaseErrorKind::Serialization;
    Error::aborted("conflicting changes, try again").with_source(fault)
}

pub(crate) async fn what_was_deferred_arrives_once_in_order_and_in_the_transaction(
    Scene { db, ctx, .. }: Scene,
) -> Result<()> {
    let mut hooked = Hooked::new(&db, &ctx).await?;
    let (db, ctx) = (&db, &ctx);
    db.transaction(ctx, |tx| async move {
        for item in [3, 1, 2] {
            publish(&tx, ctx, item).await?;
        }
        assert!(kept(&tx, ctx).await?.is_empty(), "not before the closure is done");
        Ok(())
    })
    .await?;
    assert_eq!((work(db, ctx).await?, kept(db, ctx).await?), (vec![1, 2, 3], vec![3, 1, 2]));
    assert_eq!((hooked.batches(), hooked.told()), (vec![vec![3, 1, 2]], vec![Committed::Yes]));

    // The next transaction has its own.
    db.query("DELETE FROM kept").execute(ctx).await?;
    db.transaction(ctx, |tx| async move { publish(&tx, ctx, 4).await }).await?;
    assert_eq!((hooked.batches(), hooked.told()), (vec![vec![3, 1, 2], vec![4]], vec![Committed::Yes]));
    Ok(())
}

pub(crate) async fn without_anything_deferred_the_hook_is_not_called(Scene { db, ctx, .. }: Scene) -> Result<()> {
    let mut hooked = Hooked::new(&db, &ctx).await?;
    let ctx = &ctx;
    db.transaction(ctx, |tx| async move { tx.query(WORK).bind(1).execute(ctx).await }).await?;
    db.transaction_with(ctx, TxOptions::new().read_only(), |tx| async move { work(&tx, ctx).await }).await?;
    assert_eq!((work(&db, ctx).await?, hooked.batches(), hooked.told()), (vec![1], vec![], vec![]));
    Ok(())
}

pub(crate) async fn a_closure_that_fails_calls_no_hook(Scene { db, ctx, .. }: Scene) -> Result<()> {
    let mut hooked = Hooked::new(&db, &ctx).await?;
    let ctx = &ctx;
    let result: Result<()> = db
        .transaction(ctx, |tx| async move {
            publish(&tx, ctx, 1).await?;
            changed_my_mind()
        })
        .await;
    assert_eq!(result.unwrap_err().message(), "changed my mind");
    assert_eq!((work(&db, ctx).await?, kept(&db, ctx).await?), (vec![], vec![]));
    assert_eq!((hooked.batches(), hooked.told()), (vec![], vec![]));
    Ok(())
}

pub(crate) async fn a_hook_that_fails_rolls_back(Scene { db, ctx, .. }: Scene) -> Result<()> {
    let mut hooked = Hooked::with(&db, &ctx, |_| changed_my_mind()).await?;
    let ctx = &ctx;
    let error = db.transaction(ctx, |tx| async move { publish(&tx, ctx, 1).await }).await.unwrap_err();
    assert_eq!(error.message(), "changed my mind");
    assert_eq!((work(&db, ctx).await?, kept(&db, ctx).await?), (vec![], vec![]));
    assert_eq!((hooked.batches(), hooked.told()), (vec![vec![1]], vec![]));

    // A statement of its own that fails is nothing else.
    db.query("INSERT INTO kept (position, item) VALUES (1, 0)").execute(ctx).await?;
    let error = db.transaction(ctx, |tx| async move { publish(&tx, ctx, 2).await }).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    assert_eq!((work(&db, ctx).await?, hooked.told()), (vec![], vec![]));
    Ok(())
}

pub(crate) async fn a_conflict_of_the_hook_starts_again_with_nothing_deferred(
    Scene { db, ctx, .. }: Scene,
) -> Result<()> {
    let conflict = Mutex::new(Some(conflict(&db, &ctx).await));
    let first_fails = move |_: &Tx| conflict.lock().unwrap().take().map_or(Ok(()), Err);
    let mut hooked = Hooked::with(&db, &ctx, first_fails).await?;
    let (ctx, attempts) = (&ctx, &AtomicU32::new(0));
    let attempt = db.transaction(ctx, |tx| async move {
        let attempt = attempts.fetch_add(1, Ordering::Relaxed) as i32 + 1;
        publish(&tx, ctx, 10 * attempt).await?;
        publish(&tx, ctx, 10 * attempt + 1).await?;
        Ok(attempt)
    });
    assert_eq!(attempt.await?, 2);
    assert_eq!((work(&db, ctx).await?, kept(&db, ctx).await?), (vec![20, 21], vec![20, 21]));
    assert_eq!((hooked.batches(), hooked.told()), (vec![vec![10, 11], vec![20, 21]], vec![Committed::Yes]));
    Ok(())
}

pub(crate) async fn a_conflict_of_the_closure_starts_again_with_nothing_deferred(
    Scene { db, ctx, .. }: Scene,
) -> Result<()> {
    let conflict = &Mutex::new(Some(conflict(&db, &ctx).await));
    let mut hooked = Hooked::new(&db, &ctx).await?;
    let (ctx, attempts) = (&ctx, &AtomicU32::new(0));
    db.transaction(ctx, |tx| async move {
        publish(&tx, ctx, attempts.fetch_add(1, Ordering::Relaxed) as i32 + 1).await?;
        conflict.lock().unwrap().take().map_or(Ok(()), Err)
    })
    .await?;
    assert_eq!((work(&db, ctx).await?, kept(&db, ctx).await?), (vec![2], vec![2]));
    assert_eq!((hooked.batches(), hooked.told()), (vec![vec![2]], vec![Committed::Yes]));
    Ok(())
}

/// Two savepoints, one after the other, each with two inside, and something deferred before, between and after them
/// all; each is kept or undone, in all 64 combinations. What the rows of the database say is what the hook is handed.
pub(crate) async fn savepoints_keep_and_undo_what_was_deferred_in_them(Scene { db, ctx, .. }: Scene) -> Result<()> {
    const SAVEPOINTS: usize = 6;
    /// A savepoint, with those inside; numbered as they are opened.
    async fn savepoint(tx: &Tx, ctx: &Context, number: usize, inside: &[usize], undone: u32) -> Result<()> {
        let first = 10 * number as i32;
        let result: Result<()> = tx
            .transaction(ctx, |tx| async move {
                publish(&tx, ctx, first).await?;
                for (item, number) in (first + 1..).zip(inside) {
                    Box::pin(savepoint(&tx, ctx, *number, &[], undone)).await?;
                    publish(&tx, ctx, item).await?;
                }
                if undone & (1 << number) == 0 { Ok(()) } else { changed_my_mind() }
            })
            .await;
        assert_eq!(result.is_err(), undone & (1 << number) != 0, "{result:?}");
        Ok(())
    }
    let hooked = Hooked::new(&db, &ctx).await?;
    let (db, ctx) = (&db, &ctx);
    for undone in 0..1_u32 << SAVEPOINTS {
        db.transaction(ctx, |tx| async move {
            publish(&tx, ctx, 100).await?;
            savepoint(&tx, ctx, 0, &[1, 2], undone).await?;
            publish(&tx, ctx, 101).await?;
            savepoint(&tx, ctx, 3, &[4, 5], undone).await
        })
        .await?;
        let kept_of = |outer: usize, inside: [usize; 2]| {
            let kept = |number: &usize| undone & (1 << number) == 0;
            let first = 10 * outer as i32;
            let inside = inside.into_iter().zip(first + 1..);
            let inside = inside.flat_map(|(number, item)| [kept(&number).then_some(10 * number as i32), Some(item)]);
            let items: Vec<i32> = std::iter::once(Some(first)).chain(inside).flatten().collect();
            if kept(&outer) { items } else { Vec::new() }
        };
        let mut expected = [vec![100], kept_of(0, [1, 2]), vec![101], kept_of(3, [4, 5])].concat();
        assert_eq!(hooked.batches().last(), Some(&expected), "{undone:06b}");
        assert_eq!(kept(db, ctx).await?, expected, "{undone:06b}");
        expected.sort_unstable();
        assert_eq!(work(db, ctx).await?, expected, "{undone:06b}");
        db.query("DELETE FROM kept").execute(ctx).await?;
        db.query("DELETE FROM work").execute(ctx).await?;
    }
    Ok(())
}

pub(crate) async fn a_savepoint_dropped_half_way_takes_what_was_deferred_with_it(
    Scene { db, ctx, .. }: Scene,
) -> Result<()> {
    let hooked = Hooked::new(&db, &ctx).await?;
    let ctx = &ctx;
    db.transaction(ctx, |tx| async move {
        publish(&tx, ctx, 1).await?;
        let (reached, mut wait) = mpsc::channel::<()>(1);
        let (tx, reached) = (&tx, &reached);
        let inner = tx.transaction(ctx, |inner| async move {
            publish(&inner, ctx, 2).await?;
            inner.transaction(ctx, |innermost| async move { publish(&innermost, ctx, 3).await }).await?;
            let _ = reached.send(()).await;
            std::future::pending::<Result<()>>().await
        });
        tokio::select! {
            _ = inner => panic!("it never ends"),
            _ = wait.recv() => {}
        }
        publish(tx, ctx, 4).await
    })
    .await?;
    assert_eq!((work(&db, ctx).await?, hooked.batches()), (vec![1, 4], vec![vec![1, 4]]));

    // Also when nothing comes after it.
    db.query("DELETE FROM kept").execute(ctx).await?;
    db.transaction(ctx, |tx| async move {
        publish(&tx, ctx, 5).await?;
        let undone: Result<()> = tx
            .transaction(ctx, |inner| async move {
                publish(&inner, ctx, 6).await?;
                changed_my_mind()
            })
            .await;
        assert!(undone.is_err());
        Ok(())
    })
    .await?;
    assert_eq!((work(&db, ctx).await?, hooked.batches().pop()), (vec![1, 4, 5], Some(vec![5])));
    Ok(())
}

fn refused(deferred: Result<()>, why: &str) {
    let error = deferred.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    assert!(error.report().to_string().contains(why), "{error:?}");
}

pub(crate) async fn only_the_innermost_open_transaction_can_defer(Scene { db, ctx, .. }: Scene) -> Result<()> {
    let hooked = Hooked::new(&db, &ctx).await?;
    let (db, ctx) = (&db, &ctx);
    let ended = db
        .transaction(ctx, |tx| async move {
            let outer = &tx;
            let inner: Tx = tx
                .transaction(ctx, |inner| async move {
                    refused(outer.defer(Box::new(1)), "nested transaction is open");
                    publish(&inner, ctx, 2).await?;
                    Ok(inner)
                })
                .await?;
            refused(inner.defer(Box::new(3)), "has ended");
            publish(&tx, ctx, 4).await?;
            Ok(tx)
        })
        .await?;
    refused(ended.defer(Box::new(5)), "has ended");
    let mut leaked = None;
    let slot = &mut leaked;
    let rolled_back: Result<()> = db
        .transaction(ctx, |tx| {
            *slot = Some(tx);
            async { changed_my_mind() }
        })
        .await;
    assert!(rolled_back.is_err());
    refused(leaked.unwrap().defer(Box::new(6)), "has ended");
    assert_eq!((work(db, ctx).await?, hooked.batches()), (vec![2, 4], vec![vec![2, 4]]));
    Ok(())
}

/// Whatever came now would never be handed to anyone.
pub(crate) async fn the_end_of_a_transaction_can_not_be_deferred_to(Scene { db, ctx, .. }: Scene) -> Result<()> {
    let hooked = Hooked::with(&db, &ctx, |tx| tx.defer(Box::new(2))).await?;
    let ctx = &ctx;
    let result = db.transaction(ctx, |tx| async move { publish(&tx, ctx, 1).await }).await;
    refused(result, "its hook has been called");
    assert_eq!((work(&db, ctx).await?, hooked.batches()), (vec![], vec![vec![1]]));
    Ok(())
}

pub(crate) async fn rows_of_a_stream_may_be_deferred_as_they_come(Scene { db, ctx, .. }: Scene) -> Result<()> {
    let hooked = Hooked::new(&db, &ctx).await?;
    let ctx = &ctx;
    for item in [1, 2, 3] {
        db.query(WORK).bind(item).execute(ctx).await?;
    }
    db.transaction(ctx, |tx| async move {
        let mut rows = tx.read("SELECT item FROM work ORDER BY item DESC").stream::<i32>(ctx);
        while let Some(row) = rows.next().await {
            tx.defer(Box::new(row?))?;
        }
        Ok(())
    })
    .await?;
    assert_eq!((kept(&db, ctx).await?, hooked.batches()), (vec![3, 2, 1], vec![vec![3, 2, 1]]));
    Ok(())
}

pub(crate) async fn a_caller_who_leaves_during_the_commit_leaves_the_hook_told(
    Scene { db, ctx, .. }: Scene,
) -> Result<()> {
    let (called, mut was_called) = mpsc::unbounded_channel();
    let mut hooked = Hooked::with(&db, &ctx, move |_| {
        called.send(()).unwrap();
        Ok(())
    })
    .await?;
    let ctx = &ctx;
    let transaction = db.transaction(ctx, |tx| async move { publish(&tx, ctx, 1).await });
    // The poll that ends the hook goes on into COMMIT, and waits there; then it is the second branch's turn, and the
    // transaction is dropped. Only where the database is quicker than this thread is there nobody to leave.
    tokio::select! {
        biased;
        committed = transaction => committed?,
        _ = was_called.recv() => {}
    }
    assert_eq!(hooked.told.recv().await, Some(Committed::Yes));
    assert_eq!((work(&db, ctx).await?, kept(&db, ctx).await?), (vec![1], vec![1]));
    assert_eq!(hooked.told(), []);
    Ok(())
}

pub(crate) async fn a_database_has_one_hook(Scene { db, ctx, settings, .. }: Scene) -> Result<()> {
    assert!(db.commit_hook().is_none());
    let mut first = Hooked::new(&db, &ctx).await?;
    let ctx = &ctx;
    let another = Arc::new(Recorder {
        batches: Mutex::default(),
        then: Box::new(|_| changed_my_mind()),
        told: mpsc::unbounded_channel().0,
    });
    let clone = db.clone(); // a hook is of the database and not of a handle
    refused(clone.set_commit_hook(another), "has a commit hook already");
    assert!(clone.commit_hook().is_some());
    clone.transaction(ctx, |tx| async move { publish(&tx, ctx, 1).await }).await?;
    assert_eq!((first.batches(), first.told()), (vec![vec![1]], vec![Committed::Yes]));
    let other = Db::new(&settings, &mainstay_telemetry::Metrics::new())?;
    assert!(other.commit_hook().is_none());
    Ok(())
}

pub(crate) async fn without_a_hook_nothing_can_be_deferred(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query(TABLES[0]).execute(&ctx).await?;
    let ctx = &ctx;
    refused(db.transaction(ctx, |tx| async move { publish(&tx, ctx, 1).await }).await, "without a commit hook");
    assert!(work(&db, ctx).await?.is_empty());
    // What was undone needs none.
    db.transaction(ctx, |tx| async move {
        let undone: Result<()> = tx
            .transaction(ctx, |inner| async move {
                publish(&inner, ctx, 2).await?;
                changed_my_mind()
            })
            .await;
        assert!(undone.is_err());
        Ok(())
    })
    .await
}

/// The database looks at such a constraint when it commits.
pub(crate) async fn a_commit_that_is_refused_tells_the_hook_nothing(Scene { db, ctx, .. }: Scene) -> Result<()> {
    let mut hooked = Hooked::new(&db, &ctx).await?;
    let ctx = &ctx;
    let parts = "CREATE TABLE parts (work INTEGER REFERENCES work (item) DEFERRABLE INITIALLY DEFERRED)";
    db.query(parts).execute(ctx).await?;
    let result = db
        .transaction(ctx, |tx| async move {
            publish(&tx, ctx, 1).await?;
            tx.query("INSERT INTO parts (work) VALUES (2)").execute(ctx).await
        })
        .await;
    assert_eq!(result.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!((work(&db, ctx).await?, kept(&db, ctx).await?), (vec![], vec![]));
    assert_eq!((hooked.batches(), hooked.told()), (vec![vec![1]], vec![]));
    Ok(())
}

pub(crate) async fn a_commit_whose_answer_is_lost_is_unknown_to_the_hook(
    Scene { db, ctx, settings, .. }: Scene,
) -> Result<()> {
    for reaches_the_server in [false, true] {
        let fragile = connected_through_a_proxy(&ctx, &settings, reaches_the_server).await?;
        let mut hooked = Hooked::new(&fragile, &ctx).await?;
        let ctx = &ctx;
        let error = fragile.transaction(ctx, |tx| async move { publish(&tx, ctx, 1).await }).await.unwrap_err();
        assert!(error.is::<CommitUnknown>(), "{error:?}");
        assert_eq!((hooked.batches(), hooked.told()), (vec![vec![1]], vec![Committed::Unknown]));
        fragile.close(ctx).await;
        while reaches_the_server && kept(&db, ctx).await?.is_empty() {
            tokio::task::yield_now().await; // it happened, whatever we were told
        }
        assert_eq!(kept(&db, ctx).await?, work(&db, ctx).await?);
        for table in ["DROP TABLE kept", "DROP TABLE work"] {
            db.query(table).execute(ctx).await?;
        }
    }
    Ok(())
}
