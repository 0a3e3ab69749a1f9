//! SQLite's result codes as [`DatabaseError`]s.

use mainstay_core::{Error, Result};
use rusqlite::ffi;

use crate::fault::{DatabaseError, DatabaseErrorKind};

/// A failure of SQLite for the caller.
#[track_caller]
pub(super) fn error_of(error: rusqlite::Error) -> Error {
    fault_of(error).into_error()
}

/// What SQLite said, as it is kept in an error's chain.
pub(super) fn fault_of(error: rusqlite::Error) -> DatabaseError {
    match error {
        rusqlite::Error::SqliteFailure(failure, message) => {
            let message = message.unwrap_or_else(|| failure.to_string());
            let code = failure.extended_code;
            DatabaseError::new(kind_of(code), code, &*message).with_constraint(constraint_of(code, &message))
        }
        rusqlite::Error::SqlInputError { error, msg, offset, .. } => {
            let message = if offset < 0 { msg } else { format!("{msg}, at byte {offset} of the statement") };
            DatabaseError::new(kind_of(error.extended_code), error.extended_code, message)
        }
        rusqlite::Error::MultipleStatement => {
            DatabaseError::new(DatabaseErrorKind::Other, ffi::SQLITE_MISUSE, "more than one statement in one call")
        }
        other => DatabaseError::new(DatabaseErrorKind::Other, ffi::SQLITE_ERROR, other.to_string()),
    }
}

/// As `?` on a result of SQLite.
#[track_caller]
pub(super) fn check<T>(result: rusqlite::Result<T>) -> Result<T> {
    match result {
        Ok(value) => Ok(value),
        Err(error) => Err(error_of(error)),
    }
}

fn kind_of(code: i32) -> DatabaseErrorKind {
    use DatabaseErrorKind as Kind;
    match code {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
            return Kind::UniqueViolation;
        }
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => return Kind::ForeignKeyViolation,
        ffi::SQLITE_CONSTRAINT_NOTNULL => return Kind::NotNullViolation,
        ffi::SQLITE_CONSTRAINT_CHECK | ffi::SQLITE_CONSTRAINT_TRIGGER | ffi::SQLITE_CONSTRAINT_DATATYPE => {
            return Kind::CheckViolation;
        }
        ffi::SQLITE_BUSY_SNAPSHOT => return Kind::Serialization,
        _ => {}
    }
    match code & 0xff {
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => Kind::Deadlock,
        ffi::SQLITE_FULL => Kind::DiskFull,
        ffi::SQLITE_READONLY => Kind::ReadOnly,
        ffi::SQLITE_INTERRUPT => Kind::Cancelled,
        ffi::SQLITE_CANTOPEN | ffi::SQLITE_IOERR => Kind::ConnectionLost,
        _ => Kind::Other,
    }
}

/// SQLite names columns where others name constraints: `UNIQUE constraint failed: orders.id` gives `orders.id`.
fn constraint_of(code: i32, message: &str) -> Option<String> {
    if code & 0xff != ffi::SQLITE_CONSTRAINT {
        return None;
    }
    let (_, name) = message.split_once(" constraint failed: ")?;
    Some(name.strip_prefix("index ").unwrap_or(name).trim_matches('\'').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_core::Code;

    fn fault(setup: &str, sql: &str) -> DatabaseError {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        connection.execute_batch("PRAGMA foreign_keys = ON").unwrap();
        connection.execute_batch(setup).unwrap();
        fault_of(connection.execute(sql, []).unwrap_err())
    }

    #[test]
    fn refusals_are_told_apart_and_name_what_was_violated() {
        use DatabaseErrorKind as Kind;
        let setup = "CREATE TABLE a (id INTEGER PRIMARY KEY, b TEXT NOT NULL, c INT UNIQUE, d INT REFERENCES a,
                     CONSTRAINT small CHECK (c < 10)); CREATE UNIQUE INDEX lower_b ON a (lower(b));
                     INSERT INTO a VALUES (1, 'x', 1, NULL)";
        for (sql, kind, code, constraint) in [
            ("INSERT INTO a VALUES (1, 'y', 2, NULL)", Kind::UniqueViolation, Code::AlreadyExists, Some("a.id")),
            ("INSERT INTO a VALUES (2, 'y', 1, NULL)", Kind::UniqueViolation, Code::AlreadyExists, Some("a.c")),
            ("INSERT INTO a VALUES (2, 'X', 2, NULL)", Kind::UniqueViolation, Code::AlreadyExists, Some("lower_b")),
            ("INSERT INTO a VALUES (2, NULL, 2, NULL)", Kind::NotNullViolation, Code::FailedPrecondition, Some("a.b")),
            ("INSERT INTO a VALUES (2, 'y', 22, NULL)", Kind::CheckViolation, Code::FailedPrecondition, Some("small")),
            ("INSERT INTO a VALUES (2, 'y', 2, 99)", Kind::ForeignKeyViolation, Code::FailedPrecondition, None),
            ("SELECT nothing FROM a", Kind::Other, Code::Internal, None),
            ("SELEKT 1", Kind::Other, Code::Internal, None),
        ] {
            let fault = fault(setup, sql);
            assert_eq!((fault.kind, fault.constraint.as_deref()), (kind, constraint), "{sql}: {fault}");
            assert_eq!(fault.into_error().code(), code, "{sql}");
        }
    }
}
