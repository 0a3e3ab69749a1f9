//! The rig proves itself: a handler that is broken on purpose is found out, as what it is.

use std::path::Path;

use conformance::chaos::broker::Carrier;
use conformance::chaos::cell;
use conformance::chaos::faults::{Fault, On, Plan};
use conformance::chaos::form::Form;
use conformance::chaos::table::Counts;
use mainstay::prelude::*;
use mainstay::sql::Dialect;
use mainstay_sql::testing::{Harness, Needs};

/// No fault but the handler's own.
fn broken(plan: fn(Dialect, Form) -> Plan) -> Fault {
    Fault {
        number: "0",
        name: "mutated",
        title: "a handler broken on purpose",
        on: |_| On::Yes,
        plan,
        inflict: |cell| {
            cell.inflicted();
            Box::pin(async { Ok(()) })
        },
    }
}

pub(crate) fn cases(harness: Harness) -> Harness {
    harness
        .case("mutation::none_is_found_right", Needs::Nothing, async || {
            let counts = run(|_, form| Plan::new(form)).await?;
            assert_eq!(counts.failures, [] as [String; 0], "{counts:?}");
            assert!(counts.undone > 0, "some transactions were undone on purpose");
            Ok(())
        })
        .case("mutation::applied_twice_is_found", Needs::Nothing, async || {
            let counts = run(|_, form| mutated(form, "twice")).await?;
            assert!(counts.duplicated > 0 && counts.lost == 0 && counts.out_of_order == 0, "{counts:?}");
            found(&counts, "X: ");
            Ok(())
        })
        .case("mutation::skipped_is_found", Needs::Nothing, async || {
            let counts = run(|_, form| mutated(form, "skip")).await?;
            assert!(counts.lost > 0 && counts.duplicated == 0 && counts.out_of_order == 0, "{counts:?}");
            found(&counts, "L: ");
            Ok(())
        })
        .case("mutation::swapped_is_found", Needs::Nothing, async || {
            let counts = run(|_, form| mutated(form, "swap")).await?;
            assert!(counts.out_of_order > 0 && counts.duplicated == 0, "{counts:?}");
            found(&counts, "O: ");
            Ok(())
        })
        .case("mutation::invented_is_found", Needs::Nothing, async || {
            let counts = run(|_, form| mutated(form, "invent")).await?;
            assert!(counts.phantoms > 0 && counts.lost == 0, "{counts:?}");
            found(&counts, "P: ");
            Ok(())
        })
}

/// One worker, so that what it remembers of a key is not in another process.
fn mutated(form: Form, how: &str) -> Plan {
    Plan { workers: 1, keys: 4, ..Plan::new(form) }.with("RIG_PART__MUTATION", how)
}

async fn run(plan: fn(Dialect, Form) -> Plan) -> Result<Counts> {
    cell::run(&broken(plan), Dialect::Sqlite, Carrier::Embedded, Form::short(), Path::new(super::RIG)).await
}

#[track_caller]
fn found(counts: &Counts, invariant: &str) {
    assert!(counts.failures.iter().any(|failure| failure.contains(invariant)), "{counts:?}");
}
