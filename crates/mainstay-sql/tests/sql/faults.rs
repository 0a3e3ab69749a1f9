//! Errors: their codes, and what they tell.

use std::net::TcpListener;
use std::time::Duration;

use mainstay_core::{Code, Result};
use mainstay_sql::testing::Scene;
use mainstay_sql::{DatabaseError, DatabaseErrorKind as Kind, DatabaseSettings, Db, Dialect, TxOptions};
use mainstay_telemetry::Metrics;

const PARENTS: &str = "CREATE TABLE parents (id INTEGER PRIMARY KEY, name VARCHAR(50) NOT NULL,
                       age INTEGER, CONSTRAINT of_age CHECK (age >= 18), CONSTRAINT unique_name UNIQUE (name))";
const CHILDREN: &str = "CREATE TABLE children (id INTEGER PRIMARY KEY, parent_id INTEGER NOT NULL,
                        CONSTRAINT has_parent FOREIGN KEY (parent_id) REFERENCES parents (id))";

pub(crate) async fn violated_constraints_have_codes_and_names(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query(PARENTS).execute(&ctx).await?;
    db.query(CHILDREN).execute(&ctx).await?;
    db.query("INSERT INTO parents (id, name, age) VALUES (1, 'Ada', 36)").execute(&ctx).await?;
    db.query("INSERT INTO children (id, parent_id) VALUES (1, 1)").execute(&ctx).await?;
    for (sql, code, kind) in [
        ("INSERT INTO parents (id, name) VALUES (1, 'Bob')", Code::AlreadyExists, Kind::UniqueViolation),
        ("INSERT INTO parents (id, name) VALUES (2, 'Ada')", Code::AlreadyExists, Kind::UniqueViolation),
        ("INSERT INTO children (id, parent_id) VALUES (2, 9)", Code::FailedPrecondition, Kind::ForeignKeyViolation),
        ("DELETE FROM parents WHERE id = 1", Code::FailedPrecondition, Kind::ForeignKeyViolation),
        ("INSERT INTO parents (id, name) VALUES (3, NULL)", Code::FailedPrecondition, Kind::NotNullViolation),
        ("INSERT INTO parents (id, name, age) VALUES (4, 'Kim', 5)", Code::FailedPrecondition, Kind::CheckViolation),
    ] {
        let error = db.query(sql).execute(&ctx).await.unwrap_err();
        assert_eq!(error.code(), code, "{sql}: {error:?}");
        let fault = error.downcast_ref::<DatabaseError>().expect("what the database said");
        assert_eq!(fault.kind, kind, "{sql}: {error:?}");
        assert!(!error.message().contains("parents"), "the caller must not read names of tables: {error}");
    }
    let taken = db.query("INSERT INTO parents (id, name) VALUES (2, 'Ada')").execute(&ctx).await.unwrap_err();
    let constraint = taken.downcast_ref::<DatabaseError>().and_then(|fault| fault.constraint.clone());
    assert!(constraint.is_some_and(|name| name.contains("name")), "{taken:?}");
    Ok(())
}

pub(crate) async fn a_write_in_a_read_only_transaction_is_refused(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query(PARENTS).execute(&ctx).await?;
    let ctx = &ctx;
    let read_only = TxOptions::new().read_only();
    let result = db
        .transaction_with(ctx, read_only, |tx| async move {
            assert_eq!(tx.read("SELECT COUNT(*) FROM parents").one::<i64>(ctx).await?, 0);
            tx.query("INSERT INTO parents (id, name) VALUES (1, 'Ada')").execute(ctx).await
        })
        .await;
    assert_eq!(result.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(db.read("SELECT COUNT(*) FROM parents").one::<i64>(ctx).await?, 0);
    Ok(())
}

pub(crate) async fn a_server_that_is_not_there_is_unavailable_by_name(Scene { db, ctx, .. }: Scene) -> Result<()> {
    // A port that was free a moment ago, and that nobody can take while it is known to be ours.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let port = silent.local_addr()?.port();
    drop(silent);
    let url = match db.dialect() {
        Dialect::Postgres => format!("postgres://ada:hunter2@127.0.0.1:{port}/shop"),
        Dialect::Mysql => format!("mysql://ada:hunter2@127.0.0.1:{port}/shop"),
        Dialect::Sqlite => return Ok(()), // a file is always there
    };
    let other = Db::new(&DatabaseSettings::from_url(url), &Metrics::new())?;
    let error = other.connect(&ctx).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    let report = format!("{error:?}");
    assert!(report.contains(&format!("127.0.0.1:{port}")) && !report.contains("hunter2"), "{report}");
    assert!(!other.is_connected());

    // One that accepts and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("{}://ada@{}/shop", db.dialect(), silent.local_addr()?);
    let settings =
        DatabaseSettings { connect_timeout: Duration::from_millis(100), ..DatabaseSettings::from_url(url) };
    let error = Db::new(&settings, &Metrics::new())?.connect(&ctx).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");
    Ok(())
}

pub(crate) async fn before_connect_and_after_close_it_is_unavailable(Scene { ctx, settings, .. }: Scene) -> Result<()> {
    let db = Db::new(&settings, &Metrics::new())?;
    assert!(!db.is_connected());
    let error = db.ping(&ctx).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.report().to_string().contains("connect"), "{error:?}");

    db.connect(&ctx).await?;
    db.connect(&ctx).await?;
    db.ping(&ctx).await?;
    db.close(&ctx).await;
    assert_eq!(db.ping(&ctx).await.unwrap_err().code(), Code::Unavailable);
    let begun = db.transaction(&ctx, |_| async { Ok(()) }).await;
    assert_eq!(begun.unwrap_err().code(), Code::Unavailable);
    db.close(&ctx).await;
    Ok(())
}
