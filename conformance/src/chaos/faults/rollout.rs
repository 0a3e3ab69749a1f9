//! Fleets that grow, shrink and are replaced, as operators and autoscalers do it.

use mainstay::prelude::*;

use super::{Fault, everywhere, usual};
use crate::chaos::cell::Cell;
use crate::chaos::fleet::Role;
use crate::chaos::ledger;

/// 16: partitions change hands all the time.
pub(super) const SCALED: Fault = Fault {
    number: "16",
    name: "scaled",
    title: "workers scaled 1 → 6 → 2, every few seconds",
    on: everywhere,
    plan: usual,
    inflict: |cell| Box::pin(scale(cell)),
};

/// 19: a new worker for each old one, which is asked to end.
pub(super) const DEPLOYED: Fault = Fault {
    number: "19",
    name: "deployed",
    title: "rolling deploy by SIGTERM under load; no event is run a second time for it",
    on: everywhere,
    // The usual lease: with a short one, a busy machine takes partitions from processes that are merely slow.
    plan: |dialect, form| usual(dialect, form).with("RIG_EVENTS__LEASE", "10s"),
    inflict: |cell| Box::pin(deploy(cell)),
};

async fn scale(cell: &mut Cell) -> Result<()> {
    let times = cell.form.of(3, 30);
    for workers in [1, 6, 2].into_iter().cycle() {
        if !cell.goes_on(times).await {
            break;
        }
        while cell.fleet.names(Role::Worker).len() < workers {
            cell.fleet.start(Role::Worker, &[]);
        }
        for name in cell.fleet.names(Role::Worker).into_iter().skip(workers) {
            cell.fleet.await_ready(&name).await; // one that is told to end before it is ready says so, and that is clean
            retire(cell, &name).await;
        }
        cell.inflicted();
        cell.breathe(500..1_500).await;
    }
    Ok(())
}

async fn deploy(cell: &mut Cell) -> Result<()> {
    let rounds = cell.form.of(4, 20);
    while cell.goes_on(rounds).await {
        for old in cell.fleet.names(Role::Worker) {
            cell.fleet.ready(Role::Worker, &[]).await;
            retire(cell, &old).await;
            cell.inflicted();
        }
    }
    // What was in hand was finished, and the rest given away: nothing had to be tried again.
    let waited = ledger::ever_waited(&cell.db, &Context::background()).await?;
    if waited > 0 {
        cell.failures.push(format!("{waited} events were run again, or set aside to be, though each drain was clean"));
    }
    Ok(())
}

/// Ends a worker, which has to end in order.
pub(super) async fn retire(cell: &mut Cell, name: &str) {
    let status = cell.fleet.terminate(name).await;
    if status.is_none_or(|status| status.code() != Some(0)) {
        cell.failures.push(format!("{name} did not end in order: {status:?}"));
    }
}
