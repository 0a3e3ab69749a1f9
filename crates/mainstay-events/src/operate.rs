//! What operators ask: how far groups are behind, what waits in the outbox; and what they say: pause, resume.

use std::time::Duration;

use mainstay_core::{Context, Error, Result};
use mainstay_sql::{Db, FromRow, sql};

use crate::clock::clocked;

/// How a group stands, over all partitions.
#[derive(Clone, Debug, Eq, FromRow, PartialEq)]
#[non_exhaustive]
pub struct Lag {
    /// The group.
    #[row(rename = "grp")]
    pub group: String,
    /// Events in the log that it has not looked at.
    pub lag: i64,
    /// Events that wait for another try, or behind one that does.
    pub retries: i64,
    /// Events that it gave up.
    pub dead: i64,
    /// Whether it was told to pause.
    pub paused: bool,
}

/// What the relay has not moved yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct OutboxState {
    /// How many events; counted up to 1,000,000.
    pub depth: i64,
    /// How long the oldest of them has waited, by the database's clock.
    pub oldest_age: Option<Duration>,
}

pub(crate) async fn lag(ctx: &Context, db: &Db) -> Result<Vec<Lag>> {
    let lag = sql! {
        postgres: "SELECT g.grp, coalesce((SELECT sum(p.next_off - c.off) FROM mainstay_event_cursors c \
             JOIN mainstay_event_partitions p ON p.part = c.part WHERE c.grp = g.grp), 0)::bigint AS lag, \
             (SELECT count(*) FROM mainstay_event_retries r WHERE r.grp = g.grp) AS retries, \
             (SELECT count(*) FROM mainstay_dead_letters d WHERE d.grp = g.grp) AS dead, g.paused \
             FROM mainstay_event_groups g ORDER BY g.grp",
        mysql: "SELECT g.grp, CAST(coalesce((SELECT sum(p.next_off - c.off) FROM mainstay_event_cursors c \
             JOIN mainstay_event_partitions p ON p.part = c.part WHERE c.grp = g.grp), 0) AS SIGNED) AS lag, \
             (SELECT count(*) FROM mainstay_event_retries r WHERE r.grp = g.grp) AS retries, \
             (SELECT count(*) FROM mainstay_dead_letters d WHERE d.grp = g.grp) AS dead, g.paused \
             FROM mainstay_event_groups g ORDER BY g.grp",
        sqlite: "SELECT g.grp, coalesce((SELECT sum(p.next_off - c.off) FROM mainstay_event_cursors c \
             JOIN mainstay_event_partitions p ON p.part = c.part WHERE c.grp = g.grp), 0) AS lag, \
             (SELECT count(*) FROM mainstay_event_retries r WHERE r.grp = g.grp) AS retries, \
             (SELECT count(*) FROM mainstay_dead_letters d WHERE d.grp = g.grp) AS dead, g.paused \
             FROM mainstay_event_groups g ORDER BY g.grp",
    };
    db.read(lag).all(ctx).await
}

pub(crate) async fn outbox(ctx: &Context, db: &Db) -> Result<OutboxState> {
    let depth = "SELECT count(*) FROM (SELECT id FROM mainstay_outbox LIMIT 1000000) counted";
    let depth: i64 = db.read(depth).one(ctx).await?;
    let age = clocked!["SELECT ", " - at FROM mainstay_outbox ORDER BY id LIMIT 1"];
    let age: Option<i64> = db.read(age).optional(ctx).await?;
    let oldest_age = age.map(|age| Duration::from_millis(age.max(0).unsigned_abs()));
    Ok(OutboxState { depth, oldest_age })
}

pub(crate) async fn pause(ctx: &Context, db: &Db, group: &str, paused: bool) -> Result<()> {
    let pause = "UPDATE mainstay_event_groups SET paused = $2 WHERE grp = $1";
    match db.query(pause).bind(group).bind(paused).execute(ctx).await? {
        0 => Err(Error::not_found(format!("the group `{group}`"))),
        _ => Ok(()),
    }
}
