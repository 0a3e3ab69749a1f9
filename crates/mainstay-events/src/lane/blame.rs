//! [`Blame`]: whose fault it is that a transaction was not committed.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use mainstay_core::{Error, Result};
use mainstay_sql::{CommitUnknown, DatabaseError, DatabaseErrorKind};

/// How often a handler may lose its connection to the database with the same event before that is taken for the event's
/// fault, as it is if a statement of it crashes the server.
const LOST_CONNECTIONS: u32 = 20;

/// Why a transaction was not committed.
#[derive(Debug)]
pub(super) enum Failed {
    /// A handler's own error.
    Handler(Error),
    /// The error of a handler, in a transaction that was shared with others of those that wait.
    InCompany,
    /// Someone else has moved the place: look again.
    Taken,
    /// It may have been committed: look again.
    Unknown,
    /// A transaction of several events lost a conflict: it is better split.
    Contended,
    /// The database.
    Database(Error),
}

/// What a lane remembers of its failures.
#[derive(Debug, Default)]
pub(super) struct Blame {
    /// In a row.
    lost_connections: u32,
}

impl Blame {
    /// `in_handler`: a handler was at work.
    pub(super) fn judge(&mut self, error: Error, in_handler: bool) -> Failed {
        if error.is::<PlaceTaken>() {
            return Failed::Taken;
        }
        if error.is::<CommitUnknown>() {
            return Failed::Unknown;
        }
        if error.is::<Split>() {
            return Failed::Contended;
        }
        if !in_handler {
            return Failed::Database(error);
        }
        match trouble(&error) {
            // Statements that end the server are an event's fault; a disk that is full is so for hours, and nobody's.
            Some(DatabaseErrorKind::ConnectionLost) if self.lost_connections < LOST_CONNECTIONS => {
                self.lost_connections += 1;
                return Failed::Database(error);
            }
            Some(DatabaseErrorKind::DiskFull | DatabaseErrorKind::ReadOnly) => return Failed::Database(error),
            _ => {}
        }
        self.lost_connections = 0;
        Failed::Handler(error)
    }

    pub(super) fn went_well(&mut self) {
        self.lost_connections = 0;
    }
}

/// What an error says of the state of the database, and not of what was asked of it.
pub(super) fn trouble(error: &Error) -> Option<DatabaseErrorKind> {
    use DatabaseErrorKind::{ConnectionLost, DiskFull, ReadOnly};
    let kind = error.downcast_ref::<DatabaseError>()?.kind;
    matches!(kind, ConnectionLost | DiskFull | ReadOnly).then_some(kind)
}

/// Marks the error of a transaction that found its place taken.
#[derive(Debug)]
pub(super) struct PlaceTaken;

impl fmt::Display for PlaceTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another process has applied these events")
    }
}

impl std::error::Error for PlaceTaken {}

pub(super) fn place(ours: bool) -> Result<()> {
    if ours { Ok(()) } else { Err(Error::aborted("the events were applied elsewhere").with_source(PlaceTaken)) }
}

/// Marks the error of a transaction of several events that ran again because of a conflict.
#[derive(Debug)]
struct Split;

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a transaction of several events lost a conflict")
    }
}

impl std::error::Error for Split {}

pub(super) fn split_after_a_conflict(runs: &AtomicU32, events: usize) -> Result<()> {
    if runs.fetch_add(1, Ordering::Relaxed) > 0 && events > 1 {
        return Err(Error::aborted("conflicting changes").with_source(Split));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mainstay_sql::testing::refused;

    use super::*;

    /// How many of such failures in a row are taken for the database's, of 100.
    fn excused(blame: &mut Blame, kind: DatabaseErrorKind) -> usize {
        let judged = std::iter::repeat_with(|| blame.judge(refused(kind), true));
        judged.take(100).take_while(|failed| matches!(failed, Failed::Database(_))).count()
    }

    #[test]
    fn a_database_that_cannot_write_is_never_an_events_fault() {
        for kind in [DatabaseErrorKind::DiskFull, DatabaseErrorKind::ReadOnly] {
            assert_eq!(excused(&mut Blame::default(), kind), 100, "{kind:?}");
        }
    }

    #[test]
    fn connections_that_are_lost_again_and_again_are() {
        let mut blame = Blame::default();
        assert_eq!(excused(&mut blame, DatabaseErrorKind::ConnectionLost), 20);
        // It was told: the next one begins anew.
        assert_eq!(excused(&mut blame, DatabaseErrorKind::ConnectionLost), 20);
        assert!(matches!(blame.judge(refused(DatabaseErrorKind::ConnectionLost), true), Failed::Database(_)));
        blame.went_well();
        assert_eq!(excused(&mut blame, DatabaseErrorKind::ConnectionLost), 20);
        for _ in 0..100 {
            let beside = blame.judge(refused(DatabaseErrorKind::ConnectionLost), false);
            assert!(matches!(beside, Failed::Database(_)), "no handler was at work");
        }
    }

    #[test]
    fn what_a_handler_says_is_its_own_unless_the_place_or_the_commit_says_more() {
        let mut blame = Blame::default();
        assert!(matches!(blame.judge(Error::internal("a bug"), true), Failed::Handler(_)));
        assert!(matches!(blame.judge(refused(DatabaseErrorKind::CheckViolation), true), Failed::Handler(_)));
        for in_handler in [false, true] {
            assert!(matches!(blame.judge(place(false).unwrap_err(), in_handler), Failed::Taken));
        }
        let again = AtomicU32::new(1);
        assert!(matches!(blame.judge(split_after_a_conflict(&again, 2).unwrap_err(), true), Failed::Contended));
    }
}
