//! What the supervisor reads in the database: how far the run is, what it left behind.

use mainstay::prelude::*;
use mainstay::sql::{FromRow, sql};
use serde::Deserialize;

use super::history::{Applied, History, Parked, Sent, Temper};

/// How many rows stand where.
#[derive(Clone, Copy, Debug, Default, Eq, FromRow, PartialEq)]
pub struct Depths {
    /// Published and not moved.
    pub outbox: i64,
    /// To be tried again, and what waits behind them.
    pub retries: i64,
    /// Given up.
    pub dead: i64,
    /// Partitions of groups whose cursor is not at the end.
    pub behind: i64,
    /// The log.
    pub log: i64,
    /// Members of groups.
    pub members: i64,
    /// Leases.
    pub leases: i64,
}

impl Depths {
    /// Nothing is left to do.
    pub fn quiet(&self) -> bool {
        self.outbox + self.retries + self.behind == 0
    }
}

const DEPTHS: &str = "SELECT (SELECT count(*) FROM mainstay_outbox) AS outbox,
    (SELECT count(*) FROM mainstay_event_retries) AS retries,
    (SELECT count(*) FROM mainstay_dead_letters) AS dead,
    (SELECT count(*) FROM mainstay_event_groups g CROSS JOIN mainstay_event_partitions p
        LEFT JOIN mainstay_event_cursors c ON c.grp = g.grp AND c.part = p.part
        WHERE p.next_off > COALESCE(c.off, 0)) AS behind,
    (SELECT count(*) FROM mainstay_event_log) AS log,
    (SELECT count(*) FROM mainstay_event_members) AS members,
    (SELECT count(*) FROM mainstay_event_leases) AS leases";

/// Where events are now, in one look.
///
/// # Errors
/// Those of a statement.
pub async fn depths(db: &Db, ctx: &Context) -> Result<Depths> {
    db.read(DEPTHS).one(ctx).await
}

/// How many events were committed.
///
/// # Errors
/// Those of a statement.
pub async fn sent(db: &Db, ctx: &Context) -> Result<usize> {
    let count: i64 = db.read("SELECT count(*) FROM sent").one(ctx).await?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// How many events took effect.
///
/// # Errors
/// Those of a statement.
pub async fn applied(db: &Db, ctx: &Context) -> Result<usize> {
    let count: i64 = db.read("SELECT count(*) FROM applied").one(ctx).await?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// How many events have ever waited for another try, by the numbers that were given to them. Each process that falls silent
/// leaves some there, and each failure; one that has ended in order leaves none.
///
/// # Errors
/// Those of a statement.
pub async fn ever_waited(db: &Db, ctx: &Context) -> Result<i64> {
    let given = sql! {
        sqlite: "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'mainstay_event_retries'",
        postgres: "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM mainstay_event_retries_pos_seq",
        mysql: "SELECT CAST(coalesce(AUTO_INCREMENT, 1) AS SIGNED) - 1 FROM information_schema.TABLES \
                WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'mainstay_event_retries'",
    };
    db.read(given).one(ctx).await
}

/// Makes the counters that give each key its numbers.
///
/// # Errors
/// Those of a statement.
pub async fn seed_keys(db: &Db, ctx: &Context, keys: impl IntoIterator<Item = String>) -> Result<()> {
    let rows = keys.into_iter().map(|key| values![key]);
    db.query("INSERT INTO key_counters (event_key, kseq) VALUES ($1, 0)").batch(ctx, rows).await.map(drop)
}

/// All that was written down. What only the producers know is added by who reads their logs.
///
/// # Errors
/// Those of a statement, and a payload that isn't ours.
pub async fn history(db: &Db, ctx: &Context) -> Result<History> {
    type SentRow = (Uuid, String, String, i64, i64);
    let sent: Vec<SentRow> = db.read("SELECT event_id, event_type, event_key, kseq, temper FROM sent").all(ctx).await?;
    type AppliedRow = (i64, String, Uuid, String, i64, String);
    let applied = "SELECT id, grp, event_id, event_key, kseq, worker FROM applied ORDER BY id";
    let applied: Vec<AppliedRow> = db.read(applied).all(ctx).await?;
    type ParkedRow = (String, Vec<u8>, i64, Option<String>);
    let retries: Vec<ParkedRow> =
        db.read("SELECT grp, payload, attempt, error FROM mainstay_event_retries").all(ctx).await?;
    let dead: Vec<ParkedRow> =
        db.read("SELECT grp, payload, attempts, error FROM mainstay_dead_letters").all(ctx).await?;
    let parked = |(group, payload, attempts, error): ParkedRow| {
        let OnlyId { event_id } = serde_json::from_slice(&payload)
            .map_err(|error| Error::internal("a payload of another kind").with_source(error))?;
        Ok(Parked { group, event_id, attempts, error: error.unwrap_or_default() })
    };
    Ok(History {
        sent: sent
            .into_iter()
            .map(|(event_id, event_type, key, kseq, temper)| {
                let temper = Temper::from_code(temper);
                Sent { event_id, event_type, key, kseq, temper }
            })
            .collect(),
        applied: applied
            .into_iter()
            .map(|(position, group, event_id, key, kseq, worker)| Applied {
                position,
                group,
                event_id,
                key,
                kseq,
                worker,
            })
            .collect(),
        retries: retries.into_iter().map(parked).collect::<Result<_>>()?,
        dead: dead.into_iter().map(parked).collect::<Result<_>>()?,
        ..History::default()
    })
}

#[derive(Deserialize)]
struct OnlyId {
    event_id: Uuid,
}
