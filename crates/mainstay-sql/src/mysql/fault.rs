//! MySQL's and MariaDB's error numbers as [`DatabaseError`]s.

use mainstay_core::{Code, Error, Result};
use mysql_async::{DriverError, Error as MysqlError, IoError, ServerError};

use crate::fault::{DatabaseError, DatabaseErrorKind};
use crate::tls;

/// A statement was killed, by `KILL QUERY` or by its own time limit.
pub(super) const INTERRUPTED: u16 = 1317;
/// The statement is none that can be prepared.
pub(super) const UNSUPPORTED_PREPARED: u16 = 1295;

/// A failure of a statement for the caller.
#[track_caller]
pub(super) fn error_of(error: MysqlError) -> Error {
    fault_of(error).into_error()
}

/// As `?` on a result of the driver.
#[track_caller]
pub(super) fn check<T>(result: mysql_async::Result<T>) -> Result<T> {
    match result {
        Ok(value) => Ok(value),
        Err(error) => Err(error_of(error)),
    }
}

/// What the server said, as it is kept in an error's chain.
pub(super) fn fault_of(error: MysqlError) -> DatabaseError {
    match error {
        MysqlError::Server(ServerError { code, message, .. }) => {
            let constraint = constraint_of(code, &message);
            DatabaseError::new(kind_of(code), code, message).with_constraint(constraint)
        }
        MysqlError::Io(error) => DatabaseError::new(DatabaseErrorKind::ConnectionLost, "io", error.to_string()),
        MysqlError::Driver(error) => {
            let kind = match error {
                DriverError::ConnectionClosed => DatabaseErrorKind::ConnectionLost,
                _ => DatabaseErrorKind::Other,
            };
            DatabaseError::new(kind, "driver", error.to_string())
        }
        other => DatabaseError::new(DatabaseErrorKind::Other, "driver", other.to_string()),
    }
}

/// Whether the connection may go on after `error`: the server answered, and the protocol is where it should be.
pub(super) fn leaves_usable(error: &MysqlError) -> bool {
    match error {
        MysqlError::Server(error) => kind_of(error.code) != DatabaseErrorKind::ConnectionLost,
        MysqlError::Driver(error) => matches!(
            error,
            DriverError::StmtParamsMismatch { .. }
                | DriverError::StmtParamsNumberExceedsLimit { .. }
                | DriverError::MixedParams
                | DriverError::Params(_)
        ),
        _ => false,
    }
}

/// The error for a connection that can't be made. `place` names the server without the password.
pub(super) fn explain(error: MysqlError, place: &str) -> Error {
    let number = match &error {
        MysqlError::Server(error) => error.code,
        MysqlError::Driver(DriverError::NoClientSslFlagFromServer) => return tls::no_tls(&place),
        MysqlError::Io(IoError::Io(error)) => match tls::refused_certificate(error, &place) {
            Some(refused) => return refused,
            None => 0,
        },
        _ => 0,
    };
    let fault = fault_of(error);
    let (what, remedy) = match number {
        1044 => ("the database refuses this user", "grant the user access to the database"),
        1045 | 1698 => ("the database refuses this user", "check user and password in the url"),
        1049 => ("the database doesn't exist", "create it, or correct its name in the url"),
        1040 | 1203 => {
            return Error::unavailable("the database has no connection left")
                .with_source(fault)
                .context(format!("connecting to {place}: raise the server's limit or lower `max_connections`"));
        }
        _ => return fault.into_error().context(format!("connecting to {place}")),
    };
    Error::new(Code::FailedPrecondition, what).with_source(fault).context(format!("connecting to {place}: {remedy}"))
}

/// Whether TLS was wanted and did not come about, for a reason of its own.
pub(super) fn tls_failed(error: &MysqlError) -> bool {
    match error {
        MysqlError::Driver(DriverError::NoClientSslFlagFromServer) | MysqlError::Io(IoError::Tls(_)) => true,
        MysqlError::Io(IoError::Io(error)) => tls::rustls_error(error).is_some(),
        _ => false,
    }
}

fn kind_of(code: u16) -> DatabaseErrorKind {
    use DatabaseErrorKind as Kind;
    match code {
        1022 | 1062 | 1169 | 1586 => Kind::UniqueViolation,
        1216 | 1217 | 1451 | 1452 => Kind::ForeignKeyViolation,
        1048 | 1364 | 1566 => Kind::NotNullViolation,
        3819 | 4025 => Kind::CheckViolation,
        1205 | 1213 | 3572 => Kind::Deadlock,
        // MariaDB: the record has changed since the transaction's snapshot.
        1020 => Kind::Serialization,
        INTERRUPTED | 1028 | 1969 | 3024 => Kind::Cancelled,
        1036 | 1290 | 1792 | 1836 => Kind::ReadOnly,
        1021 | 1114 => Kind::DiskFull,
        // The server stops, killed the connection, or closed it because it was idle.
        1053 | 1077 | 1079 | 1152 | 1158 | 1159 | 1160 | 1161 | 1184 | 1927 | 4031 => Kind::ConnectionLost,
        _ => Kind::Other,
    }
}

fn constraint_of(code: u16, message: &str) -> Option<String> {
    let name = match code {
        // Duplicate entry 'x' for key 'table.name', or 'name' on MariaDB. The entry may hold quotes: look from the end.
        1062 | 1586 => {
            let (_, key) = message.rsplit_once(" for key '")?;
            let key = key.strip_suffix('\'').unwrap_or(key);
            key.rsplit_once('.').map_or(key, |(_, name)| name)
        }
        1451 | 1452 => between(message, "CONSTRAINT `", "`")?,
        1048 => between(message, "Column '", "'")?,
        1364 => between(message, "Field '", "'")?,
        3819 => between(message, "constraint '", "'")?,
        4025 => between(message, "CONSTRAINT `", "`")?,
        _ => return None,
    };
    Some(name.to_owned())
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    rest.split_once(end).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_constraint() {
        let fault = |code, message: &str| {
            let fault = fault_of(MysqlError::Server(ServerError { code, message: message.into(), state: "".into() }));
            (fault.kind, fault.constraint.unwrap_or_default())
        };
        use DatabaseErrorKind as Kind;
        assert_eq!(
            fault(1062, "Duplicate entry ' for key 'x' for key 'a.lower_b'"),
            (Kind::UniqueViolation, "lower_b".to_owned())
        );
        assert_eq!(fault(1062, "Duplicate entry '1' for key 'PRIMARY'"), (Kind::UniqueViolation, "PRIMARY".to_owned()));
        let foreign = "Cannot add or update a child row: a foreign key constraint fails \
                       (`shop`.`lines`, CONSTRAINT `lines_order` FOREIGN KEY (`order_id`) REFERENCES `orders` (`id`))";
        assert_eq!(fault(1452, foreign), (Kind::ForeignKeyViolation, "lines_order".to_owned()));
        assert_eq!(fault(1048, "Column 'b' cannot be null"), (Kind::NotNullViolation, "b".to_owned()));
        assert_eq!(fault(4025, "CONSTRAINT `small` failed for `shop`.`a`"), (Kind::CheckViolation, "small".to_owned()));
        assert_eq!(fault(3819, "Check constraint 'small' is violated."), (Kind::CheckViolation, "small".to_owned()));
        assert_eq!(fault(1064, "You have an error"), (Kind::Other, String::new()));
    }
}
