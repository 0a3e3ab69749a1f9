//! The driver by itself: lanes, turns, cancellation and what SQLite does behind one's back.

use std::time::Duration;

use futures_util::StreamExt;
use mainstay_core::{Code, Context, Result};
use mainstay_telemetry::Metrics;

use super::*;
use crate::db::Db;
use crate::driver::Want;
use crate::fault::DatabaseError;
use crate::row::{FromRow, Row};
use crate::tx::TxOptions;
use crate::value::Value;

/// A statement that never ends by itself.
const FOREVER: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
/// As many rows as one likes.
const ROWS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT $1) SELECT i, 'row ' || i AS t FROM n";

struct Scene {
    db: Sqlite,
    ctx: Context,
    /// Deleted when dropped.
    folder: tempfile::TempDir,
    file: SqliteFile,
}

async fn on_disk() -> Scene {
    with(|_| {}).await
}

async fn with(change: impl FnOnce(&mut DatabaseSettings)) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let file = SqliteFile::Path(folder.path().join("new/folder/a.db"));
    let mut settings = DatabaseSettings::default();
    change(&mut settings);
    let db = open(&file, &settings).await.unwrap();
    Scene { db, ctx: Context::background(), folder, file }
}

async fn in_memory() -> Sqlite {
    open(&SqliteFile::Memory, &DatabaseSettings::default()).await.unwrap()
}

async fn both() -> [Scene; 2] {
    let memory = Scene {
        db: in_memory().await,
        ctx: Context::background(),
        folder: tempfile::tempdir().unwrap(),
        file: SqliteFile::Memory,
    };
    [on_disk().await, memory]
}

async fn open(file: &SqliteFile, settings: &DatabaseSettings) -> Result<Sqlite> {
    Sqlite::connect(&Context::background(), file, settings, &SqlMetrics::new(&Metrics::new())).await
}

fn call(sql: &'static str, values: impl IntoIterator<Item = Value>) -> Call {
    Call { sql: sql.into(), values: values.into_iter().collect(), read: false, want: Want::All }
}

async fn run(db: &Sqlite, sql: &'static str) -> Result<Answer> {
    db.run(&Context::background(), call(sql, [])).await
}

async fn number(db: &Sqlite, sql: &'static str) -> i64 {
    let mut answer = run(db, sql).await.unwrap();
    i64::from_row(&mut answer.rows[0]).unwrap()
}

fn kind(error: &mainstay_core::Error) -> crate::DatabaseErrorKind {
    error.downcast_ref::<DatabaseError>().unwrap_or_else(|| panic!("no database error in {error:?}")).kind
}

#[tokio::test]
async fn statements_find_their_lane_and_count_what_they_changed() {
    let Scene { db, ctx, folder: _folder, .. } = on_disk().await;
    run(&db, "CREATE TABLE a (id INTEGER PRIMARY KEY, t TEXT)").await.unwrap();
    let insert = call("INSERT INTO a (t) VALUES ($1), ($1), ($2) RETURNING id", ["x".into(), "y".into()]);
    let answer = db.run(&ctx, insert).await.unwrap();
    assert_eq!((answer.rows.len(), answer.affected), (3, 3));
    assert_eq!(run(&db, "UPDATE a SET t = 'z' WHERE id > 1").await.unwrap().affected, 2);
    assert_eq!(run(&db, "UPDATE a SET t = 'z' WHERE id > 10").await.unwrap().affected, 0);
    assert_eq!(run(&db, "CREATE TABLE b (id INTEGER)").await.unwrap().affected, 0);
    assert_eq!(run(&db, "SELECT * FROM a").await.unwrap().affected, 0);
    assert_eq!(run(&db, "DELETE FROM a").await.unwrap().affected, 3);
}

#[tokio::test]
async fn a_declared_read_that_writes_is_refused_and_changes_nothing() {
    for Scene { db, ctx, folder: _folder, .. } in both().await {
        run(&db, "CREATE TABLE a (id INTEGER)").await.unwrap();
        let write = Call { read: true, ..call("INSERT INTO a VALUES (1) RETURNING id", []) };
        let error = db.run(&ctx, write).await.unwrap_err();
        assert!(error.report().to_string().contains("use `query`"), "{error:?}");
        assert_eq!(number(&db, "SELECT count(*) FROM a").await, 0);
    }
}

#[tokio::test]
async fn every_value_comes_back_as_it_went() {
    let db = in_memory().await;
    let uuid = uuid::Uuid::from_u128(7);
    let time: jiff::Timestamp = "1969-12-31T23:59:59.999999Z".parse().unwrap();
    let values = [
        Value::from(true),
        i64::MIN.into(),
        0.1_f64.into(),
        "ü\0\"'$1?".into(),
        vec![0_u8, 255].into(),
        uuid.into(),
        time.into(),
        jiff::civil::date(2026, 2, 28).into(),
        rust_decimal::Decimal::new(1230, 2).into(),
        serde_json::json!({"a": [1, null]}).into(),
        Value::Null,
    ];
    let sql = "SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $2";
    let mut answer = db.run(&Context::background(), call(sql, values)).await.unwrap();
    let row: &mut Row = &mut answer.rows[0];
    assert!(row.take_at::<bool>(0).unwrap());
    assert_eq!(row.take_at::<i64>(1).unwrap(), i64::MIN);
    assert_eq!(row.take_at::<f64>(2).unwrap(), 0.1);
    assert_eq!(row.take_at::<String>(3).unwrap(), "ü\0\"'$1?");
    assert_eq!(row.take_at::<Vec<u8>>(4).unwrap(), [0, 255]);
    assert_eq!(row.take_at::<uuid::Uuid>(5).unwrap(), uuid);
    assert_eq!(row.take_at::<jiff::Timestamp>(6).unwrap(), time);
    assert_eq!(row.take_at::<jiff::civil::Date>(7).unwrap(), jiff::civil::date(2026, 2, 28));
    assert_eq!(row.take_at::<rust_decimal::Decimal>(8).unwrap().to_string(), "12.30");
    assert_eq!(row.take_at::<serde_json::Value>(9).unwrap(), serde_json::json!({"a": [1, null]}));
    assert_eq!(row.take_at::<Option<i64>>(10).unwrap(), None);
    assert_eq!(row.take_at::<i64>(11).unwrap(), i64::MIN);
}

#[tokio::test]
async fn what_sqlite_would_store_wrongly_is_refused() {
    let db = in_memory().await;
    for value in [Value::from(f64::NAN), vec![1_i64].into()] {
        let error = db.run(&Context::background(), call("SELECT $1", [value])).await.unwrap_err();
        assert_eq!(error.code(), Code::Internal);
        assert!(error.report().to_string().contains("binding $1"), "{error:?}");
    }
    assert!(db.run(&Context::background(), call("SELECT $2", [Value::Null])).await.is_err());
    assert!(run(&db, "SELECT ?").await.is_err());
    assert!(run(&db, "SELECT 1; SELECT 2").await.is_err());
    assert!(run(&db, "SELECT \"a string\"").await.is_err());
}

#[tokio::test]
async fn a_statement_stops_when_its_context_is_done_or_its_caller_leaves() {
    for Scene { db, ctx, folder: _folder, .. } in both().await {
        let short = ctx.with_timeout(Duration::from_millis(20));
        let error = db.run(&short, call(FOREVER, [])).await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded);
        for _ in 0..db.reader_count + 1 {
            let mut abandoned = db.run(&ctx, call(FOREVER, []));
            assert!(futures_util::poll!(&mut abandoned).is_pending());
        }
        // Were one of them still running, it would hold its thread and this would wait for ever.
        for _ in 0..8 {
            assert_eq!(number(&db, "SELECT 1").await, 1);
        }
    }
}

#[tokio::test]
async fn a_job_whose_caller_left_never_runs() {
    let Scene { db, ctx, folder: _folder, .. } = on_disk().await;
    run(&db, "CREATE TABLE a (id INTEGER)").await.unwrap();
    run(&db, "INSERT INTO a VALUES (0)").await.unwrap();
    let holder = db.begin(&ctx, Begin::default()).await.unwrap();
    let mut waiting = db.run(&ctx, call("INSERT INTO a VALUES (0)", []));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    drop(waiting);
    holder.commit().await.unwrap();
    run(&db, "UPDATE a SET id = 1").await.unwrap();
    assert_eq!(number(&db, "SELECT count(*) FROM a").await, 1);
}

#[tokio::test]
async fn a_turn_that_does_not_come_is_unavailable() {
    let Scene { db, ctx, folder: _folder, .. } =
        with(|settings| settings.acquire_timeout = Duration::from_millis(20)).await;
    let _holder = db.begin(&ctx, Begin::default()).await.unwrap();
    assert_eq!(run(&db, "CREATE TABLE a (id INTEGER)").await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(number(&db, "SELECT 1").await, 1);
}

#[tokio::test]
async fn a_dropped_transaction_is_rolled_back_and_a_committed_one_is_not() {
    for Scene { db, ctx, folder: _folder, .. } in both().await {
        run(&db, "CREATE TABLE a (id INTEGER)").await.unwrap();
        let mut dropped = db.begin(&ctx, Begin::default()).await.unwrap();
        dropped.run(&ctx, call("INSERT INTO a VALUES (1)", [])).await.unwrap();
        drop(dropped);
        let mut kept = db.begin(&ctx, Begin::default()).await.unwrap();
        kept.run(&ctx, call("INSERT INTO a VALUES (2)", [])).await.unwrap();
        kept.script(&ctx, "SAVEPOINT s; INSERT INTO a VALUES (3); ROLLBACK TO s; RELEASE s").await.unwrap();
        kept.commit().await.unwrap();
        let mut back = db.begin(&ctx, Begin::default()).await.unwrap();
        back.run(&ctx, call("INSERT INTO a VALUES (4)", [])).await.unwrap();
        back.rollback().await.unwrap();
        assert_eq!(number(&db, "SELECT sum(id) FROM a").await, 2);
    }
}

#[tokio::test]
async fn a_transaction_that_sqlite_ended_runs_nothing_more() {
    let Scene { db, ctx, folder: _folder, .. } = on_disk().await;
    run(&db, "CREATE TABLE a (id INTEGER PRIMARY KEY ON CONFLICT ROLLBACK)").await.unwrap();
    let mut session = db.begin(&ctx, Begin::default()).await.unwrap();
    session.run(&ctx, call("INSERT INTO a VALUES (1)", [])).await.unwrap();
    let error = session.run(&ctx, call("INSERT INTO a VALUES (1)", [])).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    // Without the check this would commit by itself, outside of any transaction.
    let error = session.run(&ctx, call("INSERT INTO a VALUES (2)", [])).await.unwrap_err();
    assert_eq!(error.code(), Code::Aborted);
    assert_eq!(session.commit().await.unwrap_err().code(), Code::Aborted);
    assert_eq!(number(&db, "SELECT count(*) FROM a").await, 0);
}

#[tokio::test]
async fn an_interrupted_write_takes_its_transaction_with_it() {
    let Scene { db, ctx, folder: _folder, .. } = on_disk().await;
    run(&db, "CREATE TABLE a (id INTEGER)").await.unwrap();
    let mut session = db.begin(&ctx, Begin::default()).await.unwrap();
    session.run(&ctx, call("INSERT INTO a VALUES (1)", [])).await.unwrap();
    let short = ctx.with_timeout(Duration::from_millis(20));
    let endless = "INSERT INTO a WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    let error = session.run(&short, call(endless, [])).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert_eq!(session.run(&ctx, call("SELECT 1", [])).await.unwrap_err().code(), Code::Aborted);
    drop(session);
    assert_eq!(number(&db, "SELECT count(*) FROM a").await, 0);
}

#[tokio::test]
async fn an_interrupted_read_leaves_its_transaction_standing() {
    let Scene { db, ctx, folder: _folder, .. } = on_disk().await;
    run(&db, "CREATE TABLE a (id INTEGER)").await.unwrap();
    let mut session = db.begin(&ctx, Begin::default()).await.unwrap();
    session.run(&ctx, call("INSERT INTO a VALUES (1)", [])).await.unwrap();
    let short = ctx.with_timeout(Duration::from_millis(20));
    assert_eq!(session.run(&short, call(FOREVER, [])).await.unwrap_err().code(), Code::DeadlineExceeded);
    session.run(&ctx, call("INSERT INTO a VALUES (2)", [])).await.unwrap();
    session.commit().await.unwrap();
    assert_eq!(number(&db, "SELECT count(*) FROM a").await, 2);
}

#[tokio::test]
async fn an_idle_transaction_is_rolled_back_so_that_others_can_write() {
    let Scene { db, ctx, folder: _folder, .. } =
        with(|settings| settings.sqlite_idle_transaction = Duration::from_millis(20)).await;
    run(&db, "CREATE TABLE a (id INTEGER)").await.unwrap();
    let mut stuck = db.begin(&ctx, Begin::default()).await.unwrap();
    stuck.run(&ctx, call("INSERT INTO a VALUES (1)", [])).await.unwrap();
    run(&db, "INSERT INTO a VALUES (2)").await.unwrap();
    let error = stuck.run(&ctx, call("INSERT INTO a VALUES (3)", [])).await.unwrap_err();
    assert_eq!(error.code(), Code::Aborted);
    assert!(error.report().to_string().contains("sqlite_idle_transaction"), "{error:?}");
    assert!(error.report().to_string().contains("writers"), "{error:?}");
    assert_eq!(stuck.commit().await.unwrap_err().code(), Code::Aborted);
    assert_eq!(number(&db, "SELECT sum(id) FROM a").await, 2);
    // One that reads is ended too, and is told another reason.
    let read_only = Begin { read_only: true, ..Begin::default() };
    let mut reader = db.begin(&ctx, read_only).await.unwrap();
    reader.run(&ctx, call("SELECT id FROM a", [])).await.unwrap();
    let ended = loop {
        match reader.run(&ctx.with_timeout(Duration::from_millis(1)), call(FOREVER, [])).await {
            Err(error) if error.code() == Code::Aborted => break error,
            _ => tokio::time::sleep(Duration::from_millis(30)).await, // longer than it may be idle
        }
    };
    let text = ended.report().to_string();
    assert!(text.contains("sqlite_idle_transaction") && !text.contains("writers"), "{text}");
}

#[tokio::test]
async fn a_deferred_foreign_key_fails_the_commit_and_rolls_back() {
    let db = in_memory().await;
    let ctx = Context::background();
    run(&db, "CREATE TABLE a (id INTEGER PRIMARY KEY, up INTEGER REFERENCES a DEFERRABLE INITIALLY DEFERRED)")
        .await
        .unwrap();
    let mut session = db.begin(&ctx, Begin::default()).await.unwrap();
    session.run(&ctx, call("INSERT INTO a VALUES (1, 9)", [])).await.unwrap();
    let error = session.commit().await.unwrap_err();
    assert_eq!((error.code(), kind(&error)), (Code::FailedPrecondition, crate::DatabaseErrorKind::ForeignKeyViolation));
    assert_eq!(number(&db, "SELECT count(*) FROM a").await, 0);
    // The same without a transaction: the statement's last step commits, and its failure is not lost.
    assert_eq!(
        run(&db, "INSERT INTO a VALUES (1, 9) RETURNING id").await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    assert_eq!(number(&db, "SELECT count(*) FROM a").await, 0);
}

#[tokio::test]
async fn a_read_only_transaction_sees_one_state_refuses_writes_and_holds_nobody_up() {
    let Scene { db, ctx, folder: _folder, .. } = on_disk().await;
    run(&db, "CREATE TABLE a (id INTEGER)").await.unwrap();
    let read_only = Begin { read_only: true, ..Begin::default() };
    let mut reader = db.begin(&ctx, read_only).await.unwrap();
    reader.run(&ctx, call("SELECT count(*) FROM a", [])).await.unwrap();
    run(&db, "INSERT INTO a VALUES (1)").await.unwrap();
    let mut answer = reader.run(&ctx, call("SELECT count(*) FROM a", [])).await.unwrap();
    assert_eq!(i64::from_row(&mut answer.rows[0]).unwrap(), 0);
    let error = reader.run(&ctx, call("INSERT INTO a VALUES (1)", [])).await.unwrap_err();
    assert_eq!(kind(&error), crate::DatabaseErrorKind::ReadOnly);
    reader.commit().await.unwrap();
    let memory = in_memory().await;
    memory.begin(&ctx, read_only).await.unwrap().commit().await.unwrap();
    drop(memory.begin(&ctx, read_only).await.unwrap());
    run(&memory, "CREATE TABLE a (id INTEGER)").await.unwrap();
}

#[tokio::test]
async fn streams_hand_out_every_row_in_order() {
    for Scene { db, ctx, folder: _folder, .. } in both().await {
        let mut rows = db.stream(&ctx, call(ROWS, [10_000_i64.into()])).await.unwrap();
        let mut expected = 1;
        while let Some(row) = rows.next().await {
            assert_eq!(<(i64, String)>::from_row(&mut row.unwrap()).unwrap(), (expected, format!("row {expected}")));
            expected += 1;
            if expected == 5_000 {
                assert_eq!(number(&db, "SELECT 1").await, 1); // a query in the middle of a stream
            }
        }
        assert_eq!(expected, 10_001);
        assert!(rows.next().await.is_none());
    }
}

#[tokio::test]
async fn a_stream_that_is_not_read_holds_nobody_up_and_ends_with_its_context() {
    let Scene { db, ctx, folder: _folder, .. } = with(|settings| settings.max_connections = 1).await;
    let (short, cancel) = ctx.with_cancel();
    let mut rows = db.stream(&short, call(ROWS, [i64::MAX.into()])).await.unwrap();
    rows.next().await.unwrap().unwrap();
    run(&db, "CREATE TABLE a (id INTEGER)").await.unwrap();
    cancel.cancel();
    // The place of the only guest is free again although nobody polls or drops the stream.
    let mut second = db.stream(&ctx, call(ROWS, [1_i64.into()])).await.unwrap();
    assert!(second.next().await.unwrap().is_ok());
    let mut last = None;
    while let Some(row) = rows.next().await {
        last = Some(row);
    }
    assert_eq!(last.unwrap().unwrap_err().code(), Code::Cancelled);
}

#[tokio::test]
async fn a_dropped_stream_frees_its_place() {
    let Scene { db, ctx, folder: _folder, .. } = with(|settings| settings.max_connections = 1).await;
    for _ in 0..5 {
        let mut rows = db.stream(&ctx, call(ROWS, [i64::MAX.into()])).await.unwrap();
        rows.next().await.unwrap().unwrap();
        drop(rows);
        drop(db.stream(&ctx, call(FOREVER, [])).await.unwrap());
    }
}

#[tokio::test]
async fn a_stream_of_a_write_runs_on_the_writer() {
    for Scene { db, ctx, folder: _folder, .. } in both().await {
        run(&db, "CREATE TABLE a (id INTEGER)").await.unwrap();
        for expected in [1, 2] {
            let rows = db.stream(&ctx, call("INSERT INTO a VALUES (1) RETURNING id", [])).await.unwrap();
            assert_eq!(rows.count().await, 1);
            assert_eq!(number(&db, "SELECT count(*) FROM a").await, expected);
        }
        let error = db.stream(&ctx, call("SELECT * FROM absent", [])).await.err().unwrap();
        assert!(error.report().to_string().contains("no such table"), "{error:?}");
    }
}

#[tokio::test]
async fn a_session_hands_rows_to_a_closure_that_may_stop_them() {
    let Scene { db, ctx, folder: _folder, .. } = on_disk().await;
    let mut session = db.begin(&ctx, Begin::default()).await.unwrap();
    let seen = std::sync::Arc::new(AtomicU32::new(0));
    let counter = seen.clone();
    let mut each = move |_row: Row| -> BoxFuture<'static, Result<bool>> {
        let count = counter.fetch_add(1, Ordering::Relaxed) + 1;
        Box::pin(async move { Ok(count < 1_000) })
    };
    session.each(&ctx, call(ROWS, [i64::MAX.into()]), &mut each).await.unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), 1_000);
    session.run(&ctx, call("CREATE TABLE a (id INTEGER)", [])).await.unwrap();
    session.commit().await.unwrap();
    assert_eq!(number(&db, "SELECT count(*) FROM a").await, 0);
}

#[tokio::test]
async fn a_migration_session_lives_outside_of_transactions() {
    for Scene { db, ctx, folder: _folder, .. } in both().await {
        let mut session = db.session(&ctx).await.unwrap();
        session.script(&ctx, "CREATE TABLE a (id INTEGER); INSERT INTO a VALUES (1)").await.unwrap();
        session.script(&ctx, "BEGIN IMMEDIATE").await.unwrap();
        session.run(&ctx, call("INSERT INTO a VALUES (2)", [])).await.unwrap();
        drop(session);
        assert_eq!(number(&db, "SELECT sum(id) FROM a").await, 1);
    }
}

#[tokio::test]
async fn changes_of_the_schema_reach_statements_that_were_prepared_before() {
    let Scene { db, folder: _folder, .. } = on_disk().await;
    run(&db, "CREATE TABLE a (id INTEGER)").await.unwrap();
    run(&db, "INSERT INTO a VALUES (1)").await.unwrap();
    assert_eq!(run(&db, "SELECT * FROM a").await.unwrap().rows[0].columns().count(), 1);
    run(&db, "ALTER TABLE a ADD COLUMN b TEXT").await.unwrap();
    for _ in 0..4 {
        assert_eq!(run(&db, "SELECT * FROM a").await.unwrap().rows[0].columns().collect::<Vec<_>>(), ["id", "b"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_write_one_file_and_nobody_sees_it_locked() {
    let Scene { db, file, folder: _folder, .. } = on_disk().await;
    // To SQLite two databases in one process are as two processes: they share nothing but the file.
    let other = open(&file, &DatabaseSettings::default()).await.unwrap();
    run(&db, "CREATE TABLE a (id INTEGER PRIMARY KEY, n INTEGER)").await.unwrap();
    run(&db, "INSERT INTO a VALUES (1, 0)").await.unwrap();
    let databases = [Arc::new(db), Arc::new(other)];
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..16 {
        let db = databases[task % 2].clone();
        tasks.spawn(async move {
            let ctx = Context::background();
            for round in 0..25 {
                if round % 2 == 0 {
                    db.run(&ctx, call("UPDATE a SET n = n + 1", [])).await.unwrap();
                } else {
                    let mut session = db.begin(&ctx, Begin::default()).await.unwrap();
                    let mut answer = session.run(&ctx, call("SELECT n FROM a", [])).await.unwrap();
                    let n = i64::from_row(&mut answer.rows[0]).unwrap();
                    session.run(&ctx, call("UPDATE a SET n = $1", [(n + 1).into()])).await.unwrap();
                    session.commit().await.unwrap();
                }
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    assert_eq!(number(&databases[0], "SELECT n FROM a").await, 16 * 25);
}

/// How many transactions of a backlog are served before one that comes last of all.
async fn served_before_a_late_one(backlog: TxOptions, late: TxOptions) -> u32 {
    const BACKLOG: u32 = 50;
    // Nobody may be turned away, however slow the machine is.
    let Scene { db, ctx, folder: _folder, .. } =
        with(|settings| settings.acquire_timeout = Duration::from_secs(60)).await;
    run(&db, "CREATE TABLE a (id INTEGER)").await.unwrap();
    let driver = Arc::new(db);
    let (db, served) = (Db::with_driver(driver.clone()), Arc::new(AtomicU32::new(0)));
    let all_wait = async |count| {
        while driver.stats().waiting < count {
            tokio::task::yield_now().await;
        }
    };
    let holder = driver.begin(&ctx, Begin::default()).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..BACKLOG {
        let (db, ctx, served) = (db.clone(), ctx.clone(), served.clone());
        tasks.spawn(async move {
            let (ctx, served) = (&ctx, &*served);
            let work = |tx: crate::Tx| async move {
                served.fetch_add(1, Ordering::Relaxed);
                tx.query("INSERT INTO a VALUES (1)").execute(ctx).await.map(drop)
            };
            db.transaction_with(ctx, backlog, work).await
        });
    }
    all_wait(BACKLOG).await;
    let served = &*served;
    let late = db.transaction_with(&ctx, late, |_| async { Ok(served.load(Ordering::Relaxed)) });
    let release = async {
        all_wait(BACKLOG + 1).await;
        holder.commit().await
    };
    let (before, released) = tokio::join!(late, release);
    released.unwrap();
    while let Some(task) = tasks.join_next().await {
        task.unwrap().unwrap();
    }
    assert_eq!(number(&driver, "SELECT count(*) FROM a").await, i64::from(BACKLOG));
    before.unwrap()
}

#[tokio::test]
async fn a_backlog_of_one_kind_delays_the_other_by_one_transaction_at_most() {
    let (foreground, background) = (TxOptions::new(), TxOptions::new().background());
    assert!(served_before_a_late_one(background, foreground).await <= 1);
    assert!(served_before_a_late_one(foreground, background).await <= 1);
    assert_eq!(served_before_a_late_one(foreground, foreground).await, 50); // among its own kind it is the last
}

#[tokio::test]
async fn a_place_where_no_file_can_be_is_told_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "not a database, but long enough to be looked at as one by SQLite").unwrap();
    for path in [file.clone(), file.join("below/a.db"), folder.path().to_owned()] {
        let error = open(&SqliteFile::Path(path.clone()), &DatabaseSettings::default()).await.err().unwrap();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
        let report = error.report().to_string();
        assert!(report.contains(path.parent().unwrap().to_str().unwrap()), "{report}");
    }
}

#[tokio::test]
async fn close_waits_for_what_runs_refuses_what_comes_and_stops_what_does_not_end() {
    let Scene { db, ctx, folder: _folder, .. } = on_disk().await;
    run(&db, "CREATE TABLE a (id INTEGER)").await.unwrap();
    let mut session = db.begin(&ctx, Begin::default()).await.unwrap();
    let mut closing = db.close(&ctx);
    assert!(futures_util::poll!(&mut closing).is_pending());
    assert_eq!(run(&db, "SELECT 1").await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(db.begin(&ctx, Begin::default()).await.err().unwrap().code(), Code::Unavailable);
    session.run(&ctx, call("INSERT INTO a VALUES (1)", [])).await.unwrap();
    session.commit().await.unwrap();
    closing.await;
    assert_eq!((db.stats().open, db.stats().in_use), (0, 0));

    let Scene { db, ctx, folder: _folder, .. } = on_disk().await;
    let _stuck = db.begin(&ctx, Begin::default()).await.unwrap();
    let mut endless = db.run(&ctx, call(FOREVER, []));
    assert!(futures_util::poll!(&mut endless).is_pending());
    db.close(&ctx.with_timeout(Duration::from_millis(10))).await;
    assert!(endless.await.is_err());
    assert_eq!(db.stats().open, 0);
}
