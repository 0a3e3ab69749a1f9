//! The driver by itself, against the server that the test harness finds: `tests/mysql.rs` runs these cases. They see what
//! no user of the crate can, and so live inside; the harness reports them as ignored where no server answers, which
//! `#[test]` can't. Each makes a database of its own and drops it.

#![expect(clippy::unwrap_used, reason = "tests, though not `#[test]`s")]

use std::sync::atomic::{AtomicU32, Ordering};

use mainstay_core::Code;
use mainstay_telemetry::Metrics;

use super::*;
use crate::driver::Want;
use crate::row::FromRow;
use crate::settings::{DatabaseUrl, Host};
use crate::testing::{Harness, Needs};
use crate::value::Value;

/// Adds the driver's cases to `harness`.
pub(crate) fn cases(harness: Harness) -> Harness {
    harness
        .case("every_value_comes_back_as_it_went", Needs::Mysql, every_value_comes_back_as_it_went)
        .case(
            "matched_rows_are_counted_and_refusals_are_told_apart",
            Needs::Mysql,
            matched_rows_are_counted_and_refusals_are_told_apart,
        )
        .case(
            "a_statement_is_stopped_on_the_server_and_its_connection_is_used_again",
            Needs::Mysql,
            a_statement_is_stopped_on_the_server_and_its_connection_is_used_again,
        )
        .case("a_late_kill_never_hits_the_next_statement", Needs::Mysql, a_late_kill_never_hits_the_next_statement)
        .case(
            "transactions_commit_roll_back_and_end_when_dropped",
            Needs::Mysql,
            transactions_commit_roll_back_and_end_when_dropped,
        )
        .case(
            "a_transaction_given_up_at_its_beginning_is_not_left_open",
            Needs::Mysql,
            a_transaction_given_up_at_its_beginning_is_not_left_open,
        )
        .case(
            "a_statement_given_up_in_a_transaction_leaves_it_standing",
            Needs::Mysql,
            a_statement_given_up_in_a_transaction_leaves_it_standing,
        )
        .case("a_deadlock_ends_the_whole_transaction", Needs::Mysql, a_deadlock_ends_the_whole_transaction)
        .case(
            "a_definition_in_a_transaction_is_told_and_nothing_follows_it",
            Needs::Mysql,
            a_definition_in_a_transaction_is_told_and_nothing_follows_it,
        )
        .case(
            "streams_hand_out_rows_and_stop_the_server_when_nobody_takes_them",
            Needs::Mysql,
            streams_hand_out_rows_and_stop_the_server_when_nobody_takes_them,
        )
        .case(
            "a_session_hands_rows_to_a_closure_that_may_stop_them",
            Needs::Mysql,
            a_session_hands_rows_to_a_closure_that_may_stop_them,
        )
        .case("a_session_takes_its_locks_with_it", Needs::Mysql, a_session_takes_its_locks_with_it)
        .case(
            "a_read_survives_a_connection_that_the_server_closed",
            Needs::Mysql,
            a_read_survives_a_connection_that_the_server_closed,
        )
        .case(
            "refused_users_and_missing_databases_are_told_with_what_to_do",
            Needs::Mysql,
            refused_users_and_missing_databases_are_told_with_what_to_do,
        )
        .case(
            "close_waits_for_what_runs_and_cuts_what_does_not_end",
            Needs::Mysql,
            close_waits_for_what_runs_and_cuts_what_does_not_end,
        )
}

/// A statement that takes longer than any test, and that only a kill ends before.
const LONG: &str = "SELECT SLEEP(300)";
/// Rows for some seconds, and more than fit into the buffers on their way.
const MANY: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900)
                    SELECT n.i, REPEAT('x', 200) FROM n, n AS m, n AS o";

struct Scene {
    db: Mysql,
    ctx: Context,
    admin: mysql_async::Conn,
    name: String,
}

impl Scene {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut DatabaseSettings)) -> Self {
        let server = server().await;
        let name = format!("mainstay_driver_{}", uuid::Uuid::new_v4().simple());
        let mut admin = admin(&server).await;
        use mysql_async::prelude::Queryable;
        admin.query_drop(format!("CREATE DATABASE {name}")).await.unwrap();
        let server = Server { database: Some(name.clone()), ..server };
        let mut settings = DatabaseSettings::default();
        change(&mut settings);
        let metrics = SqlMetrics::new(&Metrics::new());
        let ctx = Context::background();
        let db = Mysql::connect(&ctx, &server, &settings, &metrics).await.unwrap();
        Self { db, ctx, admin, name }
    }

    async fn run(&self, sql: &'static str) -> Result<Answer> {
        self.db.run(&self.ctx, call(sql, [])).await
    }

    async fn number(&self, sql: &'static str) -> i64 {
        i64::from_row(&mut self.run(sql).await.unwrap().rows[0]).unwrap()
    }

    /// Waits until the server runs nothing for this database.
    async fn quiet(&mut self) {
        use mysql_async::prelude::Queryable;
        loop {
            let sql = format!(
                "SELECT count(*) FROM information_schema.processlist WHERE db = '{}' AND command <> 'Sleep'",
                self.name
            );
            if self.admin.query_first::<u64, _>(sql).await.unwrap() == Some(0) {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn end(mut self) {
        use mysql_async::prelude::Queryable;
        self.db.close(&self.ctx).await;
        self.admin.query_drop(format!("DROP DATABASE {}", self.name)).await.unwrap();
    }
}

async fn server() -> Server {
    match crate::testing::Server::Mysql.url().await.map(|url| DatabaseUrl::parse(&url)) {
        Ok(Ok(DatabaseUrl::Mysql(server))) => server,
        other => panic!("the harness runs this only where MySQL answers: {other:?}"),
    }
}

async fn admin(server: &Server) -> mysql_async::Conn {
    let Host::Tcp { name, port } = &server.host else { panic!("the tests connect over TCP") };
    let options = mysql_async::OptsBuilder::default()
        .ip_or_hostname(name)
        .tcp_port(*port)
        .user(Some(&server.user))
        .pass(server.password.as_ref())
        .prefer_socket(false);
    mysql_async::Conn::new(options).await.unwrap()
}

fn call(sql: &'static str, values: impl IntoIterator<Item = Value>) -> Call {
    Call { sql: sql.into(), values: values.into_iter().collect(), read: false, want: Want::All }
}

fn kind(error: &Error) -> DatabaseErrorKind {
    error.downcast_ref::<DatabaseError>().unwrap_or_else(|| panic!("no database error in {error:?}")).kind
}

async fn every_value_comes_back_as_it_went() -> Result<()> {
    let scene = Scene::new().await;
    scene
        .run(
            "CREATE TABLE a (b TINYINT(1), i BIGINT, f DOUBLE, t TEXT, y VARBINARY(20), u BINARY(16), ts DATETIME(6),
             d DATE, n DECIMAL(10, 2), j JSON, x INT NULL)",
        )
        .await
        .unwrap();
    let uuid = uuid::Uuid::from_u128(u128::MAX - 7);
    let time: jiff::Timestamp = "1969-12-31T23:59:59.999999Z".parse().unwrap();
    let values = [
        Value::from(true),
        i64::MIN.into(),
        0.1_f64.into(),
        "ü😀\0\"'$1?\\".into(),
        vec![0_u8, 255, 128].into(),
        uuid.into(),
        time.into(),
        jiff::civil::date(2026, 2, 28).into(),
        rust_decimal::Decimal::new(1230, 2).into(),
        serde_json::json!({"a": [1, null, "ü"]}).into(),
        Value::Null,
    ];
    let insert = "INSERT INTO a VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
    assert_eq!(scene.db.run(&scene.ctx, call(insert, values)).await.unwrap().affected, 1);
    let mut answer = scene.run("SELECT a.*, '$1' AS dollar FROM a").await.unwrap();
    let row = &mut answer.rows[0];
    assert!(row.take::<bool>("b").unwrap());
    assert_eq!(row.take::<i64>("i").unwrap(), i64::MIN);
    assert_eq!(row.take::<f64>("f").unwrap(), 0.1);
    assert_eq!(row.take::<String>("t").unwrap(), "ü😀\0\"'$1?\\");
    assert_eq!(row.take::<Vec<u8>>("y").unwrap(), [0, 255, 128]);
    assert_eq!(row.take::<uuid::Uuid>("u").unwrap(), uuid);
    assert_eq!(row.take::<jiff::Timestamp>("ts").unwrap(), time);
    assert_eq!(row.take::<jiff::civil::Date>("d").unwrap(), jiff::civil::date(2026, 2, 28));
    assert_eq!(row.take::<rust_decimal::Decimal>("n").unwrap().to_string(), "12.30");
    assert_eq!(row.take::<serde_json::Value>("j").unwrap(), serde_json::json!({"a": [1, null, "ü"]}));
    assert_eq!(row.take::<Option<i32>>("x").unwrap(), None);
    assert_eq!(row.take::<String>("dollar").unwrap(), "$1");
    for (sql, value) in [
        ("SELECT count(*) FROM a WHERE u = $1", Value::from(uuid)),
        ("SELECT count(*) FROM a WHERE ts = $1", time.into()),
        ("SELECT count(*) FROM a WHERE d = $1", jiff::civil::date(2026, 2, 28).into()),
        ("SELECT count(*) FROM a WHERE n = $1", rust_decimal::Decimal::new(123, 1).into()),
        ("SELECT count(*) FROM a WHERE b = $1 AND t = $2 AND t = $2", true.into()),
    ] {
        let mut answer = scene.db.run(&scene.ctx, call(sql, [value, "ü😀\0\"'$1?\\".into()])).await.unwrap();
        assert_eq!(i64::from_row(&mut answer.rows[0]).unwrap(), 1, "{sql}");
    }
    scene.end().await;
    Ok(())
}

async fn matched_rows_are_counted_and_refusals_are_told_apart() -> Result<()> {
    use DatabaseErrorKind as Kind;
    let scene = Scene::new().await;
    scene.run("CREATE TABLE p (id INT PRIMARY KEY)").await.unwrap();
    scene
        .run(
            "CREATE TABLE a (id INT PRIMARY KEY, b VARCHAR(10) NOT NULL, c INT, up INT,
             CONSTRAINT small CHECK (c < 10), UNIQUE KEY c_once (c),
             CONSTRAINT up_to_p FOREIGN KEY (up) REFERENCES p (id))",
        )
        .await
        .unwrap();
    scene.run("INSERT INTO a VALUES (1, 'x', 1, NULL), (2, 'x', 2, NULL)").await.unwrap();
    assert_eq!(scene.run("UPDATE a SET b = 'x'").await.unwrap().affected, 2);
    for (sql, wanted, constraint) in [
        ("INSERT INTO a VALUES (1, 'y', 3, NULL)", Kind::UniqueViolation, Some("PRIMARY")),
        ("INSERT INTO a VALUES (3, 'y', 1, NULL)", Kind::UniqueViolation, Some("c_once")),
        ("INSERT INTO a VALUES (3, NULL, 3, NULL)", Kind::NotNullViolation, Some("b")),
        ("INSERT INTO a (id, c) VALUES (3, 3)", Kind::NotNullViolation, Some("b")),
        ("INSERT INTO a VALUES (3, 'y', 33, NULL)", Kind::CheckViolation, Some("small")),
        ("INSERT INTO a VALUES (3, 'y', 3, 9)", Kind::ForeignKeyViolation, Some("up_to_p")),
        ("INSERT INTO a VALUES (3, 'far too long for ten', 3, NULL)", Kind::Other, None),
        ("SELEKT 1", Kind::Other, None),
        ("SELECT 1; SELECT 2", Kind::Other, None),
    ] {
        let error = scene.run(sql).await.unwrap_err();
        let fault = error.downcast_ref::<DatabaseError>().unwrap();
        assert_eq!((fault.kind, fault.constraint.as_deref()), (wanted, constraint), "{sql}: {fault}");
    }
    assert_eq!(scene.db.stats().open, 1, "no refusal costs the connection");
    scene.end().await;
    Ok(())
}

async fn a_statement_is_stopped_on_the_server_and_its_connection_is_used_again() -> Result<()> {
    let mut scene = Scene::with(|settings| settings.max_connections = 1).await;
    scene.db.statement_end = std::time::Duration::from_secs(60); // a server with much to do may take its time
    let connection = scene.number("SELECT CONNECTION_ID()").await;
    let short = scene.ctx.with_timeout(std::time::Duration::from_millis(30));
    assert_eq!(scene.db.run(&short, call(LONG, [])).await.unwrap_err().code(), Code::DeadlineExceeded);
    scene.quiet().await;
    for _ in 0..5 {
        let Scene { db, ctx, .. } = &scene;
        let mut abandoned = db.run(ctx, call(LONG, []));
        assert!(futures_util::poll!(&mut abandoned).is_pending());
        tokio::task::yield_now().await;
        let _ = futures_util::poll!(&mut abandoned);
        drop(abandoned);
        // The late kill must not hit this one.
        assert_eq!(scene.number("SELECT CONNECTION_ID()").await, connection);
    }
    scene.end().await;
    Ok(())
}

async fn a_late_kill_never_hits_the_next_statement() -> Result<()> {
    let scene = Scene::with(|settings| settings.max_connections = 2).await;
    for round in 0..200_u64 {
        // Some end before they are killed, some in the middle of it, some are killed.
        let short = scene.ctx.with_timeout(std::time::Duration::from_micros(round * 10));
        let _ = scene.db.run(&short, call("SELECT SLEEP(0.001)", [])).await;
        let answer = scene.db.run(&scene.ctx, call("SELECT SLEEP(0.0005) AS zero", [])).await.unwrap();
        assert_eq!(answer.rows.len(), 1);
        let mut answer = answer;
        // A killed SLEEP returns 1 instead of an error.
        assert_eq!(i64::from_row(&mut answer.rows[0]).unwrap(), 0, "round {round}");
    }
    scene.end().await;
    Ok(())
}

async fn transactions_commit_roll_back_and_end_when_dropped() -> Result<()> {
    let scene = Scene::with(|settings| settings.max_connections = 1).await;
    let Scene { db, ctx, .. } = &scene;
    scene.run("CREATE TABLE a (id INT)").await.unwrap();
    let mut dropped = db.begin(ctx, Begin::default()).await.unwrap();
    dropped.run(ctx, call("INSERT INTO a VALUES (1)", [])).await.unwrap();
    drop(dropped);
    let isolation = Some(Isolation::Serializable);
    let mut kept = db.begin(ctx, Begin { isolation, ..Begin::default() }).await.unwrap();
    let mut level = kept
        .run(
            ctx,
            call(
                "SELECT trx_isolation_level FROM information_schema.innodb_trx
        WHERE trx_mysql_thread_id = CONNECTION_ID()",
                [],
            ),
        )
        .await
        .unwrap();
    if let Some(row) = level.rows.first_mut() {
        assert_eq!(String::from_row(row).unwrap(), "SERIALIZABLE");
    }
    kept.run(ctx, call("INSERT INTO a VALUES (2)", [])).await.unwrap();
    kept.script(ctx, "SAVEPOINT s; INSERT INTO a VALUES (3); ROLLBACK TO SAVEPOINT s; RELEASE SAVEPOINT s")
        .await
        .unwrap();
    kept.commit().await.unwrap();
    let mut back = db.begin(ctx, Begin::default()).await.unwrap();
    back.run(ctx, call("INSERT INTO a VALUES (4)", [])).await.unwrap();
    back.rollback().await.unwrap();
    let mut reader = db.begin(ctx, Begin { read_only: true, ..Begin::default() }).await.unwrap();
    let error = reader.run(ctx, call("INSERT INTO a VALUES (5)", [])).await.unwrap_err();
    assert_eq!(kind(&error), DatabaseErrorKind::ReadOnly);
    drop(reader);
    assert_eq!(scene.number("SELECT sum(id) FROM a").await, 2);
    assert_eq!(db.stats().open, 1);
    scene.end().await;
    Ok(())
}

async fn a_transaction_given_up_at_its_beginning_is_not_left_open() -> Result<()> {
    let scene = Scene::with(|settings| settings.max_connections = 1).await;
    let Scene { db, ctx, .. } = &scene;
    scene.run("CREATE TABLE a (id INT)").await.unwrap();
    for polls in 1..8 {
        let mut begin = db.begin(ctx, Begin { isolation: Some(Isolation::ReadCommitted), ..Begin::default() });
        for _ in 0..polls {
            if futures_util::poll!(&mut begin).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(begin);
        // Were the transaction still open on the only connection, this would be part of it and then be lost.
        scene.run("INSERT INTO a VALUES (1)").await.unwrap();
    }
    assert_eq!(scene.number("SELECT count(*) FROM a").await, 7);
    scene.end().await;
    Ok(())
}

async fn a_statement_given_up_in_a_transaction_leaves_it_standing() -> Result<()> {
    let scene = Scene::with(|settings| settings.max_connections = 1).await;
    let Scene { db, ctx, .. } = &scene;
    scene.run("CREATE TABLE a (id INT)").await.unwrap();
    let mut session = db.begin(ctx, Begin::default()).await.unwrap();
    session.run(ctx, call("INSERT INTO a VALUES (1)", [])).await.unwrap();
    let short = ctx.with_timeout(std::time::Duration::from_millis(20));
    assert_eq!(session.run(&short, call(LONG, [])).await.unwrap_err().code(), Code::DeadlineExceeded);
    let mut abandoned = session.run(ctx, call(LONG, []));
    assert!(futures_util::poll!(&mut abandoned).is_pending());
    drop(abandoned);
    session.run(ctx, call("INSERT INTO a VALUES (2)", [])).await.unwrap();
    session.commit().await.unwrap();
    assert_eq!(scene.number("SELECT sum(id) FROM a").await, 3);
    scene.end().await;
    Ok(())
}

async fn a_deadlock_ends_the_whole_transaction() -> Result<()> {
    let scene = Scene::new().await;
    let Scene { db, ctx, .. } = &scene;
    scene.run("CREATE TABLE a (id INT PRIMARY KEY, n INT)").await.unwrap();
    scene.run("INSERT INTO a VALUES (1, 0), (2, 0)").await.unwrap();
    let (one, two) = ("UPDATE a SET n = n + 1 WHERE id = 1", "UPDATE a SET n = n + 1 WHERE id = 2");
    let mut first = db.begin(ctx, Begin::default()).await.unwrap();
    let mut second = db.begin(ctx, Begin::default()).await.unwrap();
    first.run(ctx, call(one, [])).await.unwrap();
    second.run(ctx, call(two, [])).await.unwrap();
    let (left, right) = tokio::join!(first.run(ctx, call(two, [])), second.run(ctx, call(one, [])));
    let (mut loser, winner, error) = match (left, right) {
        (Err(error), Ok(_)) => (first, second, error),
        (Ok(_), Err(error)) => (second, first, error),
        other => panic!("one of them loses: {other:?}"),
    };
    assert_eq!((error.code(), kind(&error)), (Code::Aborted, DatabaseErrorKind::Deadlock));
    // The server has no transaction any more: this would commit by itself.
    let error = loser.run(ctx, call("INSERT INTO a VALUES (3, 0)", [])).await.unwrap_err();
    assert_eq!((error.code(), kind(&error)), (Code::Aborted, DatabaseErrorKind::Deadlock));
    assert_eq!(loser.commit().await.unwrap_err().code(), Code::Aborted);
    winner.commit().await.unwrap();
    assert_eq!(scene.number("SELECT count(*) FROM a WHERE n = 1").await, 2);
    assert_eq!(scene.number("SELECT count(*) FROM a").await, 2);
    scene.end().await;
    Ok(())
}

async fn a_definition_in_a_transaction_is_told_and_nothing_follows_it() -> Result<()> {
    let scene = Scene::new().await;
    let Scene { db, ctx, .. } = &scene;
    let mut session = db.begin(ctx, Begin::default()).await.unwrap();
    session.run(ctx, call("CREATE TABLE a (id INT)", [])).await.unwrap();
    let error = session.run(ctx, call("INSERT INTO a VALUES (1)", [])).await.unwrap_err();
    assert!(error.report().to_string().contains("CREATE"), "{error:?}");
    drop(session);
    assert_eq!(scene.number("SELECT count(*) FROM a").await, 0);
    scene.end().await;
    Ok(())
}

async fn streams_hand_out_rows_and_stop_the_server_when_nobody_takes_them() -> Result<()> {
    let mut scene = Scene::with(|settings| settings.max_connections = 2).await;
    let connections = scene.db.stats().open;
    let Scene { db, ctx, .. } = &scene;
    let some = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1) SELECT i FROM n";
    let mut rows = db.stream(ctx, call(some, [900_i64.into()])).await.unwrap();
    let mut expected = 0;
    while let Some(row) = rows.next().await {
        expected += 1;
        assert_eq!(i64::from_row(&mut row.unwrap()).unwrap(), expected);
    }
    assert_eq!(expected, 900);
    let mut dropped = db.stream(ctx, call(MANY, [])).await.unwrap();
    dropped.next().await.unwrap().unwrap();
    drop(dropped);
    let (stopped, cancel) = ctx.with_cancel();
    let mut unread = db.stream(&stopped, call(MANY, [])).await.unwrap();
    unread.next().await.unwrap().unwrap();
    cancel.cancel();
    // The only place for streams comes free although nobody polls or drops this one.
    let mut failing = db.stream(ctx, call("SELECT * FROM absent", [])).await.unwrap();
    assert_eq!(failing.next().await.unwrap().unwrap_err().code(), Code::Internal);
    assert!(failing.next().await.is_none());
    let mut last = None;
    while let Some(row) = unread.next().await {
        last = Some(row);
    }
    assert_eq!(last.unwrap().unwrap_err().code(), Code::Cancelled);
    scene.quiet().await;
    assert!(scene.db.stats().open <= connections + 1);
    scene.end().await;
    Ok(())
}

async fn a_session_hands_rows_to_a_closure_that_may_stop_them() -> Result<()> {
    let scene = Scene::with(|settings| settings.max_connections = 1).await;
    let Scene { db, ctx, .. } = &scene;
    let mut session = db.begin(ctx, Begin::default()).await.unwrap();
    let seen = Arc::new(AtomicU32::new(0));
    let counter = seen.clone();
    let mut each = move |_row: Row| -> BoxFuture<'static, Result<bool>> {
        let count = counter.fetch_add(1, Ordering::Relaxed) + 1;
        Box::pin(async move { Ok(!count.is_multiple_of(1_000)) })
    };
    session.each(ctx, call(MANY, []), &mut each).await.unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), 1_000);
    session.each(ctx, call("SELECT 1 UNION ALL SELECT 2", []), &mut each).await.unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), 1_002);
    session.commit().await.unwrap();
    assert_eq!(scene.number("SELECT 1").await, 1);
    scene.end().await;
    Ok(())
}

async fn a_session_takes_its_locks_with_it() -> Result<()> {
    let scene = Scene::new().await;
    let Scene { db, ctx, name, .. } = &scene;
    let lock = |seconds: i64| Call {
        sql: "SELECT GET_LOCK($1, $2)".into(),
        values: vec![name.into(), seconds.into()],
        read: false,
        want: Want::First,
    };
    let mut holder = db.session(ctx).await.unwrap();
    assert_eq!(i64::from_row(&mut holder.run(ctx, lock(0)).await.unwrap().rows[0]).unwrap(), 1);
    let mut other = db.session(ctx).await.unwrap();
    assert_eq!(i64::from_row(&mut other.run(ctx, lock(0)).await.unwrap().rows[0]).unwrap(), 0);
    drop(holder);
    assert_eq!(i64::from_row(&mut other.run(ctx, lock(30)).await.unwrap().rows[0]).unwrap(), 1);
    drop(other);
    scene.end().await;
    Ok(())
}

async fn a_read_survives_a_connection_that_the_server_closed() -> Result<()> {
    let mut scene = Scene::with(|settings| settings.max_connections = 1).await;
    let connection = scene.number("SELECT CONNECTION_ID()").await;
    {
        use mysql_async::prelude::Queryable;
        scene.admin.query_drop(format!("KILL CONNECTION {connection}")).await.unwrap();
    }
    let read = Call { read: true, ..call("SELECT 1", []) };
    assert_eq!(scene.db.run(&scene.ctx, read).await.unwrap().rows.len(), 1);
    scene.end().await;
    Ok(())
}

async fn refused_users_and_missing_databases_are_told_with_what_to_do() -> Result<()> {
    let server = server().await;
    let metrics = SqlMetrics::new(&Metrics::new());
    let (ctx, settings) = (Context::background(), DatabaseSettings::default());
    let missing = Server { database: Some("mainstay_absent".to_owned()), ..server.clone() };
    let error = Mysql::connect(&ctx, &missing, &settings, &metrics).await.err().unwrap();
    assert_eq!((error.code(), error.message()), (Code::FailedPrecondition, "the database doesn't exist"));
    let stranger = Server { user: "nobody".to_owned(), password: Some("hunter2".to_owned()), ..server.clone() };
    let error = Mysql::connect(&ctx, &stranger, &settings, &metrics).await.err().unwrap();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(!format!("{error:?}").contains("hunter2"));
    let nowhere = Server { host: Host::Tcp { name: "127.0.0.1".to_owned(), port: 1 }, ..server };
    let error = Mysql::connect(&ctx, &nowhere, &settings, &metrics).await.err().unwrap();
    assert_eq!(error.code(), Code::Unavailable);
    Ok(())
}

async fn close_waits_for_what_runs_and_cuts_what_does_not_end() -> Result<()> {
    let mut scene = Scene::new().await;
    let Scene { db, ctx, .. } = &scene;
    let mut session = db.begin(ctx, Begin::default()).await.unwrap();
    let mut endless = db.run(ctx, call(LONG, []));
    assert!(futures_util::poll!(&mut endless).is_pending());
    db.close(&ctx.with_timeout(Duration::from_millis(10))).await;
    assert_eq!(endless.await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(session.run(ctx, call(LONG, [])).await.unwrap_err().code(), Code::Unavailable);
    drop(session);
    scene.quiet().await;
    scene.end().await;
    Ok(())
}
