//! The checker finds what it is there for: a checker that finds nothing proves nothing.

use super::*;
use crate::chaos::history::{Applied, Parked, Sent};

const RULES: Rules = Rules { groups: &[("step", "apply")], max_attempts: 3, mended: false };

/// Events 1 to `count` of one key, all applied in order.
fn clean(count: u128) -> History {
    let mut history = History::default();
    for number in 1..=count {
        let (event_id, kseq) = (Uuid::from_u128(number), i64::try_from(number).unwrap());
        history.sent.push(sent(event_id, kseq, Temper::Tame));
        history.applied.push(applied(kseq, event_id, kseq));
    }
    history
}

fn sent(event_id: Uuid, kseq: i64, temper: Temper) -> Sent {
    Sent { event_id, event_type: "step".to_owned(), key: "k".to_owned(), kseq, temper }
}

fn applied(position: i64, event_id: Uuid, kseq: i64) -> Applied {
    let (group, key, worker) = ("apply".to_owned(), "k".to_owned(), "w".to_owned());
    Applied { position, group, event_id, key, kseq, worker }
}

fn parked(number: u128, attempts: i64) -> Parked {
    Parked { group: "apply".to_owned(), event_id: Uuid::from_u128(number), attempts, error: String::new() }
}

/// How many were lost, phantoms, duplicated, out of order, misplaced.
fn counts(history: &History) -> [usize; 5] {
    let verdict = check(history, &RULES);
    assert_eq!(verdict.holds(), verdict.to_string().is_empty());
    verdict.all().map(|(_, _, found)| found.len())
}

#[test]
fn what_is_right_is_found_right() {
    assert_eq!(counts(&clean(5)), [0; 5]);
    assert_eq!(counts(&History::default()), [0; 5]);
}

#[test]
fn one_that_was_not_applied_is_lost() {
    let mut history = clean(5);
    history.applied.remove(2);
    assert_eq!(counts(&history), [1, 0, 0, 0, 0]);
}

#[test]
fn one_that_was_never_committed_is_a_phantom() {
    let mut history = clean(5);
    history.applied.push(applied(6, Uuid::from_u128(99), 6));
    assert_eq!(counts(&history), [0, 1, 0, 0, 0]);
    history.undone.insert(Uuid::from_u128(99));
    assert!(check(&history, &RULES).to_string().contains("undone by its producer"));
}

#[test]
fn one_that_was_applied_twice_is_a_duplicate_and_no_disorder() {
    let mut history = clean(5);
    history.applied.push(applied(6, Uuid::from_u128(2), 2));
    assert_eq!(counts(&history), [0, 0, 1, 0, 0]);
}

#[test]
fn two_that_changed_places_are_out_of_order() {
    let mut history = clean(5);
    (history.applied[1].position, history.applied[2].position) = (3, 2);
    assert_eq!(counts(&history), [0, 0, 0, 1, 0]);
}

#[test]
fn each_late_one_counts() {
    let mut history = clean(5);
    history.applied[4].position = -1; // the fifth first: four come after it
    assert_eq!(counts(&history), [0, 0, 0, 4, 0]);
}

#[test]
fn keys_and_groups_have_orders_of_their_own() {
    let mut history = clean(2);
    let other = Applied { key: "other".to_owned(), ..applied(3, Uuid::from_u128(3), 1) };
    history.sent.push(Sent { key: "other".to_owned(), ..sent(Uuid::from_u128(3), 1, Temper::Tame) });
    history.applied.push(other);
    assert_eq!(counts(&history), [0; 5]);
}

#[test]
fn poison_belongs_into_dead_letters_and_nothing_else_does() {
    let mut history = clean(5);
    history.applied.remove(2);
    history.dead.push(parked(3, 3));
    assert_eq!(counts(&history), [0, 0, 0, 0, 1], "a tame one was given up");
    history.sent[2].temper = Temper::Failing;
    assert_eq!(counts(&history), [0; 5]);
    history.dead[0].attempts = 4;
    assert_eq!(counts(&history), [0, 0, 0, 0, 1], "it was tried too often");
    history.dead[0].attempts = 3;
    history.retries.push(parked(3, 1));
    assert_eq!(counts(&history), [0, 0, 0, 0, 1], "it is in two places");
    history.retries.clear();
    history.dead.push(parked(3, 3));
    assert_eq!(counts(&history), [0, 0, 0, 0, 1], "it was given up twice");
}

#[test]
fn applied_and_given_up_is_one_too_many() {
    let mut history = clean(5);
    history.sent[2].temper = Temper::Moody;
    history.dead.push(parked(3, 3));
    assert_eq!(counts(&history), [0, 0, 0, 0, 1]);
}

#[test]
fn poison_is_applied_only_once_mended() {
    let mut history = clean(5);
    history.sent[0].temper = Temper::Failing;
    history.applied[0].position = 9;
    assert_eq!(counts(&history), [0, 0, 0, 1, 1]);
    let mended = Rules { mended: true, ..RULES };
    assert!(check(&history, &mended).holds(), "and then it may come late");
    history.applied.remove(0);
    assert_eq!(check(&history, &mended).lost.len(), 1);
}

#[test]
fn one_that_waits_for_another_try_is_not_lost() {
    let mut history = clean(5);
    history.applied.pop();
    history.retries.push(parked(5, 1));
    assert_eq!(counts(&history), [0; 5]);
}

#[test]
fn one_that_was_committed_though_its_producer_was_told_otherwise_is_a_phantom() {
    let mut history = clean(5);
    history.undone.insert(Uuid::from_u128(3));
    assert_eq!(counts(&history), [0, 1, 0, 0, 0]);
}
