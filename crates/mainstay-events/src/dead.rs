//! Dead letters: events that were given up, kept with their reason until someone redrives or discards them.

use mainstay_core::{Context, Error, Result};
use mainstay_sql::{Db, FromRow, Sql, Tx, values};
use serde::Serialize;
use uuid::Uuid;

use crate::failpoint::failpoint;
use crate::intake::INTAKE;
use crate::lease::options;
use crate::log;
use crate::message::Message;
use crate::outbox::Outbox;
use crate::relay::REFUSED;
use crate::retry::{self, Why};

/// An event that was given up for one group.
#[derive(Clone, Debug, FromRow, Serialize)]
#[non_exhaustive]
pub struct DeadLetter {
    /// By which it is shown, redriven and discarded.
    pub id: i64,
    /// The group that could not handle it; `(relay)` for what the broker refused, `(intake)` for what came from the broker
    /// and is no event.
    #[row(rename = "grp")]
    pub group: String,
    /// The event's own id.
    pub event_id: Uuid,
    /// The event's type.
    pub event_type: String,
    /// The event's key.
    pub event_key: Option<String>,
    /// `attempts`, `permanent`, `undecodable`, `crash` or, of what the broker did not take, `refused`.
    pub reason: String,
    /// The last error, with its causes.
    pub error: String,
    /// How many runs were begun.
    pub attempts: i64,
    /// When the first run failed, in milliseconds since 1970.
    pub first_failed_at: i64,
    /// When it was given up, in milliseconds since 1970.
    pub at: i64,
}

/// Why an event was given up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reason {
    Attempts,
    Permanent,
    Undecodable,
    Crash,
    Refused,
}

impl Reason {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Reason::Attempts => "attempts",
            Reason::Permanent => "permanent",
            Reason::Undecodable => "undecodable",
            Reason::Crash => "crash",
            Reason::Refused => "refused",
        }
    }
}

/// What becomes a dead letter.
pub(crate) struct Burial<'a> {
    pub(crate) group: &'a str,
    pub(crate) part: i32,
    pub(crate) record: &'a Message,
    pub(crate) reason: Reason,
    pub(crate) error: &'a str,
    pub(crate) attempts: i64,
    pub(crate) first_failed_at: Option<i64>,
}

pub(crate) async fn bury(ctx: &Context, tx: &Tx, burial: Burial<'_>) -> Result<()> {
    failpoint("before-dead");
    let Burial { group, part, record, reason, error, attempts, first_failed_at } = burial;
    let now = retry::now(ctx, tx).await?;
    let meta = serde_json::to_value(&record.meta).map_err(Error::from_any)?;
    let insert = Sql::new(
        "INSERT INTO mainstay_dead_letters (grp, part, event_id, event_type, topic, event_key, meta, payload, reason, \
         error, attempts, first_failed_at, at)",
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
        reason.as_str(),
        error,
        attempts,
        first_failed_at.unwrap_or(now),
        now
    ];
    tx.query(insert.push_values([row])).execute(ctx).await?;
    failpoint("after-dead");
    Ok(())
}

const COLUMNS: &str = "SELECT id, grp, event_id, event_type, event_key, reason, error, attempts, first_failed_at, at \
                       FROM mainstay_dead_letters";

/// Up to `limit` dead letters after the id `after`, oldest first, of one group or of all.
pub(crate) async fn list(
    ctx: &Context,
    db: &Db,
    group: Option<&str>,
    after: i64,
    limit: u32,
) -> Result<Vec<DeadLetter>> {
    let mut list = Sql::new(COLUMNS).push_bind(" WHERE id > ", after);
    if let Some(group) = group {
        list = list.push_bind(" AND grp = ", group);
    }
    db.read(list.push_bind(" ORDER BY id LIMIT ", i64::from(limit))).all(ctx).await
}

/// How many dead letters a group has.
pub(crate) async fn count(ctx: &Context, db: &Db, group: &str) -> Result<i64> {
    db.read("SELECT count(*) FROM mainstay_dead_letters WHERE grp = $1").bind(group).one(ctx).await
}

/// One dead letter, and its event as a CloudEvent.
pub(crate) async fn show(ctx: &Context, db: &Db, id: i64) -> Result<(DeadLetter, serde_json::Value)> {
    let letter = db.read(Sql::new(COLUMNS).push_bind(" WHERE id = ", id)).optional(ctx).await?;
    let letter: DeadLetter = letter.ok_or_else(|| Error::not_found(format!("dead letter {id}")))?;
    let record =
        "SELECT event_id, event_type, topic, event_key, meta, payload FROM mainstay_dead_letters WHERE id = $1";
    let record: Message = db.read(record).bind(id).one(ctx).await?;
    Ok((letter, record.cloud_event()))
}

/// Moves a dead letter back among the events that are tried, with all its attempts ahead. `false`: it is not there (any
/// more), so that redriving twice does it once.
pub(crate) async fn redrive(ctx: &Context, db: &Db, outbox: &Outbox, id: i64) -> Result<bool> {
    #[derive(FromRow)]
    struct Letter {
        grp: String,
        part: i32,
        first_failed_at: i64,
        #[row(flatten)]
        record: Message,
    }
    let redriven = db
        .transaction_with(ctx, options(), |tx| async move {
            let letter = "SELECT grp, part, first_failed_at, event_id, event_type, topic, event_key, meta, payload \
                          FROM mainstay_dead_letters WHERE id = $1";
            let Some(letter) = tx.query(letter).bind(id).optional::<Letter>(ctx).await? else { return Ok(false) };
            if letter.grp == INTAKE {
                return Err(Error::failed_precondition(
                    "what came from the broker and is no event can't be redriven: have it sent again, and discard it",
                ));
            }
            if letter.grp == REFUSED {
                let deleted = delete(ctx, &tx, id).await?;
                if deleted {
                    tx.defer(Box::new(outbox.again(letter.record)?))?;
                }
                return Ok(deleted);
            }
            log::hold(ctx, &tx, &letter.grp, letter.part).await?;
            // Whoever deletes the row is the one who redrives it.
            if !delete(ctx, &tx, id).await? {
                return Ok(false);
            }
            let head = match &letter.record.key {
                Some(key) => !retry::is_parked(ctx, &tx, &letter.grp, key).await?,
                None => true,
            };
            let why = Why::Redriven { first_failed_at: letter.first_failed_at };
            retry::add(ctx, &tx, &letter.grp, letter.part, &letter.record, why, head).await?;
            Ok(true)
        })
        .await?;
    Ok(redriven)
}

/// Deletes a dead letter for good.
pub(crate) async fn discard(ctx: &Context, db: &Db, id: i64) -> Result<bool> {
    delete(ctx, db, id).await
}

async fn delete(ctx: &Context, db: &Db, id: i64) -> Result<bool> {
    Ok(db.query("DELETE FROM mainstay_dead_letters WHERE id = $1").bind(id).execute(ctx).await? == 1)
}
