//! What is sent takes effect exactly once and in order, whatever is done to the processes and their database.
//!
//! `cargo test --test chaos` does a little of everything; `MAINSTAY_LONG_TESTS=1` (`just chaos`) does enough of it to
//! count on, and prints the table. `RIG_SEED` replays a run, and parts of the names of cells run only those.

#![allow(clippy::unwrap_used, reason = "a case fails by panicking, and its helpers are no `#[test]` functions")]

use std::path::Path;
use std::process::ExitCode;

use conformance::chaos::broker::Carrier;
use conformance::chaos::cell;
use conformance::chaos::faults::{self, Fault, On};
use conformance::chaos::form::Form;
use mainstay::prelude::*;
use mainstay::sql::Dialect;
use mainstay_sql::testing::{Harness, Needs};

#[path = "chaos/long.rs"]
mod long;
#[path = "chaos/mutations.rs"]
mod mutations;

const RIG: &str = env!("CARGO_BIN_EXE_rig");
const DATABASES: [Dialect; 3] = [Dialect::Sqlite, Dialect::Postgres, Dialect::Mysql];

/// Of databases and brokers; the long form has all of them.
const COMBINATIONS: [(Dialect, Carrier); 3] =
    [(Dialect::Sqlite, Carrier::Nats), (Dialect::Postgres, Carrier::Nats), (Dialect::Mysql, Carrier::RabbitMq)];

fn main() -> ExitCode {
    if std::env::var("MAINSTAY_LONG_TESTS").is_ok_and(|value| value == "1") {
        return long::run();
    }
    let mut harness = mutations::cases(Harness::new());
    for fault in faults::ALL {
        for dialect in DATABASES {
            harness = with(harness, fault, dialect, Carrier::Embedded);
        }
    }
    for fault in faults::THROUGH_BROKERS {
        for (dialect, carrier) in COMBINATIONS {
            harness = with(harness.given(carrier.installed()), fault, dialect, carrier);
        }
    }
    harness = with(harness.given(Carrier::Nats.installed()), &faults::SOAK, Dialect::Postgres, Carrier::Nats);
    harness.run()
}

fn with(harness: Harness, fault: &'static Fault, dialect: Dialect, carrier: Carrier) -> Harness {
    let name = cell::name(fault, dialect, carrier);
    let case = async move || {
        let counts = cell::run(fault, dialect, carrier, Form::short(), Path::new(RIG)).await?;
        judge(&counts)
    };
    match (fault.on)(dialect) {
        On::Yes => harness.case(&name, needs(dialect), case),
        On::NotApplicable(_) => harness, // the table says why
        On::Missing(what) => harness.case_if(Err(what), &name, case),
    }
}

fn needs(dialect: Dialect) -> Needs {
    match dialect {
        Dialect::Sqlite => Needs::Nothing,
        Dialect::Postgres => Needs::Postgres,
        Dialect::Mysql => Needs::Mysql,
    }
}

fn judge(counts: &conformance::chaos::table::Counts) -> Result<()> {
    if counts.failures.is_empty() {
        return Ok(());
    }
    let failures = counts.failures.join("\n");
    Err(Error::internal(format!("RIG_SEED={} replays this:\n{failures}\n{counts:?}", counts.seed)))
}
