//! The MySQL driver by itself; the cases are in `src/mysql/tests.rs`.

use std::process::ExitCode;

use mainstay_sql::testing::{Harness, mysql_driver_cases};

fn main() -> ExitCode {
    mysql_driver_cases(Harness::new()).run()
}
