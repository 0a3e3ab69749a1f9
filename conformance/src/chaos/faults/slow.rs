//! Handlers that take longer than anything waits for them, unless it is told that they are at work.

use std::time::Duration;

use mainstay::prelude::*;

use super::{Fault, Plan, everywhere};
use crate::chaos::cell::Cell;
use crate::chaos::fleet::{Role, SLOW as BEGINS};
use crate::chaos::form::Form;
use crate::chaos::history::Temper;

/// As short as it may be, several times over.
const LEASE: Duration = Duration::from_millis(500);

/// 15: the lease of a partition runs out ten times while its handler is at work.
pub(super) const SLOW: Fault = Fault {
    number: "15",
    name: "slow",
    title: "handlers of ten times a lease",
    on: everywhere,
    plan: |_, form| slow(form),
    inflict: |cell| Box::pin(take_time(cell)),
};

fn slow(form: Form) -> Plan {
    Plan::new(form)
        .with("RIG_EVENTS__LEASE", "500ms")
        .with("RIG_EVENTS__HANDLER_TIMEOUT", "60s")
        .with("RIG_PART__SLOW", if form.long { 1 } else { 2 })
        .with("RIG_PART__SLOW_FOR", (LEASE * 10).as_millis())
}

async fn take_time(cell: &mut Cell) -> Result<()> {
    let least = cell.form.of(3, 30);
    cell.until("events with slow handlers", move |cell| Box::pin(async move { slow_ones(cell).await >= least })).await;
    cell.until_sent().await;
    cell.dismiss(Role::Producer).await;
    cell.plan.producers = 0;
    cell.until_quiet().await;
    cell.injected = slow_ones(cell).await;
    let runs = cell.fleet.lines(BEGINS).len();
    cell.notes.push(format!("{} slow handlers ran {runs} times", cell.injected));
    // One whose lease was lost is run once more by somebody else, and undone.
    if runs as u64 != cell.injected {
        cell.failures.push(format!("{} slow handlers ran {runs} times", cell.injected));
    }
    Ok(())
}

async fn slow_ones(cell: &Cell) -> u64 {
    let query = cell.db.read("SELECT count(*) FROM sent WHERE event_type = 'rig.step' AND temper = $1");
    query.bind(Temper::Slow.code()).one::<i64>(&Context::background()).await.map_or(0, i64::unsigned_abs)
}
