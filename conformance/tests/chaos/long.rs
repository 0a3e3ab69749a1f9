//! The long form: every cell one after another, and the table.

use std::env;
use std::path::Path;
use std::process::ExitCode;

use conformance::chaos::cell;
use conformance::chaos::faults::{self, Fault, On};
use conformance::chaos::form::Form;
use conformance::chaos::table::{Counts, Outcome, Ran, table};
use mainstay::sql::Dialect;

use super::{DATABASES, RIG};

/// Runs what the command line names, or everything. It fails if a cell does, or could not be tried.
#[expect(clippy::print_stdout, reason = "the table is what it is for")]
pub(crate) fn run() -> ExitCode {
    let form = Form::long();
    let wanted: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut outcomes = Vec::new();
    for fault in faults::ALL {
        for dialect in DATABASES {
            let name = format!("{dialect}::{}", fault.name);
            if !wanted.is_empty() && !wanted.iter().any(|wanted| name.contains(wanted)) {
                continue;
            }
            let result = runtime.block_on(one(fault, dialect, form));
            let outcome = Outcome { number: fault.number, fault: fault.title, dialect, result };
            if let Ran::Counted(counts) = &outcome.result {
                println!("{name}: {counts:?}");
            }
            outcomes.push(outcome);
        }
    }
    println!("\nRIG_SEED={} replays this.\n\n{}", form.seed, table(&outcomes));
    let proved = |outcome: &Outcome| !outcome.failed() && !matches!(outcome.result, Ran::Skipped(_));
    if outcomes.iter().all(proved) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn one(fault: &Fault, dialect: Dialect, form: Form) -> Ran {
    match (fault.on)(dialect) {
        On::NotApplicable(why) => return Ran::NotApplicable(why),
        On::Missing(what) => return Ran::Skipped(what),
        On::Yes => {}
    }
    match cell::run(fault, dialect, form, Path::new(RIG)).await {
        Ok(counts) => Ran::Counted(Box::new(counts)),
        Err(error) => {
            let failures = vec![error.report().to_string()];
            Ran::Counted(Box::new(Counts { seed: form.seed, failures, ..Counts::default() }))
        }
    }
}
