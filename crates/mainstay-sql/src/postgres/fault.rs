//! From PostgreSQL's SQLSTATEs to [`DatabaseErrorKind`].

use std::error::Error as _;
use std::io;

use mainstay_core::Error;
use tokio_postgres::error::DbError;

use super::encode::Unfit;
use crate::fault::{DatabaseError, DatabaseErrorKind};
use crate::settings::Server;
use crate::tls;

/// What `tokio-postgres` says, as an [`Error`].
pub(super) fn error(error: tokio_postgres::Error) -> Error {
    if let Some(server) = error.as_db_error() {
        return from_server(server).into_error();
    }
    if let Some(unfit) = error.source().and_then(|source| source.downcast_ref::<Unfit>()) {
        return Error::internal(unfit.to_string());
    }
    let broken = error.is_closed() || error.source().is_some_and(|source| source.is::<std::io::Error>());
    let kind = if broken { DatabaseErrorKind::ConnectionLost } else { DatabaseErrorKind::Other };
    let message = match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    DatabaseError::new(kind, if broken { "08006" } else { "client" }, message).into_error()
}

/// A login that no other try will change, with what to do about it.
pub(super) fn refused_login(error: &tokio_postgres::Error, server: &Server) -> Option<Error> {
    let refused = error.as_db_error()?;
    let what = match refused.code().code() {
        "28P01" | "28000" => format!(
            "PostgreSQL refused user `{}` at {server}: check user and password in the database url, and pg_hba.conf",
            server.user
        ),
        "3D000" => format!("there is no such database at {server}: create it, or correct the database url"),
        "42501" => format!("user `{}` may not connect to {server}: grant CONNECT on the database", server.user),
        _ => return None,
    };
    Some(Error::failed_precondition("the database refused the login").with_source(from_server(refused)).context(what))
}

/// A server that has no TLS, or whose certificate is not good, with what to do about it.
pub(super) fn refused_tls(error: &tokio_postgres::Error, server: &Server) -> Option<Error> {
    if !is_of_handshake(error) {
        return None;
    }
    match error.source()?.downcast_ref::<io::Error>() {
        Some(error) => tls::refused_certificate(error, server),
        None => Some(tls::no_tls(server)), // the driver's own refusal; handshakes fail by I/O errors
    }
}

/// Whether TLS was begun and did not come about, for a reason of its own.
pub(super) fn tls_failed(error: &tokio_postgres::Error) -> bool {
    let broken = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    is_of_handshake(error) && broken.is_some_and(|error| tls::rustls_error(error).is_some())
}

/// The driver tells its errors apart by their text only.
fn is_of_handshake(error: &tokio_postgres::Error) -> bool {
    error.to_string() == "error performing TLS handshake"
}

/// Whether the server itself ended the statement, or never saw it: then nothing of it is running.
pub(super) fn statement_is_over(error: &Error) -> bool {
    match of(error) {
        Some(fault) => fault.kind != DatabaseErrorKind::ConnectionLost && fault.native != "client",
        None => false,
    }
}

/// What the server said, if it is in the chain.
pub(super) fn of(error: &Error) -> Option<&DatabaseError> {
    error.downcast_ref::<DatabaseError>()
}

/// Whether a prepared statement has to be prepared again, because a migration changed what it returns, or a pooler
/// between us and the server forgot it. Nothing was run.
pub(super) fn is_stale_plan(fault: &DatabaseError) -> bool {
    fault.native == "26000" || (fault.native == "0A000" && fault.message.contains("cached plan"))
}

fn from_server(error: &DbError) -> DatabaseError {
    let state = error.code().code();
    let mut message = error.message().to_owned();
    for more in [error.detail(), error.hint()].into_iter().flatten() {
        message.push_str("; ");
        message.push_str(more);
    }
    DatabaseError::new(kind(state), state, message).with_constraint(error.constraint().map(str::to_owned))
}

fn kind(state: &str) -> DatabaseErrorKind {
    use DatabaseErrorKind as Kind;
    match state {
        "23502" => Kind::NotNullViolation,
        "23503" => Kind::ForeignKeyViolation,
        "23505" | "23P01" => Kind::UniqueViolation, // and exclusion constraints
        "23514" => Kind::CheckViolation,
        "25006" => Kind::ReadOnly,
        "40001" => Kind::Serialization,
        "40P01" | "55P03" => Kind::Deadlock,
        "53100" | "53200" => Kind::DiskFull,
        "57014" => Kind::Cancelled,
        // Shutting down, crashed, starting up; too many connections, by the server or for the role.
        "57P01" | "57P02" | "57P03" | "57P05" | "53300" => Kind::ConnectionLost,
        _ if state.starts_with("08") => Kind::ConnectionLost,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_become_kinds() {
        assert_eq!(kind("23505"), DatabaseErrorKind::UniqueViolation);
        assert_eq!(kind("08003"), DatabaseErrorKind::ConnectionLost);
        assert_eq!(kind("42601"), DatabaseErrorKind::Other);
    }

    #[test]
    fn only_a_cached_plan_is_stale() {
        let fault = |state: &str, message: &str| DatabaseError::new(kind(state), state, message);
        assert!(is_stale_plan(&fault("0A000", "cached plan must not change result type")));
        assert!(!is_stale_plan(&fault("0A000", "cannot insert into view")));
    }
}
