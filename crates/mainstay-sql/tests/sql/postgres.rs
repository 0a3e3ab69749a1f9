//! What only PostgreSQL has, or only there can be looked at from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mainstay_core::{Code, Context, Result};
use mainstay_sql::testing::Scene;
use mainstay_sql::{DatabaseError, DatabaseErrorKind, DatabaseSettings, Db, Isolation, Sql, TxOptions, Value, values};
use mainstay_telemetry::Metrics;
use rust_decimal::Decimal;
use tokio::sync::Barrier;

pub(crate) async fn a_serialization_failure_is_aborted(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query("CREATE TABLE shifts (doctor TEXT PRIMARY KEY, on_call BOOLEAN NOT NULL)").execute(&ctx).await?;
    db.query("INSERT INTO shifts VALUES ($1, true)").batch(&ctx, [values!["ada"], values!["bob"]]).await?;
    let both_have_read = Arc::new(Barrier::new(2));
    let attempts = Arc::new(AtomicU32::new(0));
    // Each may leave if somebody else stays: the textbook's write skew.
    let leave = |doctor: &'static str| {
        let (db, ctx, barrier, attempts) = (db.clone(), ctx.clone(), both_have_read.clone(), attempts.clone());
        tokio::spawn(async move {
            let (ctx, barrier, attempts, first) = (&ctx, &*barrier, &*attempts, &AtomicU32::new(0));
            let serializable = TxOptions::new().isolation(Isolation::Serializable);
            db.transaction_with(ctx, serializable, |tx| async move {
                attempts.fetch_add(1, Ordering::Relaxed);
                let on_call: i64 = tx.query("SELECT COUNT(*) FROM shifts WHERE on_call").one(ctx).await?;
                if first.fetch_add(1, Ordering::Relaxed) == 0 {
                    barrier.wait().await;
                }
                if on_call > 1 {
                    tx.query("UPDATE shifts SET on_call = false WHERE doctor = $1").bind(doctor).execute(ctx).await?;
                }
                Ok(())
            })
            .await
        })
    };
    let (ada, bob) = (leave("ada"), leave("bob"));
    ada.await.unwrap()?;
    bob.await.unwrap()?;
    assert_eq!(db.read("SELECT COUNT(*) FROM shifts WHERE on_call").one::<i64>(&ctx).await?, 1);
    assert!(attempts.load(Ordering::Relaxed) >= 3);
    Ok(())
}

pub(crate) async fn a_cancelled_statement_has_stopped_on_the_server(Scene { db, ctx, .. }: Scene) -> Result<()> {
    let (cancelled, cancel) = ctx.with_cancel();
    let running = tokio::spawn({
        let db = db.clone();
        async move { db.query("SELECT pg_sleep(600) /* to be cancelled */").execute(&cancelled).await }
    });
    let active = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' \
                  AND query LIKE '%to be cancelled%' AND pid <> pg_backend_pid()";
    until(&db, &ctx, active, 1).await?;
    cancel.cancel();
    assert_eq!(running.await.unwrap().unwrap_err().code(), Code::Cancelled);
    until(&db, &ctx, active, 0).await
}

/// A cancel request reaches the server by another connection: it must not arrive when the next statement runs.
pub(crate) async fn late_cancels_never_hit_the_next_user(Scene { ctx, mut settings, .. }: Scene) -> Result<()> {
    settings.max_connections = 2;
    settings.acquire_timeout = Duration::from_secs(30);
    let db = Db::new(&settings, &Metrics::new())?;
    db.connect(&ctx).await?;
    let callers = (0..4_u64).map(|caller| {
        let (db, ctx) = (db.clone(), ctx.clone());
        tokio::spawn(async move {
            for round in 0..60_u64 {
                let patience = Duration::from_micros((round * 97 + caller * 31) % 3_000);
                let short = ctx.with_timeout(patience);
                let _ = db.query("SELECT pg_sleep(0.001)").execute(&short).await;
                let rows = db.query("SELECT COUNT(*) FROM generate_series(1, 3000)").one::<i64>(&ctx).await?;
                assert_eq!(rows, 3_000);
            }
            Ok::<_, mainstay_core::Error>(())
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap()?;
    }
    db.close(&ctx).await;
    Ok(())
}

pub(crate) async fn a_changed_table_is_prepared_again(Scene { ctx, mut settings, .. }: Scene) -> Result<()> {
    settings.max_connections = 1;
    let db = Db::new(&settings, &Metrics::new())?;
    db.connect(&ctx).await?;
    let (db, ctx) = (&db, &ctx);
    db.query("CREATE TABLE growing (a INTEGER)").execute(ctx).await?;
    db.query("INSERT INTO growing VALUES (1)").execute(ctx).await?;
    let all = "SELECT * FROM growing";
    assert_eq!(db.query(all).one::<(i32,)>(ctx).await?, (1,));
    db.query("ALTER TABLE growing ADD COLUMN b INTEGER DEFAULT 2").execute(ctx).await?;
    assert_eq!(db.query(all).one::<(i32, i32)>(ctx).await?, (1, 2));
    db.query("ALTER TABLE growing ADD COLUMN c INTEGER DEFAULT 3").execute(ctx).await?;
    let inside = db.transaction(ctx, |tx| async move { tx.query(all).one::<(i32, i32, i32)>(ctx).await }).await;
    assert_eq!(inside?, (1, 2, 3));
    db.query("ALTER TABLE growing ADD COLUMN d INTEGER DEFAULT 4").execute(ctx).await?;
    let streamed = futures_util::StreamExt::next(&mut db.read(all).stream::<(i32, i32, i32, i32)>(ctx)).await;
    assert_eq!(streamed.unwrap()?, (1, 2, 3, 4));
    db.close(ctx).await;
    Ok(())
}

pub(crate) async fn domains_enums_and_text_types_are_text(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query("CREATE TYPE mood AS ENUM ('sad', 'happy')").execute(&ctx).await?;
    db.query("CREATE DOMAIN small AS SMALLINT CHECK (VALUE < 100)").execute(&ctx).await?;
    db.query("CREATE TABLE people (name VARCHAR(20), code CHAR(3), mood mood, age small, pause INTERVAL)")
        .execute(&ctx)
        .await?;
    let insert = "INSERT INTO people VALUES ($1, $2, $3, $4, $5)";
    let row = values!["Ada", "abc", "happy", 36, "1 hour 30 minutes"];
    db.query(insert).bind_all(row).execute(&ctx).await?;
    let read: (String, String, String, i16, String) = db
        .read("SELECT name, code, mood, age, pause::text FROM people WHERE mood = $1")
        .bind("happy")
        .one(&ctx)
        .await?;
    assert_eq!(read, ("Ada".into(), "abc".into(), "happy".into(), 36, "01:30:00".into()));
    let moods: Vec<String> = db.read("SELECT ARRAY['sad', 'happy']::mood[]").one(&ctx).await?;
    assert_eq!(moods, ["sad", "happy"]);
    let bound: bool = db.read("SELECT 'sad'::mood = ANY($1)").bind(moods).one(&ctx).await?;
    assert!(bound);
    let error = db.query(insert).bind_all(values!["Bob", "x", "angry", 1, "1 day"]).execute(&ctx).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    let error = db.read("SELECT pause FROM people").one::<Value>(&ctx).await.unwrap_err();
    assert!(error.report().to_string().contains("::text"), "{error:?}");
    Ok(())
}

pub(crate) async fn what_does_not_fit_is_told_by_number(Scene { ctx, mut settings, .. }: Scene) -> Result<()> {
    settings.max_connections = 1;
    let db = Db::new(&settings, &Metrics::new())?;
    db.connect(&ctx).await?;
    db.query("CREATE TABLE narrow (a SMALLINT, b INTEGER, c UUID)").execute(&ctx).await?;
    let insert = "INSERT INTO narrow VALUES ($1, $2, $3)";
    for (row, words) in [
        (values![70_000, 1, None::<&str>], "parameter $1: an integer"),
        (values![1, i64::MAX, None::<&str>], "parameter $2: an integer"),
        (values![1, 1, 5], "parameter $3: an integer"),
        (values![true, 1, None::<&str>], "parameter $1: a truth value"),
    ] {
        let error = db.query(insert).bind_all(row).execute(&ctx).await.unwrap_err();
        assert!(error.report().to_string().contains(words), "{error:?}");
    }
    // Nothing was sent, so nothing is wrong with the connection, or with a transaction.
    let ctx = &ctx;
    db.transaction(ctx, |tx| async move {
        assert!(tx.query(insert).bind_all(values![70_000, 1, None::<&str>]).execute(ctx).await.is_err());
        tx.query(insert).bind_all(values![1, 2, None::<&str>]).execute(ctx).await
    })
    .await?;
    assert_eq!(db.read("SELECT COUNT(*) FROM narrow").one::<i64>(ctx).await?, 1);
    db.close(ctx).await;
    Ok(())
}

pub(crate) async fn numeric_is_exact(Scene { db, ctx, .. }: Scene) -> Result<()> {
    for text in ["0", "-0.0001", "12345678901234567890.12345678", "10000", "100000000.0000", "0.1000"] {
        let number: Decimal = text.parse().unwrap();
        let read: (Decimal, String) = db.read("SELECT $1::numeric, ($1::numeric)::text").bind(number).one(&ctx).await?;
        assert_eq!((read.0, read.1.as_str()), (number, text));
    }
    let sum: i64 = db.read("SELECT SUM(n) FROM generate_series(1, 10) AS n").one(&ctx).await?;
    assert_eq!(sum, 55);
    let third: Decimal = db.read("SELECT 1::numeric / 3").one(&ctx).await?;
    assert_eq!(third.round_dp(5).to_string(), "0.33333");
    for unreadable in ["SELECT 'NaN'::numeric", "SELECT 10::numeric ^ 40"] {
        let error = db.read(unreadable).one::<Decimal>(&ctx).await.unwrap_err();
        assert!(error.report().to_string().contains("cast"), "{error:?}");
    }
    assert!(db.read("SELECT $1 > 1::numeric").bind(1.5).one::<bool>(&ctx).await?);
    Ok(())
}

pub(crate) async fn a_wrong_password_or_database_is_not_worth_another_try(
    Scene { ctx, settings, .. }: Scene,
) -> Result<()> {
    let (base, _) = settings.url.expose().rsplit_once('/').expect("a database in the URL");
    for url in [format!("{base}/no_such_database"), base.replace("postgres@", "no_such_user:secret@") + "/postgres"] {
        let error = Db::new(&DatabaseSettings::from_url(url), &Metrics::new())?.connect(&ctx).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
        let report = format!("{error:?}");
        assert!(report.contains("database url") && !report.contains("secret"), "{report}");
    }
    Ok(())
}

pub(crate) async fn killed_connections_are_replaced(Scene { db, ctx, mut settings, .. }: Scene) -> Result<()> {
    settings.max_connections = 1;
    let victim = Db::new(&settings, &Metrics::new())?;
    victim.connect(&ctx).await?;
    let pid = "SELECT pg_backend_pid()";
    let first: i32 = victim.read(pid).one(&ctx).await?;
    let kill = Sql::new("SELECT pg_terminate_backend(").bind(first).push(")");
    assert!(db.query(kill).one::<bool>(&ctx).await?);
    // A declared read survives that, whether the loss was noticed before or after it was sent.
    let second: i32 = victim.read(pid).one(&ctx).await?;
    assert_ne!(first, second);

    let (victim, db, ctx) = (&victim, &db, &ctx);
    let cut = victim
        .transaction(ctx, |tx| async move {
            let kill = Sql::new("SELECT pg_terminate_backend(").bind(tx.read(pid).one::<i32>(ctx).await?).push(")");
            assert!(
                tokio::spawn({
                    let (db, ctx) = (db.clone(), ctx.clone());
                    async move { db.query(kill).one::<bool>(&ctx).await }
                })
                .await
                .unwrap()?
            );
            tx.query("SELECT 1").execute(ctx).await
        })
        .await;
    let error = cut.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");
    assert_eq!(error.downcast_ref::<DatabaseError>().map(|fault| fault.kind), Some(DatabaseErrorKind::ConnectionLost));
    victim.ping(ctx).await?;
    victim.close(ctx).await;
    Ok(())
}

pub(crate) async fn a_statement_timeout_of_the_server_is_cancelled(
    Scene { ctx, mut settings, .. }: Scene,
) -> Result<()> {
    settings.max_connections = 1;
    let db = Db::new(&settings, &Metrics::new())?;
    db.connect(&ctx).await?;
    db.query("SET statement_timeout = 20").execute(&ctx).await?;
    assert_eq!(db.query("SELECT pg_sleep(600)").execute(&ctx).await.unwrap_err().code(), Code::Cancelled);
    db.query("SET statement_timeout = 0").execute(&ctx).await?;
    db.close(&ctx).await;
    Ok(())
}

/// Asks until the answer is `wanted`; the harness ends a case that waits for ever.
async fn until(db: &Db, ctx: &Context, sql: &'static str, wanted: i64) -> Result<()> {
    while db.read(sql).one::<i64>(ctx).await? != wanted {
        tokio::task::yield_now().await;
    }
    Ok(())
}
