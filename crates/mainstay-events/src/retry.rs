//! Events that failed and will be tried again, in the service's own database, whatever the broker.
//!
//! The first event of a key here has a time when it is due; those behind it wait for its end without one, and so order
//! holds while other keys go on. All changes for a group and a partition are made by whoever holds its cursor's lock.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mainstay_core::{Context, Error, Result};
use mainstay_sql::{Db, FromRow, Sql, Tx, sql, values};

use crate::clock::clocked;
use crate::failpoint::failpoint;
use crate::message::Message;

/// An event that waits.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Waiting {
    pub(crate) pos: i64,
    /// How many runs were begun.
    pub(crate) attempt: i64,
    pub(crate) first_failed_at: Option<i64>,
    pub(crate) error: Option<String>,
    #[row(flatten)]
    pub(crate) record: Message,
}

impl Waiting {
    /// A run was begun, and none was seen to end.
    pub(crate) fn may_have_ended_a_process(&self) -> bool {
        self.attempt > 0 && self.error.is_none()
    }
}

/// Runs that were counted, and ended for a reason that is not their event's. That is known to the process alone, so that it
/// takes them back as soon as the database lets it, whoever has their partition then: an event would be blamed otherwise
/// that was in hand again and again while the database was in trouble.
#[derive(Debug, Default)]
pub(crate) struct Blameless(Mutex<Vec<(Place, i64)>>);

/// A group, and one of its partitions.
type Place = (&'static str, i32);

/// Another process may be at work with one of them, and hold its lock.
const TAKE_BACK: Duration = Duration::from_secs(5);

impl Blameless {
    pub(crate) fn add<'a>(&self, place: Place, runs: impl IntoIterator<Item = &'a Waiting>) {
        self.runs().extend(runs.into_iter().map(|waiting| (place, waiting.pos)));
    }

    /// Takes those back whose place is one that is `chosen`.
    pub(crate) async fn take_back(&self, ctx: &Context, db: &Db, chosen: impl Fn(Place) -> bool) -> Result<()> {
        let runs: Vec<_> = self.runs().extract_if(.., |(place, _)| chosen(*place)).collect();
        if runs.is_empty() {
            return Ok(());
        }
        let positions: Vec<i64> = runs.iter().map(|(_, pos)| *pos).collect();
        let done = uncount_run(&ctx.with_timeout(TAKE_BACK), db, &positions).await;
        if done.is_err() {
            self.runs().extend(runs);
        }
        done.map(drop)
    }

    fn runs(&self) -> MutexGuard<'_, Vec<(Place, i64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How an event comes to wait.
#[derive(Clone, Debug)]
pub(crate) enum Why<'a> {
    /// Behind another one of its key.
    Behind,
    /// It was in hand when a process fell silent: to be run under a count that survives the next silence.
    Suspect,
    /// It failed, and is due after so many milliseconds.
    Failed { error: &'a str, pause: i64 },
    /// An operator wants it again.
    Redriven { first_failed_at: i64 },
}

/// Those keys of the group and partition that have an event waiting.
pub(crate) async fn parked_keys(ctx: &Context, tx: &Tx, group: &str, part: i32) -> Result<Vec<String>> {
    let parked = "SELECT DISTINCT event_key FROM mainstay_event_retries \
                  WHERE grp = $1 AND part = $2 AND event_key IS NOT NULL";
    tx.query(parked).bind(group).bind(i64::from(part)).all(ctx).await
}

/// Adds `record`; `head` says that nothing of its key is waiting.
pub(crate) async fn add(
    ctx: &Context,
    tx: &Tx,
    group: &str,
    part: i32,
    record: &Message,
    why: Why<'_>,
    head: bool,
) -> Result<()> {
    failpoint("before-retry");
    let now = now(ctx, tx).await?;
    let (attempt, pause, error, first_failed_at) = match why {
        Why::Behind | Why::Suspect => (0, 0, None, None),
        Why::Failed { error, pause } => (1, pause, Some(error), Some(now)),
        Why::Redriven { first_failed_at } => (0, 0, None, Some(first_failed_at)),
    };
    let due = head.then_some(now + pause);
    let meta = serde_json::to_value(&record.meta).map_err(Error::from_any)?;
    let insert = Sql::new(
        "INSERT INTO mainstay_event_retries (grp, part, event_id, event_type, topic, event_key, meta, payload, attempt, \
         due_at, error, first_failed_at)",
    );
    let row = values![
        group,
        i64::from(part),
        record.id,
        record.event_type.as_str(),
        record.topic.as_str(),
        record.key.clone(),
        meta,
        record.payload.clone(),
        i64::from(attempt),
        due,
        error.map(str::to_owned),
        first_failed_at
    ];
    tx.query(insert.push_values([row])).execute(ctx).await?;
    failpoint("after-retry");
    Ok(())
}

/// Up to `limit` events that are due, oldest first.
pub(crate) async fn due(ctx: &Context, db: &Db, group: &str, part: i32, limit: u32) -> Result<Vec<Waiting>> {
    let due = clocked![
        "SELECT pos, attempt, first_failed_at, error, event_id, event_type, topic, event_key, meta, payload \
         FROM mainstay_event_retries WHERE grp = $1 AND part = $2 AND due_at <= ",
        " ORDER BY pos LIMIT $3"
    ];
    db.query(due).bind(group).bind(i64::from(part)).bind(i64::from(limit)).all(ctx).await
}

/// The partitions of the group that have something due.
pub(crate) async fn due_parts(ctx: &Context, db: &Db, group: &str) -> Result<Vec<i32>> {
    let due = clocked![
        "SELECT p.part FROM mainstay_event_partitions p WHERE EXISTS (SELECT 1 FROM mainstay_event_retries r \
         WHERE r.grp = $1 AND r.part = p.part AND r.due_at <= ",
        ")"
    ];
    db.read(due).bind(group).all(ctx).await
}

/// Counts a run of each of `waiting` before it begins, so that one that ends the process is counted too. What doesn't
/// come back with success is due again after `pause` milliseconds.
pub(crate) async fn count_run(ctx: &Context, db: &Db, waiting: &[Waiting], pause: i64) -> Result<u64> {
    let now = now(ctx, db).await?;
    let count = Sql::new("UPDATE mainstay_event_retries SET attempt = attempt + 1")
        .push_bind(", due_at = ", now + pause)
        .push(" WHERE due_at IS NOT NULL AND")
        .push_in("pos", waiting.iter().map(|waiting| waiting.pos));
    db.query(count).execute(ctx).await
}

/// Takes the count of a run back that the database or another process ended, and lets it be due again at once.
async fn uncount_run(ctx: &Context, db: &Db, positions: &[i64]) -> Result<u64> {
    let now = now(ctx, db).await?;
    let uncount = Sql::new("UPDATE mainstay_event_retries SET attempt = attempt - 1")
        .push_bind(", due_at = ", now)
        .push(" WHERE attempt > 0 AND due_at IS NOT NULL AND")
        .push_in("pos", positions.iter().copied());
    db.query(uncount).execute(ctx).await
}

/// Notes why a run failed, and when the next one is due.
pub(crate) async fn failed(ctx: &Context, tx: &Tx, waiting: &Waiting, error: &str, pause: i64) -> Result<()> {
    failpoint("before-retry");
    let now = now(ctx, tx).await?;
    let update = "UPDATE mainstay_event_retries SET due_at = $2, error = $3, \
                  first_failed_at = coalesce(first_failed_at, $4) WHERE pos = $1";
    tx.query(update).bind(waiting.pos).bind(now + pause).bind(error).bind(now).execute(ctx).await?;
    failpoint("after-retry");
    Ok(())
}

/// Takes `waiting` out. `false`: it isn't there any more.
pub(crate) async fn take(ctx: &Context, tx: &Tx, waiting: &Waiting) -> Result<bool> {
    let delete = "DELETE FROM mainstay_event_retries WHERE pos = $1";
    Ok(tx.query(delete).bind(waiting.pos).execute(ctx).await? == 1)
}

/// Up to `limit` events of the key, in their order.
pub(crate) async fn followers(ctx: &Context, tx: &Tx, group: &str, key: &str, limit: usize) -> Result<Vec<Waiting>> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let next = "SELECT pos, attempt, first_failed_at, error, event_id, event_type, topic, event_key, meta, payload \
                FROM mainstay_event_retries WHERE grp = $1 AND event_key = $2 ORDER BY pos LIMIT $3";
    tx.query(next).bind(group).bind(key).bind(i64::try_from(limit).unwrap_or(i64::MAX)).all(ctx).await
}

/// Lets the first of the key be due.
pub(crate) async fn promote(ctx: &Context, tx: &Tx, group: &str, key: &str) -> Result<()> {
    let next = "SELECT min(pos) FROM mainstay_event_retries WHERE grp = $1 AND event_key = $2";
    if let Some(next) = tx.query(next).bind(group).bind(key).one::<Option<i64>>(ctx).await? {
        let promote = clocked!["UPDATE mainstay_event_retries SET due_at = ", " WHERE pos = $1 AND due_at IS NULL"];
        tx.query(promote).bind(next).execute(ctx).await?;
    }
    Ok(())
}

/// Whether something of the key waits.
pub(crate) async fn is_parked(ctx: &Context, tx: &Tx, group: &str, key: &str) -> Result<bool> {
    let parked = sql! {
        _: "SELECT count(*) FROM (SELECT pos FROM mainstay_event_retries WHERE grp = $1 AND event_key = $2 LIMIT 1) one"
    };
    Ok(tx.query(parked).bind(group).bind(key).one::<i64>(ctx).await? > 0)
}

/// The database's time.
pub(crate) async fn now(ctx: &Context, db: &Db) -> Result<i64> {
    db.query(clocked!["SELECT ", ""]).one(ctx).await
}
