//! What events promise on the embedded broker, once for every database.

#![allow(clippy::unwrap_used, reason = "a case fails by panicking, and its helpers are no `#[test]` functions")]
#![allow(clippy::print_stdout, reason = "figures for the recipes `volume` and `sqlite-fairness`")]

use std::process::ExitCode;

use mainstay_events::testing::{Setup, TestBroker, broker_suite, outside_suite, quick};
use mainstay_sql::testing::Harness;
use mainstay_sql::{Dialect, cases};

#[path = "events/crash.rs"]
mod crash;
#[path = "events/cutover.rs"]
mod cutover;
#[path = "events/disk.rs"]
mod disk;
#[path = "events/fairness.rs"]
mod fairness;
#[path = "events/outside.rs"]
mod outside;
#[path = "events/publish.rs"]
mod publish;
#[path = "events/volume.rs"]
mod volume;
#[path = "events/waiting.rs"]
mod waiting;

use crash::*;
use cutover::*;
use disk::*;
use fairness::*;
use outside::*;
use publish::*;
use volume::*;
use waiting::*;

const ALL: [Dialect; 3] = [Dialect::Sqlite, Dialect::Postgres, Dialect::Mysql];

fn main() -> ExitCode {
    let harness = broker_suite(Harness::new(), "embedded", &ALL, || quick().into());
    let log = || Setup::through(TestBroker::new(), quick());
    let queue = || Setup::through(TestBroker::new().queue(), quick());
    let harness = broker_suite(harness, "log", &ALL, log);
    let harness = outside_suite(harness, "log", &ALL, log);
    let harness = broker_suite(harness, "queue", &[Dialect::Sqlite], queue);
    let harness = outside_suite(harness, "queue", &[Dialect::Sqlite], queue);
    let harness = cases![
        harness; Sqlite, Postgres, Mysql;
        what_cannot_be_published_is_told_before_anything_is_written,
        a_database_has_its_events_once,
        an_event_that_ends_its_process_is_counted_and_given_up,
        partitions_are_shared_fairly,
        many_events_leave_nothing_behind,
        what_the_broker_refuses_becomes_a_dead_letter,
        a_broker_that_is_down_delays_and_loses_nothing,
        an_adapter_that_panics_holds_up_the_topic_and_nothing_else,
        what_strangers_send_is_applied_or_kept_with_the_reason,
        the_inbox_forgets,
        a_key_that_waited_catches_up_in_shared_transactions,
        events_change_their_way_under_load_and_come_back,
        a_cut_over_that_is_killed_is_begun_again_or_taken_back,
        what_left_too_late_is_known_when_it_comes_back,
        the_first_route_is_what_is_there,
        a_cut_over_waits_for_those_who_would_not_look,
        from_broker_to_broker_the_way_is_by_the_embedded_one
    ];
    // On SQLite one event at a time is in hand.
    let harness = cases![harness; Postgres, Mysql; who_waits_for_its_turn_alone_is_not_blamed];
    let harness = cases![
        harness; Postgres;
        what_a_full_disk_ends_is_not_counted_though_the_service_stops,
        a_full_disk_blames_nobody_though_the_partition_is_anothers_then,
        a_full_disk_blames_none_of_those_that_were_run_together,
        a_full_disk_blames_nobody_whose_failure_cannot_be_written_down
    ];
    let harness = cases![
        harness; Sqlite;
        requests_and_consumers_share_the_writer,
        a_topic_that_would_lose_events_is_refused_at_the_start,
        what_groups_cannot_take_yet_stays_with_the_broker
    ];
    harness.run()
}
