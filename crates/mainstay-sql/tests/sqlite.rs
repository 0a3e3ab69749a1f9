//! What is SQLite's own: its file, its one writer, and the other processes that may have the file open.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use mainstay_core::{Code, Context, Result};
use mainstay_sql::{DatabaseSettings, Db, FromRow, TxOptions};
use mainstay_telemetry::Metrics;
use tokio::sync::oneshot;

/// Set for the child process of a test: the file that it writes to.
const CHILD_FILE: &str = "MAINSTAY_TEST_SQLITE_FILE";

const WRITES: i64 = 100;

fn settings(file: &Path) -> DatabaseSettings {
    DatabaseSettings::from_url(format!("sqlite://{}", file.display()))
}

async fn open(file: &Path) -> Db {
    open_with(settings(file)).await
}

async fn open_with(settings: DatabaseSettings) -> Db {
    let db = Db::new(&settings, &Metrics::new()).expect("a good url");
    db.connect(&Context::background()).await.expect("a folder that can be written");
    db
}

/// Half of the writes as single statements, half as transactions that read before they write.
async fn count_up(db: &Db, ctx: &Context) -> Result<()> {
    for round in 0..WRITES {
        if round % 2 == 0 {
            db.query("UPDATE counter SET n = n + 1").execute(ctx).await?;
        } else {
            db.transaction(ctx, |tx| async move {
                let n: i64 = tx.read("SELECT n FROM counter").one(ctx).await?;
                tx.query("UPDATE counter SET n = $1").bind(n + 1).execute(ctx).await
            })
            .await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_gets_its_turn() {
    let ctx = Context::background();
    if let Some(file) = std::env::var_os(CHILD_FILE) {
        let db = open(Path::new(&file)).await;
        count_up(&db, &ctx).await.unwrap();
        return db.close(&ctx).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shared.db");
    let db = open(&file).await;
    db.query("CREATE TABLE counter (n INTEGER NOT NULL)").execute(&ctx).await.unwrap();
    db.query("INSERT INTO counter VALUES (0)").execute(&ctx).await.unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_second_process_gets_its_turn"])
        .env(CHILD_FILE, &file)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // Hot: as long as the child has something to write, this process never rests.
    let (stop, mut stopped) = oneshot::channel();
    let hot = tokio::spawn({
        let (db, ctx) = (db.clone(), ctx.clone());
        async move {
            let mut rounds = 0;
            while stopped.try_recv().is_err() {
                let all = [count_up(&db, &ctx), count_up(&db, &ctx), count_up(&db, &ctx)];
                for result in futures_util::future::join_all(all).await {
                    result.unwrap();
                }
                rounds += 3;
            }
            rounds
        }
    });
    let status = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
    stop.send(()).unwrap();
    let rounds: i64 = hot.await.unwrap();
    assert!(status.success());
    assert_eq!(db.read("SELECT n FROM counter").one::<i64>(&ctx).await.unwrap(), (rounds + 1) * WRITES);
}

/// Four databases in one process are as four processes to SQLite: they share nothing but the file. None of them is
/// without work for a moment, and none may be told that the file is locked, however unlucky it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn four_processes_write_small_transactions_and_all_of_them_succeed() {
    const HANDLES: i64 = 4;
    const TRANSACTIONS: i64 = 200;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shared.db");
    let ctx = Context::background();
    let db = open(&file).await;
    db.query("CREATE TABLE counter (n INTEGER NOT NULL)").execute(&ctx).await.unwrap();
    db.query("INSERT INTO counter VALUES (0)").execute(&ctx).await.unwrap();
    let mut handles = tokio::task::JoinSet::new();
    for _ in 0..HANDLES {
        let (db, ctx) = (open(&file).await, ctx.clone());
        handles.spawn(async move {
            let ctx = &ctx;
            for round in 0..TRANSACTIONS {
                let options = if round % 2 == 0 { TxOptions::new() } else { TxOptions::new().background() };
                db.transaction_with(ctx, options, |tx| async move {
                    let n: i64 = tx.read("SELECT n FROM counter").one(ctx).await?;
                    tx.query("UPDATE counter SET n = $1").bind(n + 1).execute(ctx).await
                })
                .await?;
            }
            db.close(ctx).await;
            Ok::<_, mainstay_core::Error>(())
        });
    }
    while let Some(handle) = handles.join_next().await {
        handle.unwrap().unwrap();
    }
    let n: i64 = db.read("SELECT n FROM counter").one(&ctx).await.unwrap();
    assert_eq!(n, HANDLES * TRANSACTIONS);
}

#[tokio::test]
async fn a_closure_that_is_stuck_does_not_block_all_writes_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let ctx = &Context::background();
    let settings = DatabaseSettings {
        sqlite_idle_transaction: Duration::from_millis(20),
        ..settings(&folder.path().join("stuck.db"))
    };
    let db = open_with(settings).await;
    db.query("CREATE TABLE a (id INTEGER)").execute(ctx).await.unwrap();
    let (begun, has_begun) = oneshot::channel();
    let (go_on, may_go_on) = oneshot::channel::<()>();
    let stuck = tokio::spawn({
        let (db, ctx) = (db.clone(), ctx.clone());
        let mut signals = Some((begun, may_go_on));
        async move {
            let ctx = &ctx;
            db.transaction(ctx, |tx| {
                let (begun, may_go_on) = signals.take().expect("not tried again");
                async move {
                    tx.query("INSERT INTO a VALUES (1)").execute(ctx).await?;
                    begun.send(()).expect("the test waits");
                    may_go_on.await.expect("the test goes on");
                    tx.query("INSERT INTO a VALUES (2)").execute(ctx).await
                }
            })
            .await
        }
    });
    has_begun.await.unwrap();
    db.query("INSERT INTO a VALUES (3)").execute(ctx).await.unwrap();
    go_on.send(()).unwrap();
    let error = stuck.await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::Aborted);
    assert!(error.report().to_string().contains("sqlite_idle_transaction"), "{error:?}");
    assert_eq!(db.read("SELECT sum(id) FROM a").one::<i64>(ctx).await.unwrap(), 3);
}

#[tokio::test]
async fn readers_go_on_while_a_transaction_writes() {
    let folder = tempfile::tempdir().unwrap();
    let db = &open(&folder.path().join("a.db")).await;
    let ctx = &Context::background();
    db.query("CREATE TABLE a (id INTEGER)").execute(ctx).await.unwrap();
    let (begun, has_begun) = oneshot::channel();
    let (go_on, may_go_on) = oneshot::channel::<()>();
    let mut signals = Some((begun, may_go_on));
    let writing = db.transaction(ctx, |tx| {
        let (begun, may_go_on) = signals.take().expect("not tried again");
        async move {
            tx.query("INSERT INTO a VALUES (1)").execute(ctx).await?;
            begun.send(()).expect("the test waits");
            may_go_on.await.expect("the test goes on");
            Ok(())
        }
    });
    let reading = async {
        has_begun.await.unwrap();
        assert_eq!(db.read("SELECT count(*) FROM a").one::<i64>(ctx).await.unwrap(), 0);
        go_on.send(()).unwrap();
    };
    let (written, ()) = tokio::join!(writing, reading);
    written.unwrap();
    assert_eq!(db.read("SELECT count(*) FROM a").one::<i64>(ctx).await.unwrap(), 1);
}

#[tokio::test]
async fn databases_in_memory_are_private() {
    let ctx = &Context::background();
    let (one, two) = (Db::memory(), Db::memory());
    one.query("CREATE TABLE a (id INTEGER)").execute(ctx).await.unwrap();
    assert!(two.read("SELECT * FROM a").all::<i64>(ctx).await.is_err());
    assert_eq!(one.clone().read("SELECT count(*) FROM a").one::<i64>(ctx).await.unwrap(), 0);
}

#[tokio::test]
async fn a_file_outlives_its_process_and_its_folder_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("made/on/connect.db");
    let ctx = &Context::background();
    let db = open(&file).await;
    db.query("CREATE TABLE a (id INTEGER)").execute(ctx).await.unwrap();
    db.query("INSERT INTO a VALUES (7)").execute(ctx).await.unwrap();
    db.close(ctx).await;
    assert_eq!(db.read("SELECT 1").one::<i64>(ctx).await.unwrap_err().code(), Code::Unavailable);
    // Closed, it is one file: the log went into it and was removed.
    let names: Vec<_> =
        std::fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["connect.db"]);
    assert_eq!(open(&file).await.read("SELECT id FROM a").one::<i64>(ctx).await.unwrap(), 7);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("letter.txt");
    std::fs::write(&file, "Dear reader, this is not a database. ".repeat(100)).unwrap();
    let db = Db::new(&settings(&file), &Metrics::new()).unwrap();
    let error = db.connect(&Context::background()).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.report().to_string().contains("letter.txt"), "{error:?}");
}

#[derive(FromRow)]
struct Times {
    bound: jiff::Timestamp,
    own: jiff::Timestamp,
    day: jiff::civil::Date,
}

#[tokio::test]
async fn times_sort_as_texts_and_those_of_sqlite_itself_are_read() {
    let ctx = &Context::background();
    let db = Db::memory();
    let now = jiff::Timestamp::now();
    let sql = "SELECT $1 AS bound, CURRENT_TIMESTAMP AS own, CURRENT_DATE AS day";
    let times: Times = db.read(sql).bind(now).one(ctx).await.unwrap();
    assert_eq!(times.bound, mainstay_sql::truncate_to_micros(now));
    assert!((times.own.as_second() - now.as_second()).abs() <= 60);
    assert!(times.day >= jiff::civil::date(2026, 1, 1));
    let at = |nanoseconds| jiff::Timestamp::from_nanosecond(nanoseconds).unwrap();
    let sorted = "SELECT $1 < $2 AND $2 < $3";
    let query = db.read(sorted).bind(at(-1_000)).bind(at(0)).bind(at(1_000_000));
    assert!(query.one::<bool>(ctx).await.unwrap());
}
