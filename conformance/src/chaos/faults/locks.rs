//! Others in the same database: who hold connections, leases, transactions and locks.

use std::sync::Arc;

use mainstay::prelude::*;
use mainstay::sql::{Dialect, Isolation, TxOptions};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::{Fault, Plan, everywhere, on_servers};
use crate::chaos::cell::Cell;
use crate::chaos::fleet::INTERLEAVED as PAIR;
use crate::chaos::form::Form;

/// 5: handlers, relay and publishers wait for a connection.
pub(super) const POOL_EXHAUSTED: Fault = Fault {
    number: "5c",
    name: "pool_exhausted",
    title: "every connection of the pool held, again and again",
    on: everywhere,
    plan: hogs,
    inflict: |cell| Box::pin(hog(cell)),
};

/// 9: events pile up in the outbox, and go out in order when somebody may move them again.
pub(super) const RELAY_DOWN: Fault = Fault {
    number: "9",
    name: "relay_down",
    title: "relay down for long (its leases held by a process that does nothing), then resumed",
    on: everywhere,
    plan: super::usual,
    inflict: |cell| Box::pin(relay_down(cell)),
};

/// 10: both scripts that turn an order around.
pub(super) const INTERLEAVED: Fault = Fault {
    number: "10",
    name: "interleaved",
    title: "two transactions of one key that begin in one order and commit in the other",
    on: |dialect| on_servers(dialect, "it has one writer: the second transaction begins when the first has ended"),
    plan: |_, form| Plan { keys: 8, ..Plan::new(form) }.with("RIG_PART__INTERLEAVE", true).with("RIG_PART__TASKS", 2),
    inflict: |cell| Box::pin(interleave(cell)),
};

/// 11: a report that runs for an hour.
pub(super) const HELD_OPEN: Fault = Fault {
    number: "11",
    name: "held_open",
    title: "a transaction held open with its snapshot under load (SQLite: one that reads)",
    on: everywhere,
    plan: super::usual,
    inflict: |cell| Box::pin(hold(cell)),
};

/// 18: whoever loses a conflict runs again, and no user sees it.
pub(super) const STORM: Fault = Fault {
    number: "18",
    name: "storm",
    title: "storm of conflicts: deadlocks (MariaDB), serialization failures (PostgreSQL), eight processes on one file \
            (SQLite)",
    on: everywhere,
    plan: storm_plan,
    inflict: |cell| Box::pin(storm(cell)),
};

fn hogs(dialect: Dialect, form: Form) -> Plan {
    match dialect {
        // One writer for all processes, and one that is idle in a transaction for longer than 100 ms loses it.
        Dialect::Sqlite => Plan::new(form).with("RIG_PART__HOGS", 1).with("RIG_PART__HOLD", 80),
        _ => Plan::new(form).with("RIG_PART__HOGS", 4).with("RIG_DATABASE__MAX_CONNECTIONS", 4),
    }
}

async fn hog(cell: &mut Cell) -> Result<()> {
    cell.until_sent().await;
    cell.injected = count(cell, "held a connection");
    Ok(())
}

async fn relay_down(cell: &mut Cell) -> Result<()> {
    let rounds = cell.form.of(1, 5);
    let ctx = Context::background();
    let me = Uuid::new_v4();
    for round in 1..=rounds {
        // By the database's clock and for an hour, so that nobody may take them over meanwhile.
        let seize = sql! {
            sqlite: "UPDATE mainstay_event_leases SET owner = $1, epoch = epoch + 1, \
                     until_at = CAST(unixepoch('subsec') * 1000 AS INTEGER) + 3600000 WHERE name = ''",
            postgres: "UPDATE mainstay_event_leases SET owner = $1, epoch = epoch + 1, \
                       until_at = (extract(epoch FROM clock_timestamp()) * 1000)::bigint + 3600000 WHERE name = ''",
            mysql: "UPDATE mainstay_event_leases SET owner = $1, epoch = epoch + 1, \
                    until_at = TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000 + 3600000 \
                    WHERE name = ''",
        };
        cell.injected += cell.db.query(seize).bind(me).execute(&ctx).await?;
        let target = cell.form.target;
        let due = target * usize::try_from(round).unwrap_or(1) / usize::try_from(rounds).unwrap_or(1);
        cell.until("producing without a relay", move |cell| Box::pin(async move { cell.sent().await >= due })).await;
        let waiting = cell.depths().await.map_or(0, |depths| depths.outbox);
        if waiting == 0 {
            cell.failures.push("events went on though all leases of the relay were held".to_owned());
        }
        let release = "UPDATE mainstay_event_leases SET until_at = 0 WHERE name = '' AND owner = $1";
        cell.db.query(release).bind(me).execute(&ctx).await?;
        cell.breathe(500..1_000).await;
    }
    Ok(())
}

async fn interleave(cell: &mut Cell) -> Result<()> {
    cell.until_sent().await;
    cell.injected = count(cell, PAIR);
    Ok(())
}

async fn hold(cell: &mut Cell) -> Result<()> {
    let holder = Holder::take(cell).await?;
    cell.inflicted();
    cell.until_sent().await;
    // Delivery goes on while it is held: all of these are applied now, not when it ends.
    let sent = cell.sent().await;
    cell.until("applying beside an open transaction", move |cell| {
        Box::pin(async move { cell.applied().await >= sent })
    })
    .await;
    if !holder.release().await? {
        cell.failures.push("the transaction didn't keep its snapshot".to_owned());
    }
    Ok(())
}

/// A transaction that stays open.
enum Holder {
    /// On a connection of its own, past the limits that Mainstay sets to transactions.
    File { connection: rusqlite::Connection, seen: i64 },
    /// With a snapshot and something written.
    Server { release: Arc<Notify>, holding: JoinHandle<Result<bool>> },
}

const SEEN: &str = "SELECT count(*) FROM applied";

impl Holder {
    async fn take(cell: &Cell) -> Result<Self> {
        if cell.store.dialect == Dialect::Sqlite {
            let path = cell.store.url().trim_start_matches("sqlite://");
            let connection = rusqlite::Connection::open(path).map_err(Error::from_any)?;
            connection.execute_batch("BEGIN").map_err(Error::from_any)?;
            let seen = connection.query_row(SEEN, [], |row| row.get(0)).map_err(Error::from_any)?;
            return Ok(Self::File { connection, seen });
        }
        let db = cell.store.connect().await?;
        let (held, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let holding = tokio::spawn(hold_open(db, held.clone(), release.clone()));
        held.notified().await;
        Ok(Self::Server { release, holding })
    }

    /// Ends it: whether it saw at the end what it saw at the beginning.
    async fn release(self) -> Result<bool> {
        match self {
            Self::File { connection, seen } => {
                let now: i64 = connection.query_row(SEEN, [], |row| row.get(0)).map_err(Error::from_any)?;
                Ok(now == seen)
            }
            Self::Server { release, holding } => {
                release.notify_one();
                holding.await.map_err(Error::from_any)?
            }
        }
    }
}

async fn hold_open(db: Db, held: Arc<Notify>, release: Arc<Notify>) -> Result<bool> {
    let (ctx, held, release) = (&Context::background(), &held, &release);
    let options = TxOptions::new().isolation(Isolation::RepeatableRead);
    let kept = db
        .transaction_with(ctx, options, |tx| async move {
            tx.query("INSERT INTO scratch (n) VALUES (1)").execute(ctx).await?;
            let before: i64 = tx.query(SEEN).one(ctx).await?;
            held.notify_one();
            release.notified().await;
            Ok(before == tx.query(SEEN).one::<i64>(ctx).await?)
        })
        .await;
    db.close(ctx).await;
    kept
}

fn storm_plan(dialect: Dialect, form: Form) -> Plan {
    // To be counted, conflicts have to be told of.
    let plan = Plan { no_refusals: true, keys: 5, ..Plan::new(form) };
    let plan = plan.with("RIG_LOG__FILTER", "info,mainstay::sql=debug");
    match dialect {
        // Who is passed over waits for ever; eight processes on a machine that is busy otherwise, for some seconds.
        Dialect::Sqlite => {
            let plan = Plan { workers: 4, producers: 4, rate: form.rate / 4, ..plan };
            plan.with("RIG_DATABASE__ACQUIRE_TIMEOUT", "15s")
        }
        Dialect::Postgres => plan.with("RIG_PART__SERIALIZABLE", true),
        Dialect::Mysql => plan.with("RIG_PART__SHUFFLE", true),
    }
}

async fn storm(cell: &mut Cell) -> Result<()> {
    if cell.store.dialect == Dialect::Sqlite {
        cell.injected = u64::try_from(cell.fleet.everyone().len()).unwrap_or(0);
        cell.until_sent().await;
        return Ok(());
    }
    let times = cell.form.of(5, 200);
    cell.until("conflicts", move |cell| {
        Box::pin(async move {
            cell.injected = count(cell, "runs again after a conflict");
            !cell.goes_on(times).await
        })
    })
    .await;
    Ok(())
}

fn count(cell: &Cell, text: &str) -> u64 {
    u64::try_from(cell.fleet.lines(text).len()).unwrap_or(u64::MAX)
}
