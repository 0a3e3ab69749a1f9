//! The shop as it is shipped: under its systemd units and behind its nginx file, restarted under load.
//!
//! It runs the program `shop` beside the fixture, which `cargo test --workspace` builds and `just deploy-test` too.
//! `MAINSTAY_LONG_TESTS=1` sends 10,000 requests through nginx and restarts 20 times under the units.

#![allow(clippy::unwrap_used, reason = "a case fails by panicking, and its helpers are no `#[test]` functions")]

use std::process::ExitCode;

use conformance::chaos::server::installed;
use mainstay::sql::Dialect;
use mainstay_sql::testing::Harness;

mod nginx;
mod rolling;
mod shop;
mod units;

fn main() -> ExitCode {
    let shop = shop::program().map(drop);
    let activator = shop.clone().and_then(|()| units::activator().map(drop));
    let behind_nginx =
        shop.clone().and_then(|()| nginx::program().map(drop)).and_then(|()| installed(Dialect::Postgres));
    Harness::new()
        .one_at_a_time()
        .case_if(shop, "restarts_under_its_units_fail_no_request", units::restarts)
        .case_if(activator, "systemds_own_activator_starts_it_with_the_first_request", units::activation)
        .case_if(behind_nginx.clone(), "a_rolling_restart_behind_nginx_fails_no_request", rolling::restart)
        .case_if(
            behind_nginx.clone(),
            "a_shop_that_is_taken_out_of_nginx_can_stop_without_a_failed_request",
            rolling::taken_out,
        )
        .case_if(behind_nginx, "after_a_restart_of_postgres_it_goes_on_by_itself", rolling::database)
        .run()
}

/// Whether there is time for what is counted in the documentation.
fn is_long() -> bool {
    std::env::var("MAINSTAY_LONG_TESTS").is_ok_and(|value| value == "1")
}
