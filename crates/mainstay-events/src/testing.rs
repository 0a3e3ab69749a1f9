//! The suite that every broker has to pass (feature `testing`), on every database.
//!
//! A crate that brings a broker runs it from a test program with `harness = false`:
//!
//! ```no_run
//! use mainstay_events::testing::{TestBroker, broker_suite, quick, Setup};
//! use mainstay_sql::Dialect;
//! use mainstay_sql::testing::Harness;
//!
//! fn main() -> std::process::ExitCode {
//!     let embedded = || Setup::from(quick());
//!     let harness = broker_suite(Harness::new(), "embedded", &[Dialect::Sqlite, Dialect::Postgres], embedded);
//!     // In place of the test's own broker: yours.
//!     let through_it = || Setup::through(TestBroker::new(), quick());
//!     broker_suite(harness, "test", &[Dialect::Sqlite], through_it).run()
//! }
//! ```

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a case fails by panicking; the names of the cases say what they are"
)]

use mainstay_sql::Dialect;
use mainstay_sql::testing::Harness;

mod broker;
mod failures;
mod flow;
mod order;
mod outside;
mod scene;
mod takeover;

pub use broker::{Mood, TestBroker};
pub use scene::{
    Probe, Service, Setup, Step, applied, applied_count, assert_in_order, eventually, prepare, publish, quick, quiet,
};

macro_rules! suite {
    ($harness:expr, $broker:expr, $databases:expr, $setup:expr; $($module:ident::$case:ident),+ $(,)?) => {
        $harness$(.on_each(
            $databases,
            &format!("{}::{}", $broker, stringify!($case)),
            move |scene| $module::$case(scene, $setup()),
        ))+
    };
}

/// Adds the suite to `harness`, each case on each of `databases` as `database::broker::case`, with a `setup` of its own.
pub fn broker_suite(harness: Harness, broker: &str, databases: &[Dialect], setup: fn() -> Setup) -> Harness {
    suite![
        harness, broker, databases, setup;
        flow::an_event_reaches_every_group_once,
        flow::what_is_rolled_back_was_never_published,
        flow::events_of_a_handler_are_published_with_its_effect,
        flow::an_event_arrives_with_all_that_was_said_about_it,
        flow::a_new_group_begins_where_it_says,
        flow::a_paused_group_waits,
        flow::a_paused_group_waits_in_processes_that_start,
        order::a_key_is_in_order_over_transactions_that_race,
        order::a_key_is_in_order_over_services_that_come_and_go,
        failures::a_failed_event_is_tried_again_and_only_its_key_waits,
        failures::what_always_fails_becomes_a_dead_letter_with_its_reason,
        failures::a_dead_letter_that_is_redriven_is_applied_once,
        failures::a_failure_in_a_batch_undoes_only_itself,
        takeover::a_killed_service_loses_nothing_and_doubles_nothing,
        takeover::a_stop_finishes_what_is_in_hand_and_gives_the_rest_away,
        takeover::a_stop_that_may_not_wait_names_what_it_cut,
    ]
}

/// As [`broker_suite`], what only a broker can do that is a server of its own: services meet there.
pub fn outside_suite(harness: Harness, broker: &str, databases: &[Dialect], setup: fn() -> Setup) -> Harness {
    suite![
        harness, broker, databases, setup;
        outside::services_with_databases_of_their_own_each_get_every_event,
        outside::services_that_differ_in_partitions_share_a_topic,
    ]
}
