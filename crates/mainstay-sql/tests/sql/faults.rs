//! Errors: their codes, and what they tell.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mainstay_core::{Code, Context, Result};
use mainstay_sql::testing::Scene;
use mainstay_sql::{CommitUnknown, DatabaseError, DatabaseErrorKind as Kind, DatabaseSettings, Db, TxOptions};
use mainstay_telemetry::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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
    let url = format!("{}://ada:hunter2@127.0.0.1:{port}/shop", db.dialect());
    let other = Db::new(&DatabaseSettings::from_url(url), &Metrics::new())?;
    let error = other.connect(&ctx).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    let report = format!("{error:?}");
    assert!(report.contains(&format!("127.0.0.1:{port}")) && !report.contains("hunter2"), "{report}");
    assert!(!other.is_connected());

    // One that accepts and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("{}://ada@{}/shop", db.dialect(), silent.local_addr()?);
    let settings = DatabaseSettings { connect_timeout: Duration::from_millis(100), ..DatabaseSettings::from_url(url) };
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

/// The network breaks at the worst moment: COMMIT is on its way, or done, and the answer never comes.
pub(crate) async fn a_commit_whose_answer_is_lost_is_unknown_and_not_repeated(
    Scene { db, ctx, settings, .. }: Scene,
) -> Result<()> {
    db.query("CREATE TABLE entries (id INTEGER PRIMARY KEY)").execute(&ctx).await?;
    for (id, reaches_the_server) in [(1, false), (2, true)] {
        let fragile = connected_through_a_proxy(&ctx, &settings, reaches_the_server).await?;
        let (ctx, attempts) = (&ctx, &AtomicU32::new(0));
        let error = fragile
            .transaction(ctx, |tx| async move {
                attempts.fetch_add(1, Ordering::Relaxed);
                tx.query("INSERT INTO entries (id) VALUES ($1)").bind(id).execute(ctx).await
            })
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error:?}");
        assert!(error.is::<CommitUnknown>(), "{error:?}");
        assert_eq!(attempts.load(Ordering::Relaxed), 1);
        fragile.close(ctx).await;
        while reaches_the_server && db.read("SELECT COUNT(*) FROM entries").one::<i64>(ctx).await? == 0 {
            tokio::task::yield_now().await; // it happened, whatever we were told
        }
    }
    Ok(())
}

/// A handle whose connections break at their first COMMIT, before the server has read it or before it answers.
pub(crate) async fn connected_through_a_proxy(
    ctx: &Context,
    settings: &DatabaseSettings,
    reaches_the_server: bool,
) -> Result<Db> {
    let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let (scheme, rest) = settings.url.expose().split_once("://").expect("a URL");
    let (user, rest) = rest.split_once('@').expect("a user");
    let (server, database) = rest.split_once('/').expect("a database");
    // The proxy has to be able to read what it breaks.
    let and = if database.contains('?') { '&' } else { '?' };
    let url = format!("{scheme}://{user}@{}/{database}{and}sslmode=disable", proxy.local_addr()?);
    let server = server.to_owned();
    tokio::spawn(async move {
        while let Ok((client, _)) = proxy.accept().await {
            tokio::spawn(break_at_commit(client, server.clone(), reaches_the_server));
        }
    });
    let fragile = Db::new(&DatabaseSettings::from_url(url), &Metrics::new())?;
    fragile.connect(ctx).await?;
    Ok(fragile)
}

/// Carries bytes both ways until the client says COMMIT.
async fn break_at_commit(mut client: TcpStream, server: String, reaches_the_server: bool) -> std::io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    let (mut asked, mut answered) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let bytes = &asked[..read?];
                let commit = bytes.windows(6).any(|word| word.eq_ignore_ascii_case(b"commit"));
                if bytes.is_empty() || (commit && !reaches_the_server) {
                    return Ok(());
                }
                server.write_all(bytes).await?;
                if commit {
                    let _ = server.read(&mut answered).await?; // the server is done; nobody hears of it
                    return Ok(());
                }
            }
            read = server.read(&mut answered) => {
                let bytes = &answered[..read?];
                if bytes.is_empty() {
                    return Ok(());
                }
                client.write_all(bytes).await?;
            }
        }
    }
}
