//! Processes that are killed, and processes that stop and come back as zombies.

use mainstay::prelude::*;
use rustix::process::Signal;

use super::{Fault, deadly, everywhere, usual};
use crate::chaos::cell::Cell;

/// 1: any process, any moment.
pub(super) const KILLED: Fault = Fault {
    number: "1",
    name: "killed",
    title: "SIGKILL of a random worker or producer, again and again",
    on: everywhere,
    plan: deadly,
    inflict: |cell| Box::pin(kill(cell)),
};

/// 3: longer than a lease, so that somebody else has taken over when it comes back.
pub(super) const STOPPED: Fault = Fault {
    number: "3",
    name: "stopped",
    title: "SIGSTOP for longer than a lease, then SIGCONT",
    on: everywhere,
    plan: usual,
    inflict: |cell| Box::pin(stop(cell)),
};

async fn kill(cell: &mut Cell) -> Result<()> {
    let times = cell.form.of(10, 200);
    while cell.goes_on(times).await {
        cell.breathe(20..500).await;
        let names = cell.fleet.everyone();
        let Some(name) = cell.pick(&names) else { break };
        let successor = cell.fleet.replace(&name).await;
        cell.inflicted();
        // Half of them may be killed while they start.
        if let Some(successor) = successor
            && cell.random.chance(50)
        {
            cell.fleet.await_ready(&successor).await;
        }
    }
    Ok(())
}

async fn stop(cell: &mut Cell) -> Result<()> {
    let times = cell.form.of(3, 30);
    while cell.goes_on(times).await {
        cell.breathe(100..600).await;
        let names = cell.fleet.everyone();
        let Some(name) = cell.pick(&names) else { break };
        cell.fleet.signal(&name, Signal::STOP);
        cell.breathe(1_100..2_500).await;
        cell.fleet.signal(&name, Signal::CONT);
        cell.inflicted();
    }
    Ok(())
}
