//! What is given up is given up in the database too, at once, and nobody else feels it.
//!
//! The cases count what the server and this process do, so they run one after another. In CI they are short and prove
//! the mechanism; with `MAINSTAY_LONG_TESTS=1`, as `just cancel-bounds` and `just cancel-sweep` set it, they run in full
//! and print the figures that stand in `docs/guarantees.md`.

#![allow(clippy::unwrap_used, reason = "a case fails by panicking, and its helpers are no `#[test]` functions")]

use std::process::ExitCode;

use mainstay_sql::cases;
use mainstay_sql::testing::Harness;

#[path = "cancel/bounds.rs"]
mod bounds;
#[path = "cancel/flood.rs"]
mod flood;
#[path = "cancel/late.rs"]
mod late;
#[path = "cancel/network.rs"]
mod network;
#[path = "cancel/observer.rs"]
mod observer;
#[path = "cancel/proxy.rs"]
mod proxy;
#[path = "cancel/sweep.rs"]
mod sweep;

use bounds::*;
use flood::*;
use late::*;
use network::*;
use sweep::*;

fn main() -> ExitCode {
    let harness = cases![
        Harness::new().one_at_a_time(); Sqlite, Postgres, Mysql;
        the_database_runs_nothing_for_who_has_gone,
        a_late_cancel_never_hits_the_next_user_of_a_connection,
        a_transaction_cut_at_any_await_is_whole_or_nothing,
        a_statement_cut_at_any_await_is_stopped
    ];
    let harness = cases![
        harness; Postgres, Mysql;
        five_hundred_cancels_open_few_connections,
        a_cancel_that_overtakes_its_statement_is_sent_again,
        a_commit_into_a_silent_network_is_unknown
    ];
    harness.run()
}

/// Whether everything is to be run in full and measured.
fn in_full() -> bool {
    std::env::var("MAINSTAY_LONG_TESTS").is_ok_and(|value| value == "1")
}
