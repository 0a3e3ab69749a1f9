//! Events that can't be applied, and what operators do with them.

use mainstay::prelude::*;
use mainstay::sql::Dialect;

use super::rollout::retire;
use super::{Fault, Plan, everywhere};
use crate::chaos::cell::Cell;
use crate::chaos::fleet::Role;
use crate::chaos::form::Form;

/// 13: errors, panics, handlers that hang, handlers that take their process with them.
pub(super) const POISON: Fault = Fault {
    number: "13",
    name: "poison",
    title: "poison: errors, panics, timeouts, aborts of the process",
    on: everywhere,
    plan: poison,
    inflict: |cell| Box::pin(suffer(cell)),
};

/// 14: redriven too early, twice at once, while the mended version is rolled out.
pub(super) const REDRIVEN: Fault = Fault {
    number: "14",
    name: "redriven",
    title: "dead letters redriven, twice, and during a rolling deploy",
    on: everywhere,
    plan: redriven,
    inflict: |cell| Box::pin(redrive(cell)),
};

fn poison(_: Dialect, form: Form) -> Plan {
    let mut plan = Plan { deadly: true, revive: true, ..Plan::new(form) };
    // More than a tame event, in hand by chance, could meet deaths of its process in a row.
    plan.rules.max_attempts = 6;
    let wild = if form.long { 1 } else { 3 };
    plan.with("RIG_PART__WILD", wild).with("RIG_PART__WILDEST", 5).with("RIG_EVENTS__HANDLER_TIMEOUT", "300ms")
}

fn redriven(_: Dialect, form: Form) -> Plan {
    let mut plan = Plan::new(form);
    plan.rules.max_attempts = 3;
    plan.rules.mended = true; // at the end
    plan.with("RIG_PART__WILD", 5).with("RIG_PART__WILDEST", 3)
}

async fn suffer(cell: &mut Cell) -> Result<()> {
    cell.until_sent().await;
    cell.injected += wild(cell).await?;
    Ok(())
}

async fn redrive(cell: &mut Cell) -> Result<()> {
    let half = cell.form.target / 2;
    cell.until("producing", move |cell| Box::pin(async move { cell.sent().await >= half })).await;
    cell.until("dead letters", |cell| {
        Box::pin(async move { cell.depths().await.is_some_and(|depths| depths.dead > 0) })
    })
    .await;
    // Too early: most of them fail again.
    redrive_all(cell).await?;
    for old in cell.fleet.names(Role::Worker) {
        cell.fleet.ready(Role::Worker, &[("RIG_PART__MENDED", "true")]).await;
        redrive_twice(cell).await?;
        retire(cell, &old).await;
    }
    cell.until_sent().await;
    cell.dismiss(Role::Producer).await;
    cell.plan.producers = 0;
    cell.until_quiet().await;
    redrive_twice(cell).await?;
    cell.until("no dead letter is left", |cell| {
        Box::pin(async move { cell.depths().await.is_some_and(|depths| depths.quiet() && depths.dead == 0) })
    })
    .await;
    Ok(())
}

async fn redrive_all(cell: &mut Cell) -> Result<()> {
    let (done, said) = cell.fleet.run(&["events", "dead", "list"]).await?;
    if !done {
        cell.failures.push(format!("listing dead letters: {said}"));
    }
    let outcome = cell.fleet.run(&["events", "dead", "redrive", "--all"]).await?;
    redriven_well(cell, outcome);
    Ok(())
}

/// Two operators with the same idea.
async fn redrive_twice(cell: &mut Cell) -> Result<()> {
    let redrive = ["events", "dead", "redrive", "--all"];
    let (one, other) = tokio::join!(cell.fleet.run(&redrive), cell.fleet.run(&redrive));
    redriven_well(cell, one?);
    redriven_well(cell, other?);
    Ok(())
}

fn redriven_well(cell: &mut Cell, (done, said): (bool, String)) {
    if done {
        cell.inflicted();
    } else {
        cell.failures.push(format!("redriving: {said}"));
    }
}

/// How many events were not tame.
async fn wild(cell: &Cell) -> Result<u64> {
    let count: i64 = cell.db.read("SELECT count(*) FROM sent WHERE temper > 0").one(&Context::background()).await?;
    Ok(count.unsigned_abs())
}
