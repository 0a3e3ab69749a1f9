//! The way of events is changed while they are on it.

use std::time::Duration;

use mainstay::prelude::*;
use rustix::process::Signal;
use tokio::time::Instant;

use super::rollout::retire;
use super::{Fault, Plan, everywhere, usual};
use crate::chaos::cell::Cell;

/// 22: processes of both configurations side by side; the command killed on its way; one of those who are to stop suspended
/// across the end of their turn.
pub(super) const CUT_OVER: Fault = Fault {
    number: "22",
    name: "cutover",
    title: "cut-over from the embedded broker to this one and back, under load: old and new processes mixed, the command \
            killed before and after each change, a process suspended across it",
    on: everywhere,
    // The usual lease: one who is suspended across the end of its turn still has its partitions, and believes so. And few
    // workers, as there are twice as many while both kinds are there.
    plan: |dialect, form| {
        let plan = Plan { begins_embedded: true, workers: 2, rate: form.rate.min(200), ..usual(dialect, form) };
        plan.with("RIG_EVENTS__LEASE", "10s")
    },
    inflict: |cell| Box::pin(cut_over(cell)),
};

const EMBEDDED: &str = "embedded";

async fn cut_over(cell: &mut Cell) -> Result<()> {
    let Some(url) = cell.broker_url() else { return Ok(()) };
    let times = cell.form.of(2, 20);
    let mut now = EMBEDDED.to_owned();
    while cell.goes_on(times).await {
        let (next, from) = match now.as_str() {
            EMBEDDED => (url.clone(), None),
            left => (EMBEDDED.to_owned(), Some(left.to_owned())),
        };
        let old = cell.fleet.members();
        let own = [("EVENTS_URL", next.as_str())];
        for (_, role) in &old {
            cell.fleet.start(*role, &own);
        }
        for name in cell.fleet.everyone() {
            cell.fleet.await_ready(&name).await;
        }
        let mut command = vec!["events", "cutover", "--deadline", "2m"];
        if let Some(from) = &from {
            command.extend(["--from", from]);
        }
        // There, the way changes at once; back, it is closed first. In every other pair of rounds the last change is made by a
        // command that is killed after it, otherwise while one of the old ones is suspended.
        let suspends = (cell.injected / 2).is_multiple_of(2);
        let mut points = vec!["before-route:1"];
        points.extend(from.is_some().then_some("after-route:1"));
        points.extend((!suspends).then_some("after-route:1"));
        for point in points {
            let (done, said) = cell.fleet.running(&command, &[own[0], ("MAINSTAY_FAILPOINT", point)]).await?;
            if done {
                cell.failures.push(format!("the cut-over to {next} was to abort {point}: {said}"));
            }
        }
        let names: Vec<String> = old.iter().map(|(name, _)| name.clone()).collect();
        let suspended = if suspends { cell.pick(&names) } else { None };
        if let Some(name) = &suspended {
            cell.fleet.signal(name, Signal::STOP);
        }
        let began = Instant::now();
        let running = tokio::spawn(cell.fleet.running(&command, &own));
        if let Some(name) = &suspended {
            cell.breathe(1_100..1_800).await;
            cell.fleet.signal(name, Signal::CONT);
        }
        let (done, said) = running.await.map_err(Error::from_any)??;
        if !done {
            cell.failures.push(format!("the cut-over to {next}: {said}"));
            break;
        }
        cell.notes.push(format!("cut over in {:.1?}", began.elapsed()));
        tokio::time::sleep(Duration::from_millis(200)).await; // both kinds side by side, with the way changed
        for name in names {
            retire(cell, &name).await;
        }
        now = next;
        cell.inflicted();
    }
    Ok(())
}
