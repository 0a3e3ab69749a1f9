//! Deaths at the places where a death could hurt: before and after each step that events take.

use mainstay::prelude::*;
use mainstay::sql::Dialect;

use super::{Fault, Plan, everywhere};
use crate::chaos::cell::Cell;
use crate::chaos::fleet::Role;
use crate::chaos::form::Form;

/// 2: each named point.
pub(super) const EACH_POINT: Fault = Fault {
    number: "2",
    name: "failpoints",
    title: "abort before and after flush, commit, move, cursor, handler, retry, dead letter, lease, drain",
    on: everywhere,
    plan,
    inflict: |cell| Box::pin(each(cell)),
};

/// The steps, and whether a producer takes them too.
const STEPS: [(&str, bool); 9] = [
    ("flush", true),
    ("commit", true),
    ("move", false),
    ("cursor", false),
    ("handler", false),
    ("retry", false),
    ("dead", false),
    ("lease", false),
    ("drain", false),
];

/// Enough goes wrong by itself for retries and dead letters to be there. An event that is in hand each time its process
/// dies is given up too, so that the attempts are more than a tame one meets deaths, also where they follow each other
/// faster than a busy machine applies anything.
fn plan(_: Dialect, form: Form) -> Plan {
    let plan = Plan { workers: 1, deadly: true, rate: form.rate / 5, ..Plan::new(form) };
    let plan = plan.with("RIG_EVENTS__RETRY_MIN", "5ms").with("RIG_EVENTS__RETRY_MAX", "20ms");
    plan.with("RIG_PART__WILD", 8).with("RIG_PART__WILDEST", 2)
}

async fn each(cell: &mut Cell) -> Result<()> {
    let rounds = cell.form.of(1, 2);
    for round in 0..rounds {
        for (step, of_producers) in STEPS {
            for when in ["before", "after"] {
                let role = if of_producers && round.is_multiple_of(2) { Role::Producer } else { Role::Worker };
                die_at(cell, &format!("{when}-{step}"), role).await;
            }
        }
    }
    Ok(())
}

/// Starts one process more, which dies at the point when it passes it for the so-many-th time.
pub(super) async fn die_at(cell: &mut Cell, point: &str, role: Role) {
    let rare = ["retry", "dead", "lease", "drain"].iter().any(|rare| point.ends_with(rare));
    let pass = if rare { 1 } else { cell.random.within(1..8) };
    let failpoint = format!("{point}:{pass}");
    let name = cell.fleet.start(role, &[("MAINSTAY_FAILPOINT", failpoint.as_str())]);
    if point.ends_with("drain") {
        cell.fleet.await_ready(&name).await;
        cell.fleet.signal(&name, rustix::process::Signal::TERM);
    }
    let gone = name.clone();
    let died = cell
        .until(&format!("dying at {failpoint}"), move |cell| {
            let gone = gone.clone();
            Box::pin(async move { cell.fleet.has_ended(&gone) })
        })
        .await;
    if !died {
        cell.fleet.kill(&name).await;
        return;
    }
    use std::os::unix::process::ExitStatusExt;
    let status = cell.fleet.bury(&name).await;
    if status.is_some_and(|status| status.signal() == Some(rustix::process::Signal::ABORT.as_raw())) {
        cell.inflicted();
    } else {
        cell.failures.push(format!("{name} was to abort at {failpoint} and ended otherwise: {status:?}"));
    }
}
