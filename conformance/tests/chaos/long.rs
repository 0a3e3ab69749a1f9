//! The long form: every cell one after another, and the table.

use std::env;
use std::path::Path;
use std::process::ExitCode;

use conformance::chaos::broker::Carrier;
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
    let embedded = faults::ALL.iter().map(|fault| (fault, &[Carrier::Embedded][..]));
    let through = faults::THROUGH_BROKERS.iter().map(|fault| (fault, &[Carrier::Nats, Carrier::RabbitMq][..]));
    let soak = [Carrier::Embedded, Carrier::Nats, Carrier::RabbitMq];
    let soak = std::iter::once((&faults::SOAK, &soak[..]));
    for (fault, carriers) in embedded.chain(through).chain(soak) {
        for (dialect, carrier) in DATABASES.iter().flat_map(|at| carriers.iter().map(move |with| (*at, *with))) {
            let name = cell::name(fault, dialect, carrier);
            let named = wanted.iter().any(|wanted| name.contains(wanted));
            // A day is not for those who only want everything.
            if !named && (!wanted.is_empty() || fault.name == faults::SOAK.name) {
                continue;
            }
            let result = runtime.block_on(one(fault, dialect, carrier, form));
            let outcome = Outcome { number: fault.number, fault: fault.title, dialect, carrier, result };
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

async fn one(fault: &Fault, dialect: Dialect, carrier: Carrier, form: Form) -> Ran {
    if let Err(missing) = carrier.installed() {
        return Ran::Skipped(missing);
    }
    match (fault.on)(dialect) {
        On::NotApplicable(why) => return Ran::NotApplicable(why),
        On::Missing(what) => return Ran::Skipped(what),
        On::Yes => {}
    }
    match cell::run(fault, dialect, carrier, form, Path::new(RIG)).await {
        Ok(counts) => Ran::Counted(Box::new(counts)),
        Err(error) => {
            let failures = vec![error.report().to_string()];
            Ran::Counted(Box::new(Counts { seed: form.seed, failures, ..Counts::default() }))
        }
    }
}
