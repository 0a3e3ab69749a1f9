//! What events promise, once for every database.

#![allow(clippy::unwrap_used, reason = "a case fails by panicking, and its helpers are no `#[test]` functions")]

use std::process::ExitCode;

use mainstay_sql::cases;
use mainstay_sql::testing::Harness;

#[path = "events/flow.rs"]
mod flow;
#[path = "events/service.rs"]
mod service;

use flow::*;

fn main() -> ExitCode {
    cases![
        Harness::new(); Sqlite, Postgres, Mysql;
        an_event_reaches_every_group_once
    ]
    .run()
}
