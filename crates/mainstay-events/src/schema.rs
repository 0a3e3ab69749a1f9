//! The tables: made, and looked at, when events start.

use mainstay_core::{Context, Error, Result};
use mainstay_sql::migrate::{Migrations, Migrator};
use mainstay_sql::{Db, Sql, Tx, sql, values};

use crate::clock::clocked;
use crate::consumer::{Group, Start};
use crate::intake::INTAKE;
use crate::lease::{RELAY, options};

const MIGRATIONS: Migrations = mainstay_sql::migrations!("migrations");

/// The framework's tables have numbers of their own, beside those of the service's migrations.
const MIGRATIONS_TABLE: &str = "mainstay_event_migrations";

pub(crate) fn migrator(db: &Db) -> Migrator {
    Migrator::new(db, MIGRATIONS).in_table(MIGRATIONS_TABLE)
}

/// Makes the partitions unless they are there, and returns how many there are.
pub(crate) async fn partitions(ctx: &Context, db: &Db, wanted: u32) -> Result<u32> {
    let wanted = i64::from(wanted);
    let count: i64 = db
        .transaction_with(ctx, options(), |tx| async move {
            let there: i64 = tx.query("SELECT count(*) FROM mainstay_event_partitions").one(ctx).await?;
            if there > 0 {
                return Ok(there);
            }
            // Two processes that start at once write the same rows: the second waits, finds them and changes nothing.
            // It has to see them, which on MySQL a snapshot from before the wait would not let it.
            let rows = || (0..wanted).map(|part| values![part]);
            insert_new(ctx, &tx, "mainstay_event_partitions", "(part)", "(part)", rows()).await?;
            tx.query("SELECT count(*) FROM mainstay_event_partitions").one(ctx).await
        })
        .await?;
    if count != wanted {
        tracing::warn!(
            target: "mainstay::events",
            wanted,
            count,
            "events.partitions differs from the number that the tables were made with, which stays"
        );
    }
    for name in [RELAY, INTAKE] {
        leases(ctx, db, name, count).await?;
    }
    u32::try_from(count).map_err(|_| Error::data_loss("mainstay_event_partitions has too many rows"))
}

/// How many partitions there are; 0 before a first start.
pub(crate) async fn count_partitions(ctx: &Context, db: &Db) -> Result<u32> {
    let count: i64 = db.query("SELECT count(*) FROM mainstay_event_partitions").one(ctx).await?;
    u32::try_from(count).map_err(|_| Error::data_loss("mainstay_event_partitions has too many rows"))
}

/// Makes the rows of a group that is new, and says how far behind a known one is out of reach.
pub(crate) async fn group(ctx: &Context, db: &Db, group: &Group, partitions: u32) -> Result<()> {
    leases(ctx, db, group.name, i64::from(partitions)).await?;
    let (name, start) = (group.name, group.start);
    db.transaction_with(ctx, options(), |tx| async move {
        let insert = clocked![
            "INSERT INTO mainstay_event_groups (grp, seen_at) SELECT $1, ",
            " WHERE NOT EXISTS (SELECT 1 FROM mainstay_event_groups WHERE grp = $1)"
        ];
        let is_new = match tx.query(insert).bind(name).execute(ctx).await {
            Ok(inserted) => inserted == 1,
            // Another process was between the look and the write: it makes the rows.
            Err(error) if error.code() == mainstay_core::Code::AlreadyExists => {
                return Err(Error::unavailable("again"));
            }
            Err(error) => return Err(error),
        };
        if is_new {
            let cursors = match start {
                Start::Latest => {
                    "INSERT INTO mainstay_event_cursors (grp, part, off) \
                     SELECT $1, p.part, p.next_off FROM mainstay_event_partitions p"
                }
                Start::Earliest => {
                    "INSERT INTO mainstay_event_cursors (grp, part, off) \
                     SELECT $1, p.part, coalesce((SELECT min(l.off) FROM mainstay_event_log l WHERE l.part = p.part), \
                     p.next_off) FROM mainstay_event_partitions p"
                }
            };
            tx.query(cursors).bind(name).execute(ctx).await?;
        }
        Ok(())
    })
    .await?;
    seen(ctx, db, name).await?;
    tell_of_gaps(ctx, db, name).await
}

/// Notes that a process runs the group.
pub(crate) async fn seen(ctx: &Context, db: &Db, group: &str) -> Result<()> {
    let seen = clocked!["UPDATE mainstay_event_groups SET seen_at = ", " WHERE grp = $1"];
    db.query(seen).bind(group).execute(ctx).await.map(drop)
}

/// Events that were removed while a group was away for longer than `events.group_expiry` can't come back: say so.
async fn tell_of_gaps(ctx: &Context, db: &Db, group: &str) -> Result<()> {
    let gaps = "SELECT c.part, coalesce((SELECT min(l.off) FROM mainstay_event_log l WHERE l.part = c.part), p.next_off) \
                - c.off FROM mainstay_event_cursors c JOIN mainstay_event_partitions p ON p.part = c.part \
                WHERE c.grp = $1 AND c.off < p.next_off";
    for (part, missing) in db.read(gaps).bind(group).all::<(i64, i64)>(ctx).await? {
        if missing > 0 {
            tracing::error!(
                target: "mainstay::events",
                group, part, missing,
                "events were removed before the group applied them: it was away for longer than events.group_expiry"
            );
        }
    }
    Ok(())
}

async fn leases(ctx: &Context, db: &Db, name: &'static str, partitions: i64) -> Result<()> {
    db.transaction_with(ctx, options(), |tx| async move {
        let count = "SELECT count(*) FROM mainstay_event_leases WHERE name = $1";
        let there: i64 = tx.query(count).bind(name).one(ctx).await?;
        if there == partitions {
            return Ok(());
        }
        let rows = (0..partitions).map(|part| values![name, part]);
        insert_new(ctx, &tx, "mainstay_event_leases", "(name, part)", "(name, part)", rows).await
    })
    .await
}

/// Inserts the rows that aren't there.
pub(crate) async fn insert_new(
    ctx: &Context,
    tx: &Tx,
    table: &'static str,
    columns: &'static str,
    key: &'static str,
    rows: impl Iterator<Item = Vec<mainstay_sql::Value>>,
) -> Result<()> {
    let mysql = tx.dialect() == mainstay_sql::Dialect::Mysql;
    let start = if mysql { "INSERT IGNORE INTO " } else { "INSERT INTO " };
    let mut insert = Sql::new(start).push(table).push(" ").push(columns).push_values(rows);
    if !mysql {
        insert = insert.push(" ON CONFLICT ").push(key).push(" DO NOTHING");
    }
    tx.query(insert).execute(ctx).await.map(drop)
}

/// Whether a group was told to pause.
pub(crate) async fn paused(ctx: &Context, db: &Db) -> Result<Vec<String>> {
    let paused = sql! {
        postgres: "SELECT grp FROM mainstay_event_groups WHERE paused",
        _: "SELECT grp FROM mainstay_event_groups WHERE paused <> 0",
    };
    db.read(paused).all(ctx).await
}
