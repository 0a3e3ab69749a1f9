//! The faults of processes once more, with events that leave the database on their way: through a broker of the test's
//! own, which loses messages, confirmations and connections besides.

use mainstay::prelude::*;
use mainstay::sql::Dialect;

use super::failpoints::{self, die_at};
use super::{Fault, Plan, deadly, everywhere, outside, processes, usual};
use crate::chaos::cell::Cell;
use crate::chaos::fleet::Role;
use crate::chaos::form::Form;

/// 1, through a broker.
pub(super) const KILLED: Fault = Fault {
    number: "1",
    name: "outside-killed",
    title: "SIGKILL of a random worker or producer, again and again, through a broker",
    on: everywhere,
    plan: |dialect, form| outside(deadly(dialect, form)),
    inflict: processes::KILLED.inflict,
};

/// 2, at the points that only a broker has.
pub(super) const EACH_POINT: Fault = Fault {
    number: "2",
    name: "outside-failpoints",
    title: "abort before and after publish, delete, inbox, settle, and each retry, lease, drain, through a broker",
    on: everywhere,
    plan,
    inflict: |cell| Box::pin(each(cell)),
};

/// 3, through a broker: a relay and an intake that have lost their leases and don't know it.
pub(super) const STOPPED: Fault = Fault {
    number: "3",
    name: "outside-stopped",
    title: "SIGSTOP for longer than a lease, then SIGCONT, through a broker",
    on: everywhere,
    plan: |dialect, form| outside(usual(dialect, form)),
    inflict: processes::STOPPED.inflict,
};

fn plan(dialect: Dialect, form: Form) -> Plan {
    outside((failpoints::EACH_POINT.plan)(dialect, form))
}

async fn each(cell: &mut Cell) -> Result<()> {
    for _ in 0..cell.form.of(1, 3) {
        for step in ["publish", "delete", "inbox", "settle", "retry", "lease", "drain"] {
            for when in ["before", "after"] {
                die_at(cell, &format!("{when}-{step}"), Role::Worker).await;
            }
        }
    }
    Ok(())
}
