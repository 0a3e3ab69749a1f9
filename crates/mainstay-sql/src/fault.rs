//! [`DatabaseError`]: what a database refused, in words that are the same for all of them.

use std::fmt;

use mainstay_core::{Code, Error};

/// What the database said, kept as the private source of the [`Error`] that a statement returns.
///
/// `error.downcast_ref::<DatabaseError>()` finds it, for the rare caller who has to know which constraint it was.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DatabaseError {
    /// What kind of refusal it was.
    pub kind: DatabaseErrorKind,
    /// The database's own code: a SQLSTATE, a MySQL error number, an extended SQLite code.
    pub native: String,
    /// The database's own words.
    pub message: String,
    /// The constraint or index by name, where the database tells.
    pub constraint: Option<String>,
}

/// The kinds of [`DatabaseError`] and the [`Code`] each becomes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DatabaseErrorKind {
    /// The statement was cancelled on the server: `Cancelled`.
    Cancelled,
    /// A CHECK constraint: `FailedPrecondition`.
    CheckViolation,
    /// The connection broke, or could not be made: `Unavailable`.
    ConnectionLost,
    /// Chosen as the victim of a deadlock, or gave up waiting for a lock: `Aborted`, tried again by `transaction`.
    Deadlock,
    /// A disk or a quota is full: `ResourceExhausted`.
    DiskFull,
    /// A foreign key: `FailedPrecondition`.
    ForeignKeyViolation,
    /// A NOT NULL column: `FailedPrecondition`.
    NotNullViolation,
    /// Anything else, such as wrong SQL: `Internal`.
    Other,
    /// The database, or its file, takes no writes: `FailedPrecondition`.
    ReadOnly,
    /// A conflict with a concurrent transaction: `Aborted`, tried again by `transaction`.
    Serialization,
    /// A unique or primary key: `AlreadyExists`.
    UniqueViolation,
}

impl DatabaseError {
    pub(crate) fn new(kind: DatabaseErrorKind, native: impl fmt::Display, message: impl Into<String>) -> Self {
        Self { kind, native: native.to_string(), message: message.into(), constraint: None }
    }

    pub(crate) fn with_constraint(mut self, constraint: Option<String>) -> Self {
        self.constraint = constraint;
        self
    }

    /// The error for the caller, with this one as its source.
    #[track_caller]
    pub(crate) fn into_error(self) -> Error {
        use DatabaseErrorKind as Kind;
        let (code, message) = match self.kind {
            Kind::Cancelled => (Code::Cancelled, "the statement was cancelled"),
            Kind::CheckViolation => (Code::FailedPrecondition, "a constraint of the database forbids the change"),
            Kind::ConnectionLost => (Code::Unavailable, "the database can't be reached"),
            Kind::Deadlock => (Code::Aborted, "conflicting changes, try again"),
            Kind::DiskFull => (Code::ResourceExhausted, "the database has no space left"),
            Kind::ForeignKeyViolation => {
                (Code::FailedPrecondition, "something this refers to, or is referred from, forbids the change")
            }
            Kind::NotNullViolation => (Code::FailedPrecondition, "a required value is missing"),
            Kind::Other => (Code::Internal, "internal error"),
            Kind::ReadOnly => (Code::FailedPrecondition, "the database takes no writes"),
            Kind::Serialization => (Code::Aborted, "conflicting changes, try again"),
            Kind::UniqueViolation => (Code::AlreadyExists, "already exists"),
        };
        Error::new(code, message).with_source(self)
    }
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.native)?;
        match &self.constraint {
            Some(constraint) => write!(f, " [{constraint}]"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for DatabaseError {}

/// Marks, in an error's chain, a commit that was sent and whose answer never came: it may have happened or not.
///
/// Such a transaction is never tried again by itself.
#[derive(Clone, Copy, Debug)]
pub struct CommitUnknown;

impl fmt::Display for CommitUnknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection was lost during COMMIT: the transaction may or may not have been committed")
    }
}

impl std::error::Error for CommitUnknown {}
