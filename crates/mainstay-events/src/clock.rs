//! The database's clock: the only one that processes agree about. Times are whole milliseconds since 1970.

/// A statement with the database's time where the pieces meet: `clocked!["UPDATE t SET at = ", " WHERE id = $1"]`.
macro_rules! clocked {
    ($first:literal $(, $rest:literal)+ $(,)?) => {
        ::mainstay_sql::sql! {
            postgres: ::core::concat!($first $(, "(extract(epoch FROM clock_timestamp()) * 1000)::bigint", $rest)+),
            mysql: ::core::concat!(
                $first $(, "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000)", $rest)+
            ),
            sqlite: ::core::concat!($first $(, "CAST(unixepoch('subsec') * 1000 AS INTEGER)", $rest)+),
        }
    };
}

pub(crate) use clocked;

/// `duration` in the unit of the clock.
pub(crate) fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}
