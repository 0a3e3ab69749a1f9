//! What events promise on the embedded broker, once for every database.

#![allow(clippy::unwrap_used, reason = "a case fails by panicking, and its helpers are no `#[test]` functions")]
#![allow(clippy::print_stdout, reason = "figures for the recipes `volume` and `sqlite-fairness`")]

use std::process::ExitCode;

use mainstay_events::testing::{broker_suite, quick};
use mainstay_sql::cases;
use mainstay_sql::testing::Harness;

#[path = "events/crash.rs"]
mod crash;
#[path = "events/fairness.rs"]
mod fairness;
#[path = "events/publish.rs"]
mod publish;
#[path = "events/volume.rs"]
mod volume;

use crash::*;
use fairness::*;
use publish::*;
use volume::*;

fn main() -> ExitCode {
    let harness = cases![
        broker_suite(Harness::new(), quick); Sqlite, Postgres, Mysql;
        what_cannot_be_published_is_told_before_anything_is_written,
        a_database_has_its_events_once,
        an_event_that_ends_its_process_is_counted_and_given_up,
        partitions_are_shared_fairly,
        many_events_leave_nothing_behind
    ];
    cases![harness; Sqlite; requests_and_consumers_share_the_writer].run()
}
