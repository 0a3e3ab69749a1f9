//! What is sent takes effect exactly once and in order, whatever is done to the processes and their database.
//!
//! `cargo test --test chaos` does a little of everything; `MAINSTAY_LONG_TESTS=1` (`just chaos`) does enough of it to
//! count on, and prints the table. `RIG_SEED` replays a run, and a part of the name of a cell runs only that.

#![allow(clippy::unwrap_used, reason = "a case fails by panicking, and its helpers are no `#[test]` functions")]

use std::path::Path;
use std::process::ExitCode;

use conformance::chaos::cell;
use conformance::chaos::faults::{self, On};
use conformance::chaos::form::Form;
use mainstay::prelude::*;
use mainstay::sql::Dialect;
use mainstay_sql::testing::{Harness, Needs};

#[path = "chaos/long.rs"]
mod long;
#[path = "chaos/mutations.rs"]
mod mutations;

/// Faults whose short form is tried with each change. The short form of the others has been seen to run out of patience on
/// a machine that builds other things meanwhile, or has not been seen to pass there yet; `just chaos` has all of them.
const STEADY: [&str; 7] =
    ["killed", "stopped", "cut_at_commit", "server_restarted", "terminated", "pool_exhausted", "relay_down"];

const RIG: &str = env!("CARGO_BIN_EXE_rig");
const DATABASES: [Dialect; 3] = [Dialect::Sqlite, Dialect::Postgres, Dialect::Mysql];

fn main() -> ExitCode {
    if std::env::var("MAINSTAY_LONG_TESTS").is_ok_and(|value| value == "1") {
        return long::run();
    }
    let mut harness = mutations::cases(Harness::new());
    for fault in faults::ALL.iter().filter(|fault| STEADY.contains(&fault.name)) {
        for dialect in DATABASES {
            let name = format!("{dialect}::{}", fault.name);
            let case = async move || {
                let counts = cell::run(fault, dialect, Form::short(), Path::new(RIG)).await?;
                judge(&counts)
            };
            harness = match (fault.on)(dialect) {
                On::Yes => harness.case(&name, needs(dialect), case),
                On::NotApplicable(_) => harness, // the table says why
                On::Missing(what) => harness.case_if(Err(what), &name, case),
            };
        }
    }
    harness.run()
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
