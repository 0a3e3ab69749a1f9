//! [`Route`]: the way that events take out of the outbox, one for all processes of a service.
//!
//! A row of the database says it, and who takes events out looks there: the embedded broker under a shared lock, in the
//! transaction that moves them; a relay before it sends, and under a shared lock when it deletes what the broker has
//! confirmed. A [`cut-over`](crate::cutover) changes the row, for which it waits until all of these have ended. So no two
//! ways are open at a time, whatever processes are configured for, and however long one of them was suspended.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use mainstay_core::{Context, Error, Result};
use mainstay_sql::{Db, Dialect, FromRow, Sql, values};

use crate::clock::{clocked, millis};
use crate::lease::options;
use crate::schema::insert_new;

/// The route of the broker that is the service's own database.
pub(crate) const EMBEDDED: &str = "embedded";

/// The row.
#[derive(Clone, Debug, Eq, FromRow, PartialEq)]
pub(crate) struct Route {
    /// Who takes events out.
    pub(crate) route: String,
    /// Who will, once the cut-over that is under way has ended.
    pub(crate) next_route: Option<String>,
}

/// Whose turn it is, as a process sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Turn {
    /// Another way is open than the one that this process is configured for.
    Others = 0,
    /// Nobody's: a cut-over is under way.
    Nobodys = 1,
    /// This process's way is open.
    Ours = 2,
}

/// What a process is configured for, and what it last saw.
pub(crate) struct Standing {
    /// The route of its configuration.
    pub(crate) ours: String,
    seen: AtomicU8,
}

impl Standing {
    pub(crate) fn new(ours: &str, route: &Route) -> Self {
        Self { ours: ours.to_owned(), seen: AtomicU8::new(route.turn(ours) as u8) }
    }

    pub(crate) fn turn(&self) -> Turn {
        Turn::from(i64::from(self.seen.load(Ordering::Relaxed)))
    }

    /// Whether this process takes events out of the outbox, now or when a cut-over is given up.
    pub(crate) fn takes_part(&self) -> bool {
        self.turn() != Turn::Others
    }

    /// Notes whose turn it is, and returns whether that is news.
    pub(crate) fn note(&self, turn: Turn) -> bool {
        self.seen.swap(turn as u8, Ordering::Relaxed) != turn as u8
    }

    /// Says what has become of the route.
    pub(crate) fn tell(&self, route: &Route) {
        let (ours, Route { route: now, next_route }) = (&self.ours, route);
        match route.turn(ours) {
            Turn::Ours => tracing::info!(target: "mainstay::events", route = now, "events leave the outbox"),
            Turn::Nobodys => tracing::warn!(
                target: "mainstay::events", route = now, next = next_route,
                "events wait in the outbox: a cut-over is under way; `events cutover` ends it"
            ),
            Turn::Others => tracing::warn!(
                target: "mainstay::events", route = now, next = next_route, configured = ours,
                "this process takes no events out of the outbox: events.url is not the way that they go, which \
                 `events cutover` changes"
            ),
        }
    }

    /// # Errors
    /// This process is configured for another way than the one that is open.
    pub(crate) fn check(&self) -> Result<()> {
        match self.turn() {
            Turn::Others => Err(Error::failed_precondition(format!(
                "events.url says {}, and events go another way until `events cutover`",
                self.ours
            ))),
            Turn::Ours | Turn::Nobodys => Ok(()),
        }
    }
}

impl From<i64> for Turn {
    fn from(turn: i64) -> Self {
        match turn {
            0 => Turn::Others,
            1 => Turn::Nobodys,
            _ => Turn::Ours,
        }
    }
}

impl Route {
    /// The open way of `route`.
    pub(crate) fn to(route: &str) -> Self {
        Self { route: route.to_owned(), next_route: None }
    }

    pub(crate) fn turn(&self, ours: &str) -> Turn {
        match &self.next_route {
            _ if self.route != ours => Turn::Others,
            Some(_) => Turn::Nobodys,
            None => Turn::Ours,
        }
    }
}

/// The row, if a process has ever started.
pub(crate) async fn read(ctx: &Context, db: &Db) -> Result<Option<Route>> {
    db.query("SELECT route, next_route FROM mainstay_event_route WHERE id = 1").optional(ctx).await
}

/// The row as a process with the way `ours` starts. The first one writes it: its own way, unless the tables are older than
/// the row and show that events went the embedded way. One that starts alone opens its way instead of the embedded one, at
/// whose end nothing is left behind.
pub(crate) async fn at_start(ctx: &Context, db: &Db, ours: &str, lease: Duration) -> Result<Route> {
    let route = known_or(ctx, db, ours).await?;
    let embedded = Route::to(EMBEDDED);
    if route != embedded || ours == EMBEDDED {
        return Ok(route);
    }
    let live = clocked!["SELECT count(*) FROM mainstay_event_members WHERE seen_at > ", " - $1"];
    let live: i64 = db.query(live).bind(millis(lease)).one(ctx).await?;
    if live == 0 {
        change(ctx, db, &embedded, &Route::to(ours), None).await?;
    }
    known_or(ctx, db, ours).await
}

async fn known_or(ctx: &Context, db: &Db, ours: &str) -> Result<Route> {
    if let Some(route) = read(ctx, db).await? {
        return Ok(route);
    }
    let written = db.transaction_with(ctx, options(), |tx| async move {
        let moved: i64 = tx.query("SELECT count(*) FROM mainstay_event_partitions WHERE next_off > 0").one(ctx).await?;
        let taken_in: i64 = tx.query("SELECT count(*) FROM mainstay_event_intakes").one(ctx).await?;
        let first = if moved > 0 && taken_in == 0 { EMBEDDED } else { ours };
        insert_new(ctx, &tx, "mainstay_event_route", "(id, route)", "(id)", [values![1, first]].into_iter()).await
    });
    written.await?;
    read(ctx, db).await?.ok_or_else(|| Error::data_loss("mainstay_event_route has lost its row"))
}

/// Changes the row if it still is `from`. `false`: somebody else has changed it. From then on, for as long as `noted`,
/// copies of events may come from a broker that is left.
pub(crate) async fn change(ctx: &Context, db: &Db, from: &Route, to: &Route, noted: Option<Duration>) -> Result<bool> {
    let changed = db.transaction_with(ctx, options(), |tx| async move {
        let update = "UPDATE mainstay_event_route SET route = $1, next_route = $2 \
                      WHERE id = 1 AND route = $3 AND coalesce(next_route, '') = $4";
        let update = tx.query(update).bind(&to.route).bind(to.next_route.clone()).bind(&from.route);
        let changed = update.bind(from.next_route.clone().unwrap_or_default()).execute(ctx).await? == 1;
        if let Some(noted) = noted.filter(|_| changed) {
            let note = clocked!["UPDATE mainstay_event_route SET noted_until = ", " + $1 WHERE id = 1"];
            tx.query(note).bind(millis(noted)).execute(ctx).await?;
        }
        Ok(changed)
    });
    changed.await
}

/// What the DELETE of a relay ends with, so that it deletes nothing once its way is closed: the lock that a change of the
/// row waits for.
pub(crate) fn while_open(delete: Sql, dialect: Dialect, ours: &str) -> Sql {
    let lock = match dialect {
        Dialect::Sqlite => ")",
        Dialect::Postgres => " FOR SHARE)",
        Dialect::Mysql => " LOCK IN SHARE MODE)",
    };
    delete
        .push_bind(" AND 1 = (SELECT CASE WHEN next_route IS NULL AND route = ", ours)
        .push(" THEN 1 ELSE 0 END FROM mainstay_event_route WHERE id = 1")
        .push(lock)
}

/// Ends the time in which copies of events may come from a broker that was left.
pub(crate) async fn forget(ctx: &Context, db: &Db) -> Result<()> {
    let forget =
        clocked!["UPDATE mainstay_event_route SET noted_until = 0 WHERE noted_until > 0 AND noted_until < ", ""];
    db.query(forget).execute(ctx).await.map(drop)
}
