//! The embedded broker's log: how events get into it, how groups read it and remember their place, how it stays bounded.

use std::time::Duration;

use mainstay_core::{Context, Error, Result};
use mainstay_sql::{Db, Dialect, FromRow, Sql, Tx, sql, values};
use uuid::Uuid;

use crate::clock::{clocked, millis};
use crate::failpoint::failpoint;
use crate::lease::options;
use crate::message::Message;
use crate::route::Turn;
use crate::{intake, retry};

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
    pub(crate) record: Message,
}

/// How a partition stands.
#[derive(Clone, Copy, Debug, FromRow)]
pub(crate) struct Head {
    pub(crate) part: i32,
    /// The offset that the next event will get.
    pub(crate) next_off: i64,
    /// 1 if the outbox has events for it.
    waiting: i64,
    /// See [`Turn`].
    turn: i64,
}

impl Head {
    pub(crate) fn has_waiting(&self) -> bool {
        self.waiting != 0
    }

    pub(crate) fn turn(&self) -> Turn {
        self.turn.into()
    }
}

/// How each partition stands, and whether it is the turn of the route `ours`. The one row is asked for by its id: PostgreSQL
/// takes a small table that it has no statistics of for one of 170 rows, and 340,000 results for worth 0.2 s of compiling.
pub(crate) async fn heads(ctx: &Context, db: &Db, ours: &str) -> Result<Vec<Head>> {
    let heads = "SELECT p.part, p.next_off, CASE WHEN EXISTS (SELECT 1 FROM mainstay_outbox o WHERE o.part = p.part) \
                 THEN 1 ELSE 0 END AS waiting, CASE WHEN r.route <> $1 THEN 0 WHEN r.next_route IS NOT NULL THEN 1 \
                 ELSE 2 END AS turn FROM mainstay_event_partitions p CROSS JOIN mainstay_event_route r \
                 WHERE r.id = 1 ORDER BY p.part";
    db.read(heads).bind(ours).all(ctx).await
}

/// The last event of the outbox.
pub(crate) async fn last_waiting(ctx: &Context, db: &Db) -> Result<Option<i64>> {
    db.query("SELECT max(id) FROM mainstay_outbox").one(ctx).await
}

/// The first event that waits in the outbox for `parts`.
pub(crate) async fn first_waiting(ctx: &Context, db: &Db, parts: Vec<i32>) -> Result<Option<i64>> {
    if parts.is_empty() {
        return Ok(None);
    }
    db.query(Sql::new("SELECT min(id) FROM mainstay_outbox WHERE").push_in("part", parts)).one(ctx).await
}

/// Moves what waits in the outbox for `parts` into the log, one transaction for all, and returns how many events that
/// were and where the partitions end now.
///
/// The row of a partition is locked first, so that its offsets have no gaps and become visible in their order, whoever
/// else thinks that the partition is theirs. An event is in the outbox or in the log, never in both or in neither. The
/// route is locked with it: nothing moves once a cut-over has closed this way.
pub(crate) async fn move_waiting(ctx: &Context, db: &Db, parts: &[i32]) -> Result<(u64, Vec<(i32, i64)>)> {
    failpoint("before-move");
    let moved = db
        .transaction_with(ctx, options(), |tx| async move {
            let (mut total, mut ends) = (0, Vec::new());
            for part in parts {
                let Some((next, noting)) = lock_for_move(ctx, &tx, *part).await? else { break };
                let moved = if noting {
                    move_new(ctx, &tx, *part, next).await?
                } else {
                    move_part(ctx, &tx, *part, next).await?
                };
                if moved.logged > 0 {
                    end_partition(ctx, &tx, *part, next + moved.logged).await?;
                    ends.push((*part, next + moved.logged));
                }
                total += moved.gone;
            }
            Ok((total, ends))
        })
        .await?;
    failpoint("after-move");
    Ok(moved)
}

/// What became of a batch.
struct Moved {
    /// Events that are in the log now.
    logged: i64,
    /// Events that have left the outbox.
    gone: u64,
}

impl Moved {
    fn all(count: i64) -> Self {
        Self { logged: count, gone: count.unsigned_abs() }
    }
}

async fn move_part(ctx: &Context, tx: &Tx, part: i32, next: i64) -> Result<Moved> {
    if tx.dialect() == Dialect::Postgres {
        // One statement: the payloads never leave the server.
        let moved = "WITH moved AS (DELETE FROM mainstay_outbox WHERE id IN \
                     (SELECT id FROM mainstay_outbox WHERE part = $1 ORDER BY id LIMIT $3) \
                     RETURNING id, part, event_id, event_type, topic, event_key, meta, payload, at), \
                     logged AS (INSERT INTO mainstay_event_log \
                     (part, off, event_id, event_type, topic, event_key, meta, payload, at) \
                     SELECT part, $2 + row_number() OVER (ORDER BY id) - 1, event_id, event_type, topic, event_key, \
                     meta, payload, at FROM moved RETURNING off) SELECT count(*) FROM logged";
        let moved = tx.query(moved).bind(i64::from(part)).bind(next).bind(MOVED_AT_ONCE).one(ctx);
        return moved.await.map(Moved::all);
    }
    // By their ids: an event with a smaller one may be committed between the statements.
    let ids = "SELECT id FROM mainstay_outbox WHERE part = $1 ORDER BY id LIMIT $2";
    let ids: Vec<i64> = tx.query(ids).bind(i64::from(part)).bind(MOVED_AT_ONCE).all(ctx).await?;
    copy_and_delete(ctx, tx, next, &ids, &ids).await
}

/// As [`move_part`], after events have gone to a broker that was left: what has come back from there is in the log and only
/// deleted, and what is moved is noted, so that a copy that comes back later is known.
async fn move_new(ctx: &Context, tx: &Tx, part: i32, next: i64) -> Result<Moved> {
    let all = "SELECT id, event_id FROM mainstay_outbox WHERE part = $1 ORDER BY id LIMIT $2";
    let all: Vec<(i64, Uuid)> = tx.query(all).bind(i64::from(part)).bind(MOVED_AT_ONCE).all(ctx).await?;
    let new = intake::remember(ctx, tx, all.iter().map(|(_, event)| *event)).await?;
    let ids: Vec<i64> = all.iter().map(|(id, _)| *id).collect();
    let new: Vec<i64> = all.iter().filter(|(_, event)| new.contains(event)).map(|(id, _)| *id).collect();
    copy_and_delete(ctx, tx, next, &new, &ids).await
}

/// Copies those of the outbox with the ids `new` into the log and deletes `all`.
async fn copy_and_delete(ctx: &Context, tx: &Tx, next: i64, new: &[i64], all: &[i64]) -> Result<Moved> {
    if all.is_empty() {
        return Ok(Moved::all(0));
    }
    let mut copied = 0;
    if !new.is_empty() {
        let copy = Sql::new(
            "INSERT INTO mainstay_event_log (part, off, event_id, event_type, topic, event_key, meta, payload, at) \
             SELECT part, ",
        )
        .bind(next)
        .push(
            " + row_number() OVER (ORDER BY id) - 1, event_id, event_type, topic, event_key, meta, payload, at \
             FROM mainstay_outbox WHERE",
        )
        .push_in("id", new.iter().copied());
        copied = tx.query(copy).execute(ctx).await?;
    }
    let delete = Sql::new("DELETE FROM mainstay_outbox WHERE").push_in("id", all.iter().copied());
    let deleted = tx.query(delete).execute(ctx).await?;
    if copied != new.len() as u64 || deleted != all.len() as u64 {
        let (new, all) = (new.len(), all.len());
        return Err(Error::aborted("conflicting changes of the outbox, try again")
            .context(format!("{new} of {all} events were to move, {copied} were copied and {deleted} deleted")));
    }
    Ok(Moved { logged: i64::try_from(copied).unwrap_or(i64::MAX), gone: deleted })
}

/// Writes `messages` at the end of a partition's log and returns where it ends now. The row of the partition is locked as
/// by [`move_waiting`], for the same reason.
pub(crate) async fn append(ctx: &Context, tx: &Tx, part: i32, messages: &[&Message]) -> Result<i64> {
    let next = lock_partition(ctx, tx, part).await?;
    let now = retry::now(ctx, tx).await?;
    let mut end = next;
    let mut rows = Vec::with_capacity(messages.len());
    for message in messages {
        let meta = serde_json::to_value(&message.meta).map_err(Error::from_any)?;
        rows.push(values![
            i64::from(part),
            end,
            message.id,
            message.event_type.as_str(),
            message.topic.as_str(),
            message.key.clone(),
            meta,
            message.payload.clone(),
            now
        ]);
        end += 1;
    }
    let insert =
        "INSERT INTO mainstay_event_log (part, off, event_id, event_type, topic, event_key, meta, payload, at)";
    tx.query(Sql::new(insert).push_values(rows)).execute(ctx).await?;
    end_partition(ctx, tx, part, end).await?;
    Ok(end)
}

/// Where the partition ends, which nobody else changes before this transaction ends.
async fn lock_partition(ctx: &Context, tx: &Tx, part: i32) -> Result<i64> {
    let lock = sql! {
        sqlite: "SELECT next_off FROM mainstay_event_partitions WHERE part = $1",
        _: "SELECT next_off FROM mainstay_event_partitions WHERE part = $1 FOR UPDATE",
    };
    tx.query(lock).bind(i64::from(part)).one(ctx).await
}

/// As [`lock_partition`], with a shared lock of the route. `None`: it is not the embedded broker's turn. `true`: events may
/// have copies at a broker that was left.
async fn lock_for_move(ctx: &Context, tx: &Tx, part: i32) -> Result<Option<(i64, bool)>> {
    let lock = sql! {
        sqlite: "SELECT next_off, (SELECT CASE WHEN route = 'embedded' AND next_route IS NULL THEN noted_until ELSE -1 END \
                 FROM mainstay_event_route WHERE id = 1) FROM mainstay_event_partitions WHERE part = $1",
        postgres: "SELECT next_off, (SELECT CASE WHEN route = 'embedded' AND next_route IS NULL THEN noted_until ELSE -1 \
                   END FROM mainstay_event_route WHERE id = 1 FOR SHARE) \
                   FROM mainstay_event_partitions WHERE part = $1 FOR UPDATE",
        mysql: "SELECT next_off, (SELECT CASE WHEN route = 'embedded' AND next_route IS NULL THEN noted_until ELSE -1 END \
                FROM mainstay_event_route WHERE id = 1 LOCK IN SHARE MODE) \
                FROM mainstay_event_partitions WHERE part = $1 FOR UPDATE",
    };
    let (next, noted_until): (i64, Option<i64>) = tx.query(lock).bind(i64::from(part)).one(ctx).await?;
    Ok(noted_until.filter(|until| *until >= 0).map(|until| (next, until > 0)))
}

async fn end_partition(ctx: &Context, tx: &Tx, part: i32, end: i64) -> Result<()> {
    let advance = "UPDATE mainstay_event_partitions SET next_off = $2 WHERE part = $1";
    tx.query(advance).bind(i64::from(part)).bind(end).execute(ctx).await.map(drop)
}

/// How many events of one partition the slowest group has before it, without those that are paused or have not been seen
/// for `expiry`.
pub(crate) async fn longest_backlog(ctx: &Context, db: &Db, expiry: Duration) -> Result<i64> {
    let backlog = clocked![
        "SELECT coalesce(max(p.next_off - c.off), 0) FROM mainstay_event_cursors c \
         JOIN mainstay_event_partitions p ON p.part = c.part \
         JOIN mainstay_event_groups g ON g.grp = c.grp WHERE g.paused = $1 AND g.seen_at > ",
        " - $2"
    ];
    db.read(backlog).bind(false).bind(millis(expiry)).one(ctx).await
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
