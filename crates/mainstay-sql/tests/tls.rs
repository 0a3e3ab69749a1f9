//! TLS to PostgreSQL and MariaDB, each started here with a certificate made here.

#![allow(clippy::unwrap_used, reason = "a case fails by panicking, and its helpers are no `#[test]` functions")]

use std::process::ExitCode;
use std::time::Duration;

use mainstay_core::{Code, Context, Error, Result};
use mainstay_sql::testing::Harness;
use mainstay_sql::{DatabaseSettings, Db};
use mainstay_telemetry::Metrics;

#[path = "tls/certificates.rs"]
mod certificates;
#[path = "tls/server.rs"]
mod server;
#[path = "tls/wire.rs"]
mod wire;

use server::Private;
use wire::Wire;

fn main() -> ExitCode {
    let (postgres, mariadb) = (server::postgres_is_installed(), server::mariadb_is_installed());
    Harness::new()
        .case_if(postgres.clone(), "postgres::who_is_trusted", async || who_is_trusted(POSTGRES).await)
        .case_if(postgres.clone(), "postgres::without_tls", async || without_tls(POSTGRES).await)
        .case_if(postgres, "postgres::a_cancel_is_encrypted_too", async || cancel(POSTGRES).await)
        .case_if(mariadb.clone(), "mariadb::who_is_trusted", async || who_is_trusted(MARIADB).await)
        .case_if(mariadb.clone(), "mariadb::without_tls", async || without_tls(MARIADB).await)
        .case_if(mariadb, "mariadb::a_cancel_is_encrypted_too", async || cancel(MARIADB).await)
        .run()
}

/// What differs between the two.
#[derive(Clone, Copy)]
struct Kind {
    start: fn(bool) -> Private,
    login: &'static str,
    database: &'static str,
    /// Is 1 if this connection is encrypted.
    is_encrypted: &'static str,
    sleep: &'static str,
    /// How many connections sleep.
    sleepers: &'static str,
    /// How long the client's request for TLS is, in bytes.
    request: usize,
    verify_full: &'static str,
    root: &'static str,
}

const POSTGRES: Kind = Kind {
    start: server::postgres,
    login: "postgres://app:secret@",
    database: "postgres",
    is_encrypted: "SELECT count(*) FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl",
    sleep: "SELECT pg_sleep(100)",
    sleepers: "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(100)' \
               AND pid <> pg_backend_pid()",
    request: 8,
    verify_full: "verify-full",
    root: "sslrootcert",
};

const MARIADB: Kind = Kind {
    start: server::mariadb,
    login: "mysql://root@",
    database: "mysql",
    is_encrypted: "SELECT count(*) FROM information_schema.session_status \
                   WHERE variable_name = 'SSL_CIPHER' AND variable_value <> ''",
    sleep: "SELECT sleep(100)",
    sleepers: "SELECT count(*) FROM information_schema.processlist \
               WHERE info LIKE '%sleep(100)' AND id <> connection_id()",
    request: 36,
    verify_full: "VERIFY_IDENTITY",
    root: "ssl-ca",
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Asks a new connection to `host` whether it is encrypted.
async fn encrypted(kind: Kind, host: &str, port: u16, parameters: &str) -> Result<bool> {
    let ctx = Context::background().with_timeout(PATIENCE);
    let db = connect(&ctx, kind, host, port, parameters).await?;
    let count: i64 = db.read(kind.is_encrypted).one(&ctx).await?;
    db.close(&ctx).await;
    Ok(count == 1)
}

async fn connect(ctx: &Context, kind: Kind, host: &str, port: u16, parameters: &str) -> Result<Db> {
    let url = format!("{}{host}:{port}/{}?{parameters}", kind.login, kind.database);
    let db = Db::new(&DatabaseSettings::from_url(url), &Metrics::new())?;
    db.connect(ctx).await?;
    Ok(db)
}

#[track_caller]
fn is_refused(result: Result<bool>, said: &str) {
    let error: Error = result.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
    assert!(format!("{error:?}").contains(said), "{error:?}");
}

async fn who_is_trusted(kind: Kind) -> Result<()> {
    let server = tokio::task::spawn_blocking(move || (kind.start)(true)).await.unwrap();
    let port = server.port;
    let (full, root) = (kind.verify_full, kind.root);
    let ours = format!("{root}={}", server.path("ca.pem").display());
    let stranger = format!("{root}={}", server.path("stranger.pem").display());

    let by_address = format!("sslmode={full}&{ours}");
    assert!(encrypted(kind, "127.0.0.1", port, &by_address).await?, "the right authority and the right name");
    is_refused(
        encrypted(kind, "127.0.0.1", port, &format!("sslmode={full}&{stranger}")).await,
        "name its authority by sslrootcert",
    );
    is_refused(encrypted(kind, "127.0.0.1", port, &format!("sslmode={full}")).await, "name its authority");
    // The certificate is for the address only.
    is_refused(encrypted(kind, "localhost", port, &by_address).await, "connect by a name that is in the certificate");
    for mode in ["require", "prefer"] {
        assert!(encrypted(kind, "localhost", port, &format!("sslmode={mode}")).await?, "{mode} takes every server");
    }
    assert!(encrypted(kind, "localhost", port, "").await?, "without a word, TLS is taken where it is offered");
    assert!(!encrypted(kind, "localhost", port, "sslmode=disable").await?);
    if kind.database == POSTGRES.database {
        assert!(encrypted(kind, "localhost", port, &format!("sslmode=verify-ca&{ours}")).await?, "under any name");
        assert!(encrypted(kind, "localhost", port, &format!("sslmode=require&{ours}")).await?, "as libpq");
        is_refused(
            encrypted(kind, "localhost", port, &format!("sslmode=require&{stranger}")).await,
            "name its authority",
        );
    }

    let nowhere = format!("sslmode={full}&{root}=/nowhere/ca.pem");
    is_refused(encrypted(kind, "127.0.0.1", port, &nowhere).await, "/nowhere/ca.pem can't be used: No such file");
    let key = format!("sslmode={full}&{root}={}", server.path("tls.key").display());
    is_refused(encrypted(kind, "127.0.0.1", port, &key).await, "there is no certificate in it");
    Ok(())
}

async fn without_tls(kind: Kind) -> Result<()> {
    let server = tokio::task::spawn_blocking(move || (kind.start)(false)).await.unwrap();
    let ours = format!("{}={}", kind.root, server.path("ca.pem").display());
    assert!(!encrypted(kind, "127.0.0.1", server.port, "").await?);
    assert!(!encrypted(kind, "127.0.0.1", server.port, "sslmode=prefer").await?);
    for parameters in ["sslmode=require".to_owned(), format!("sslmode={}&{ours}", kind.verify_full)] {
        is_refused(encrypted(kind, "127.0.0.1", server.port, &parameters).await, "turn TLS on at the server");
    }
    Ok(())
}

/// A deadline stops the statement, and what asks the server to stop it goes over TLS as everything else does.
async fn cancel(kind: Kind) -> Result<()> {
    let server = tokio::task::spawn_blocking(move || (kind.start)(true)).await.unwrap();
    let wire = Wire::to(server.port, kind.request).await;
    let ctx = Context::background().with_timeout(PATIENCE);
    let parameters = format!("sslmode={}&{}={}", kind.verify_full, kind.root, server.path("ca.pem").display());
    let watched = connect(&ctx, kind, "127.0.0.1", wire.port, &parameters).await?;
    let watcher = connect(&ctx, kind, "127.0.0.1", server.port, &parameters).await?;
    let before = wire.encrypted();

    let (sleeping, stop) = ctx.with_cancel();
    let sleep = watched.query(kind.sleep).execute(&sleeping);
    let observe = async {
        while watcher.read(kind.sleepers).one::<i64>(&ctx).await? == 0 {}
        stop.cancel();
        Ok::<_, Error>(())
    };
    let (slept, observed) = tokio::join!(sleep, observe);
    observed?;
    assert_eq!(slept.unwrap_err().code(), Code::Cancelled);
    while watcher.read(kind.sleepers).one::<i64>(&ctx).await? > 0 {}
    assert!(wire.encrypted() > before, "the cancel went past the wire");
    assert_eq!(watched.read(kind.is_encrypted).one::<i64>(&ctx).await?, 1, "and the service goes on");
    for db in [watched, watcher] {
        db.close(&ctx).await;
    }
    Ok(())
}
