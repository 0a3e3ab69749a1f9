//! What the server answers to input that is broken, slow or too large: every row of `docs/bad-input.md` is a test, and
//! the server stays within its memory and goes on serving others meanwhile.
//!
//! The server runs in a process of its own, this program started again, so that its memory is its own.

#![allow(clippy::unwrap_used, reason = "a case fails by panicking, and its helpers are no `#[test]` functions")]
#![allow(clippy::print_stderr, reason = "the figures are for whoever runs this with --nocapture")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use self::server::{IMPATIENT, PATIENT, ServerProcess};

#[path = "bad_input/cases.rs"]
mod cases;
#[path = "bad_input/exchange.rs"]
mod exchange;
#[path = "bad_input/memory.rs"]
mod memory;
#[path = "bad_input/server.rs"]
mod server;
#[path = "bad_input/table.rs"]
mod table;

fn main() -> ExitCode {
    if server::is_wanted() {
        server::serve();
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::from_args();
    let server = (!arguments.list).then(|| ServerProcess::start(IMPATIENT));
    libtest_mimic::run(&arguments, trials(server.as_ref().map(|server| server.addr))).exit_code()
}

/// `addr` is where the server for the table listens; listing the trials needs none.
fn trials(addr: Option<SocketAddr>) -> Vec<Trial> {
    let addr = addr.unwrap_or(([127, 0, 0, 1], 0).into());
    let mut trials = vec![
        Trial::test("the_table_and_the_cases_name_the_same_input", || {
            let rows: BTreeSet<_> = table::rows().into_iter().map(|row| row.input).collect();
            let cases: BTreeSet<_> = cases::all().into_iter().map(|case| case.input.to_owned()).collect();
            if rows == cases {
                return Ok(());
            }
            let (undocumented, untested) = (cases.difference(&rows), rows.difference(&cases));
            Err(format!("not in the table: {undocumented:?}\nnot tested: {untested:?}").into())
        }),
        Trial::test("memory_stays_bounded_and_others_are_served_meanwhile", || {
            memory::under_bad_input(&ServerProcess::start(IMPATIENT));
            Ok(())
        }),
        Trial::test("silent_connections_cost_little_memory", || {
            memory::of_silent_connections(&ServerProcess::start(PATIENT));
            Ok(())
        }),
        Trial::test("connections_between_two_requests_cost_little_memory", || {
            memory::of_used_connections(&ServerProcess::start(PATIENT));
            Ok(())
        }),
    ];
    for row in table::rows() {
        let Some(case) = cases::all().into_iter().find(|case| case.input == row.input) else { continue };
        trials.push(Trial::test(format!("table::{}", row.input), move || {
            let found = exchange::run(async { exchange::exchange(addr, &case).await });
            if found == row.expected {
                return Ok(());
            }
            Err(Failed::from(format!("the table says {:?}, the server did {found:?}", row.expected)))
        }));
    }
    trials
}
