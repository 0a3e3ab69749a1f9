//! The embedded broker's log: how events get into it, how groups read it and remember their place, how it stays bounded.

use std::time::Duration;

use mainstay_core::{Context, Error, Result};
use mainstay_sql::{Db, Dialect, FromRow, Sql, Tx, sql};

use crate::clock::{clocked, millis};
use crate::envelope::Record;
use crate::failpoint::failpoint;
use crate::lease::options;

/// Events that one transaction moves out of each partition. Some megabytes at most, and far more than arrive between
/// two looks.
const MOVED_AT_ONCE: i64 = 500;

/// Log rows that one statement removes.
const REMOVED_AT_ONCE: i64 = 1_000;

/// An event in the log.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Entry {
    pub(crate) off: i64,
    #[row(flatten)]
    pub(crate) record: Record,
}

/// How a partition stands.
#[derive(Clone, Copy, Debug, FromRow)]
pub(crate) struct Head {
    pub(crate) part: i32,
    /// The offset that the next event will get.
    pub(crate) next_off: i64,
    /// 1 if the outbox has events for it.
    waiting: i64,
}

impl Head {
    pub(crate) fn has_waiting(&self) -> bool {
        self.waiting != 0
    }
}

pub(crate) async fn heads(ctx: &Context, db: &Db) -> Result<Vec<Head>> {
    let heads = "SELECT p.part, p.next_off, CASE WHEN EXISTS (SELECT 1 FROM mainstay_outbox o WHERE o.part = p.part) \
                 THEN 1 ELSE 0 END AS waiting FROM mainstay_event_partitions p ORDER BY p.part";
    db.read(heads).all(ctx).await
}

/// Moves what waits in the outbox for `parts` into the log, one transaction for all, and returns how many events that
/// were and where the partitions end now.
///
/// The row of a partition is locked first, so that its offsets have no gaps and become visible in their order, whoever
/// else thinks that the partition is theirs. An event is in the outbox or in the log, never in both or in neither.
pub(crate) async fn move_waiting(ctx: &Context, db: &Db, parts: &[i32]) -> Result<(u64, Vec<(i32, i64)>)> {
    failpoint("before-move");
    let moved = db
        .transaction_with(ctx, options(), |tx| async move {
            let (mut total, mut ends) = (0, Vec::new());
            for part in parts {
                let lock = sql! {
                    sqlite: "SELECT next_off FROM mainstay_event_partitions WHERE part = $1",
                    _: "SELECT next_off FROM mainstay_event_partitions WHERE part = $1 FOR UPDATE",
                };
                let next: i64 = tx.query(lock).bind(i64::from(*part)).one(ctx).await?;
                let moved = move_part(ctx, &tx, *part, next).await?;
                if moved > 0 {
                    let advance = "UPDATE mainstay_event_partitions SET next_off = $2 WHERE part = $1";
                    tx.query(advance).bind(i64::from(*part)).bind(next + moved).execute(ctx).await?;
                    ends.push((*part, next + moved));
                    total += moved.unsigned_abs();
                }
            }
            Ok((total, ends))
        })
        .await?;
    failpoint("after-move");
    Ok(moved)
}

async fn move_part(ctx: &Context, tx: &Tx, part: i32, next: i64) -> Result<i64> {
    if tx.dialect() == Dialect::Postgres {
        // One statement: the payloads never leave the server.
        let moved = "WITH moved AS (DELETE FROM mainstay_outbox WHERE id IN \
                     (SELECT id FROM mainstay_outbox WHERE part = $1 ORDER BY id LIMIT $3) \
                     RETURNING id, part, event_id, event_type, topic, event_key, meta, payload, at), \
                     logged AS (INSERT INTO mainstay_event_log \
                     (part, off, event_id, event_type, topic, event_key, meta, payload, at) \
                     SELECT part, $2 + row_number() OVER (ORDER BY id) - 1, event_id, event_type, topic, event_key, \
                     meta, payload, at FROM moved RETURNING off) SELECT count(*) FROM logged";
        return tx.query(moved).bind(i64::from(part)).bind(next).bind(MOVED_AT_ONCE).one(ctx).await;
    }
    // By their ids: an event with a smaller one may be committed between the statements.
    let ids = "SELECT id FROM mainstay_outbox WHERE part = $1 ORDER BY id LIMIT $2";
    let ids: Vec<i64> = tx.query(ids).bind(i64::from(part)).bind(MOVED_AT_ONCE).all(ctx).await?;
    if ids.is_empty() {
        return Ok(0);
    }
    let count = i64::try_from(ids.len()).unwrap_or(i64::MAX);
    let copy = Sql::new(
        "INSERT INTO mainstay_event_log (part, off, event_id, event_type, topic, event_key, meta, payload, at) \
         SELECT part, ",
    )
    .bind(next)
    .push(
        " + row_number() OVER (ORDER BY id) - 1, event_id, event_type, topic, event_key, meta, payload, at \
         FROM mainstay_outbox WHERE",
    )
    .push_in("id", ids.iter().copied());
    let copied = tx.query(copy).execute(ctx).await?;
    let delete = Sql::new("DELETE FROM mainstay_outbox WHERE").push_in("id", ids);
    let deleted = tx.query(delete).execute(ctx).await?;
    if copied != count.unsigned_abs() || deleted != copied {
        return Err(Error::aborted("conflicting changes of the outbox, try again")
            .context(format!("{count} events were to move, {copied} were copied and {deleted} deleted")));
    }
    Ok(count)
}

/// Up to `limit` events from the offset `from` on.
pub(crate) async fn read(ctx: &Context, db: &Db, part: i32, from: i64, limit: u32) -> Result<Vec<Entry>> {
    let read = "SELECT off, event_id, event_type, topic, event_key, meta, payload FROM mainstay_event_log \
                WHERE part = $1 AND off >= $2 ORDER BY off LIMIT $3";
    db.read(read).bind(i64::from(part)).bind(from).bind(i64::from(limit)).all(ctx).await
}

/// Where `group` stands.
pub(crate) async fn cursor(ctx: &Context, db: &Db, group: &str, part: i32) -> Result<i64> {
    let cursor = "SELECT off FROM mainstay_event_cursors WHERE grp = $1 AND part = $2";
    db.query(cursor).bind(group).bind(i64::from(part)).one(ctx).await
}

/// Moves the group's place from `from` to `to`, and keeps everyone else from moving it until the transaction ends.
/// `false`: someone else has moved it meanwhile.
pub(crate) async fn advance(ctx: &Context, tx: &Tx, group: &str, part: i32, from: i64, to: i64) -> Result<bool> {
    failpoint("before-cursor");
    let advance = "UPDATE mainstay_event_cursors SET off = $4 WHERE grp = $1 AND part = $2 AND off = $3";
    let moved = tx.query(advance).bind(group).bind(i64::from(part)).bind(from).bind(to).execute(ctx).await?;
    failpoint("after-cursor");
    Ok(moved == 1)
}

/// Locks the group's place to the end of the transaction without moving it.
pub(crate) async fn hold(ctx: &Context, tx: &Tx, group: &str, part: i32) -> Result<()> {
    let hold = sql! {
        sqlite: "SELECT off FROM mainstay_event_cursors WHERE grp = $1 AND part = $2",
        _: "SELECT off FROM mainstay_event_cursors WHERE grp = $1 AND part = $2 FOR UPDATE",
    };
    tx.query(hold).bind(group).bind(i64::from(part)).execute(ctx).await.map(drop)
}

/// Removes what all groups have applied and is older than `retention`. Groups unseen for `expiry` don't count.
pub(crate) async fn remove_applied(ctx: &Context, db: &Db, retention: Duration, expiry: Duration) -> Result<u64> {
    let applied = clocked![
        "SELECT p.part, coalesce((SELECT min(c.off) FROM mainstay_event_cursors c \
         JOIN mainstay_event_groups g ON g.grp = c.grp WHERE c.part = p.part AND g.seen_at > ",
        " - $1), p.next_off), ",
        " FROM mainstay_event_partitions p ORDER BY p.part"
    ];
    let mut removed = 0;
    for (part, applied, now) in db.read(applied).bind(millis(expiry)).all::<(i64, i64, i64)>(ctx).await? {
        let old = now - millis(retention);
        loop {
            let oldest = "SELECT off, at FROM mainstay_event_log WHERE part = $1 AND off < $2 ORDER BY off LIMIT $3";
            let oldest: Vec<(i64, i64)> =
                db.read(oldest).bind(part).bind(applied).bind(REMOVED_AT_ONCE).all(ctx).await?;
            let Some((last, _)) = oldest.iter().take_while(|(_, at)| *at <= old).last() else { break };
            let remove = "DELETE FROM mainstay_event_log WHERE part = $1 AND off <= $2";
            removed += db.query(remove).bind(part).bind(*last).execute(ctx).await?;
            if i64::try_from(oldest.len()).unwrap_or(i64::MAX) < REMOVED_AT_ONCE {
                break;
            }
        }
    }
    Ok(removed)
}
