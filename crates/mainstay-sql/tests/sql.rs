//! What `Db` promises, once for every database.

#![allow(clippy::unwrap_used, reason = "a case fails by panicking, and its helpers are no `#[test]` functions")]

use std::process::ExitCode;

use mainstay_sql::cases;
use mainstay_sql::testing::Harness;

#[path = "sql/cancellation.rs"]
mod cancellation;
#[path = "sql/faults.rs"]
mod faults;
#[path = "sql/hook.rs"]
mod hook;
#[path = "sql/leftovers.rs"]
mod leftovers;
#[path = "sql/mapping.rs"]
mod mapping;
#[path = "sql/postgres.rs"]
mod postgres;
#[path = "sql/streams.rs"]
mod streams;
#[path = "sql/text.rs"]
mod text;
#[path = "sql/transactions.rs"]
mod transactions;
#[path = "sql/values.rs"]
mod values;

use cancellation::*;
use faults::*;
use hook::*;
use leftovers::*;
use mapping::*;
use postgres::*;
use streams::*;
use text::*;
use transactions::*;
use values::*;

fn main() -> ExitCode {
    let harness = cases![
        Harness::new(); Sqlite, Postgres, Mysql;
        // Values.
        every_type_survives_a_round_trip,
        extremes_survive_a_round_trip,
        every_type_binds_null,
        timestamps_are_cut_to_microseconds,
        large_values_survive,
        // Text and placeholders.
        placeholders_are_found_only_in_code,
        a_placeholder_may_repeat,
        a_wrong_number_of_values_is_told_before_anything_is_sent,
        transaction_control_is_refused,
        a_statement_may_differ_by_database,
        the_builder_binds_what_it_is_given,
        wrong_sql_is_internal_and_names_the_statement,
        // Rows.
        rows_become_structs_tuples_and_options,
        one_optional_and_all_differ_in_what_they_expect,
        a_cell_of_another_type_names_its_column,
        execute_counts_matched_rows,
        a_batch_is_all_or_nothing,
        // Errors.
        violated_constraints_have_codes_and_names,
        a_write_in_a_read_only_transaction_is_refused,
        before_connect_and_after_close_it_is_unavailable,
        // Streams.
        a_long_stream_runs_in_bounded_memory,
        a_stream_dropped_half_way_frees_its_connection,
        a_stream_ends_with_its_deadline,
        a_stream_in_a_transaction_excludes_other_statements,
        // Transactions.
        a_transaction_commits_or_rolls_back,
        a_repository_works_in_and_out_of_a_transaction,
        a_transaction_fits_into_a_spawned_future,
        nested_transactions_undo_only_themselves,
        the_outer_handle_waits_for_the_nested_one,
        a_nested_transaction_dropped_half_way_is_undone,
        a_handle_is_dead_after_its_transaction,
        the_pools_own_handle_is_refused_inside,
        a_panic_rolls_back,
        a_failed_statement_that_was_ignored_is_never_committed_silently,
        conflicting_writers_all_succeed_in_the_end,
        statements_awaited_together_take_turns,
        // The hook at their end.
        what_was_deferred_arrives_once_in_order_and_in_the_transaction,
        without_anything_deferred_the_hook_is_not_called,
        a_closure_that_fails_calls_no_hook,
        a_hook_that_fails_rolls_back,
        a_conflict_of_the_hook_starts_again_with_nothing_deferred,
        a_conflict_of_the_closure_starts_again_with_nothing_deferred,
        savepoints_keep_and_undo_what_was_deferred_in_them,
        a_savepoint_dropped_half_way_takes_what_was_deferred_with_it,
        only_the_innermost_open_transaction_can_defer,
        the_end_of_a_transaction_can_not_be_deferred_to,
        rows_of_a_stream_may_be_deferred_as_they_come,
        a_caller_who_leaves_during_the_commit_leaves_the_hook_told,
        a_database_has_one_hook,
        without_a_hook_nothing_can_be_deferred,
        what_comes_after_a_commit_is_called_once_and_never_without_it,
        // Cancellation.
        a_deadline_stops_a_statement_and_frees_its_connection,
        a_dropped_statement_frees_its_connection,
        a_transaction_dropped_anywhere_leaves_nothing_open,
        a_full_pool_is_unavailable_in_time,
        closing_waits_for_what_is_in_hand
    ];
    let harness = cases![harness; Sqlite, Postgres; a_commit_that_is_refused_tells_the_hook_nothing];
    let harness = cases![
        harness; Postgres, Mysql;
        a_server_that_is_not_there_is_unavailable_by_name,
        a_commit_whose_answer_is_lost_is_unknown_and_not_repeated,
        a_commit_whose_answer_is_lost_is_unknown_to_the_hook,
        a_deadlock_is_aborted_and_tried_again,
        an_old_database_is_left_over_unless_somebody_is_connected
    ];
    let harness = cases![
        harness; Postgres;
        arrays_survive_a_round_trip,
        a_serialization_failure_is_aborted,
        a_cancelled_statement_has_stopped_on_the_server,
        late_cancels_never_hit_the_next_user,
        a_changed_table_is_prepared_again,
        domains_enums_and_text_types_are_text,
        what_does_not_fit_is_told_by_number,
        numeric_is_exact,
        a_wrong_password_or_database_is_not_worth_another_try,
        killed_connections_are_replaced,
        a_statement_timeout_of_the_server_is_cancelled
    ];
    harness.run()
}
