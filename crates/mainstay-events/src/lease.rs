//! [`Leases`]: which partitions this process works on, by the database's clock.
//!
//! A lease keeps processes out of each other's way. It is not what makes effects happen once: that is the row which every
//! transaction of a partition locks and moves (`mainstay_event_partitions`, `mainstay_event_cursors`), and it holds when
//! clocks and leases don't.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use mainstay_core::{Context, Result};
use mainstay_sql::{Db, TxOptions, sql};
use tokio::time::Instant;
use uuid::Uuid;

use crate::clock::{clocked, millis};
use crate::failpoint::failpoint;
use crate::hash::partition;

/// The name of the relay's leases. No group can have it.
pub(crate) const RELAY: &str = "";

/// Before its route, the name under which each process is a member, whatever it works on. No group can have it.
pub(crate) const PRESENCE: &str = "(route) ";

/// How much of a lease is kept as a margin between our clock and the database's.
const MARGIN: u32 = 5;

/// A name and a partition.
pub(crate) type Place = (&'static str, i32);

pub(crate) struct Leases {
    db: Db,
    owner: Uuid,
    lease: Duration,
    names: Vec<&'static str>,
    /// The name that tells which way the process is configured for.
    presence: String,
    partitions: u32,
    held: Mutex<Held>,
}

struct Held {
    places: BTreeSet<Place>,
    /// By our own clock, begun before the database was asked.
    valid_until: Instant,
}

/// What one look at the leases changed.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Partitions that are ours from now on. `true`: whoever had them before didn't give them back.
    pub(crate) gained: Vec<(Place, bool)>,
    /// Ours no more.
    pub(crate) lost: Vec<Place>,
    /// More than our share: to be finished and released.
    pub(crate) surplus: Vec<Place>,
}

impl Leases {
    /// Leases of `names`, for a process that is configured for `route`.
    pub(crate) fn new(
        db: Db,
        owner: Uuid,
        lease: Duration,
        (names, route): (Vec<&'static str>, &str),
        partitions: u32,
    ) -> Self {
        let held = Held { places: BTreeSet::new(), valid_until: Instant::now() };
        let presence = format!("{PRESENCE}{route}");
        Self { db, owner, lease, names, presence, partitions, held: Mutex::new(held) }
    }

    /// How many partitions there are.
    pub(crate) fn partitions(&self) -> u32 {
        self.partitions
    }

    /// How often to look.
    pub(crate) fn period(&self) -> Duration {
        self.lease / 3
    }

    /// Whether `place` is surely still ours.
    pub(crate) fn holds(&self, place: Place) -> bool {
        let held = self.lock();
        held.places.contains(&place) && Instant::now() < held.valid_until
    }

    pub(crate) fn held(&self, name: &'static str) -> Vec<i32> {
        let held = self.lock();
        if Instant::now() >= held.valid_until {
            return Vec::new();
        }
        held.places.iter().filter(|(held, _)| *held == name).map(|(_, part)| *part).collect()
    }

    /// Renews what is held, and takes what is free up to a fair share. Without `relay`, what the relay has is given back: it
    /// is for those whose turn it is.
    pub(crate) async fn renew(&self, ctx: &Context, relay: bool) -> Result<Changes> {
        failpoint("before-lease");
        let began = Instant::now();
        let now_held = self
            .db
            .transaction_with(ctx, options(), |tx| async move {
                self.beat(ctx, &tx, &self.presence).await?;
                let mut all = Vec::new();
                for name in &self.names {
                    let renewed = match *name {
                        RELAY if !relay => self.stand_aside(ctx, &tx, name).await?,
                        name => self.renew_one(ctx, &tx, name).await?,
                    };
                    all.push((*name, renewed));
                }
                Ok(all)
            })
            .await?;
        failpoint("after-lease");
        let mut changes = Changes::default();
        let mut held = self.lock();
        held.valid_until = began + self.lease - self.lease / MARGIN;
        for (name, Renewed { mine, gained, fair }) in now_held {
            let before: Vec<Place> = held.places.iter().filter(|(held, _)| *held == name).copied().collect();
            let gained: BTreeMap<i32, bool> = gained.into_iter().collect();
            let now: BTreeSet<i32> = mine.into_iter().chain(gained.keys().copied()).collect();
            for place in before {
                if !now.contains(&place.1) {
                    held.places.remove(&place);
                    changes.lost.push(place);
                }
            }
            for part in &now {
                let is_new = held.places.insert((name, *part));
                if is_new {
                    // Ours by the table, and not known here: claimed by a call whose answer was lost.
                    changes.gained.push(((name, *part), gained.get(part).copied().unwrap_or(true)));
                }
            }
            changes.surplus.extend(now.iter().rev().take(now.len().saturating_sub(fair)).map(|part| (name, *part)));
        }
        Ok(changes)
    }

    /// Says that this process is there, under `name`.
    async fn beat(&self, ctx: &Context, tx: &Db, name: &str) -> Result<()> {
        let beat = clocked!["UPDATE mainstay_event_members SET seen_at = ", " WHERE name = $1 AND owner = $2"];
        if tx.query(beat).bind(name).bind(self.owner).execute(ctx).await? == 0 {
            let join = clocked!["INSERT INTO mainstay_event_members (name, owner, seen_at) VALUES ($1, $2, ", ")"];
            tx.query(join).bind(name).bind(self.owner).execute(ctx).await?;
        }
        Ok(())
    }

    /// Gives all of a name back, and is none of its members, so that the others share all of it.
    async fn stand_aside(&self, ctx: &Context, tx: &Db, name: &'static str) -> Result<Renewed> {
        let release = "UPDATE mainstay_event_leases SET owner = NULL, until_at = 0 WHERE name = $1 AND owner = $2";
        tx.query(release).bind(name).bind(self.owner).execute(ctx).await?;
        let leave = "DELETE FROM mainstay_event_members WHERE name = $1 AND owner = $2";
        tx.query(leave).bind(name).bind(self.owner).execute(ctx).await?;
        Ok(Renewed { mine: Vec::new(), gained: Vec::new(), fair: 0 })
    }

    async fn renew_one(&self, ctx: &Context, tx: &Db, name: &'static str) -> Result<Renewed> {
        let lease = millis(self.lease);
        self.beat(ctx, tx, name).await?;
        let live = clocked![
            "SELECT count(*), count(CASE WHEN owner < $3 THEN 1 END) FROM mainstay_event_members \
             WHERE name = $1 AND seen_at > ",
            " - $2"
        ];
        let (live, before): (i64, i64) = tx.query(live).bind(name).bind(lease).bind(self.owner).one(ctx).await?;
        let renew = clocked!["UPDATE mainstay_event_leases SET until_at = ", " + $3 WHERE name = $1 AND owner = $2"];
        let renewed = tx.query(renew).bind(name).bind(self.owner).bind(lease).execute(ctx).await?;
        let mine: Vec<i32> = if renewed == 0 {
            Vec::new()
        } else {
            let mine = "SELECT part FROM mainstay_event_leases WHERE name = $1 AND owner = $2 ORDER BY part";
            tx.query(mine).bind(name).bind(self.owner).all(ctx).await?
        };
        let fair = usize::try_from(share(name, i64::from(self.partitions), live, before)).unwrap_or(usize::MAX);
        let mut gained = Vec::new();
        if mine.len() < fair {
            let free = clocked![
                "SELECT part, CASE WHEN owner IS NULL THEN 0 ELSE 1 END FROM mainstay_event_leases \
                 WHERE name = $1 AND (owner IS NULL OR until_at < ",
                ") ORDER BY part LIMIT $2"
            ];
            let wanted = i64::try_from(fair - mine.len()).unwrap_or(i64::MAX);
            for (part, had_owner) in tx.query(free).bind(name).bind(wanted).all::<(i32, i64)>(ctx).await? {
                let claim = clocked![
                    "UPDATE mainstay_event_leases SET owner = $3, epoch = epoch + 1, until_at = ",
                    " + $4 WHERE name = $1 AND part = $2 AND (owner IS NULL OR until_at < ",
                    ")"
                ];
                let claimed = tx.query(claim).bind(name).bind(i64::from(part)).bind(self.owner).bind(lease);
                if claimed.execute(ctx).await? == 1 {
                    gained.push((part, had_owner != 0));
                }
            }
        }
        Ok(Renewed { mine, gained, fair })
    }

    /// Gives a partition back, whose work is done.
    pub(crate) async fn release(&self, ctx: &Context, place: Place) -> Result<()> {
        self.lock().places.remove(&place);
        let release =
            "UPDATE mainstay_event_leases SET owner = NULL, until_at = 0 WHERE name = $1 AND part = $2 AND owner = $3";
        self.db.query(release).bind(place.0).bind(i64::from(place.1)).bind(self.owner).execute(ctx).await.map(drop)
    }

    /// Gives `places` back and leaves the list of members, so that others take over at once.
    pub(crate) async fn leave(&self, ctx: &Context, places: &[Place]) -> Result<()> {
        self.db
            .transaction_with(ctx, options(), |tx| async move {
                for (name, part) in places {
                    let release = "UPDATE mainstay_event_leases SET owner = NULL, until_at = 0 \
                                   WHERE name = $1 AND part = $2 AND owner = $3";
                    let release = tx.query(release).bind(*name).bind(i64::from(*part)).bind(self.owner);
                    release.execute(ctx).await?;
                }
                let leave = "DELETE FROM mainstay_event_members WHERE owner = $1";
                tx.query(leave).bind(self.owner).execute(ctx).await.map(drop)
            })
            .await
    }

    /// Whether a partition of ours to take is free, asked between two renewals. Those of the relay count with `relay`.
    pub(crate) async fn any_free(&self, ctx: &Context, relay: bool) -> Result<bool> {
        let free = sql! { _: "SELECT name FROM mainstay_event_leases WHERE owner IS NULL" };
        let free: Vec<String> = self.db.read(free).all(ctx).await?;
        Ok(free.iter().any(|free| self.names.iter().any(|name| name == free && (relay || *name != RELAY))))
    }

    /// Forgets members that have long been silent.
    pub(crate) async fn clean(&self, ctx: &Context) -> Result<()> {
        let clean = clocked!["DELETE FROM mainstay_event_members WHERE seen_at < ", " - $1"];
        self.db.query(clean).bind(millis(self.lease.saturating_mul(10))).execute(ctx).await.map(drop)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Renewed {
    mine: Vec<i32>,
    gained: Vec<(i32, bool)>,
    fair: usize,
}

/// How many of a name's partitions are for the member that has `before` of `live` before it. All shares together are all
/// partitions; whose are larger by one depends on the name, so that nobody gets the larger one of each.
fn share(name: &str, partitions: i64, live: i64, before: i64) -> i64 {
    let live = live.max(1);
    let turn = i64::from(partition(name.as_bytes(), u32::try_from(live).unwrap_or(u32::MAX)));
    partitions / live + i64::from((before + turn) % live < partitions % live)
}

/// Each statement sees what others have committed before it, on every database; and requests don't wait for a backlog.
pub(crate) fn options() -> TxOptions {
    TxOptions::new().isolation(mainstay_sql::Isolation::ReadCommitted).background()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_all_there_is_and_differ_by_one_at_most() {
        for (partitions, live) in [(4, 3), (4, 4), (4, 5), (16, 3), (16, 7), (1, 2), (5, 1)] {
            for name in ["", "(intake)", "shop.stock"] {
                let shares: Vec<i64> = (0..live).map(|before| share(name, partitions, live, before)).collect();
                assert_eq!(shares.iter().sum::<i64>(), partitions, "{name} {shares:?}");
                let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
                assert!(most - least <= 1, "{name} {shares:?}");
            }
        }
    }
}
