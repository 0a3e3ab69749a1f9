//! [`Value`]: the currency between Rust types and the columns of three databases.

use jiff::Timestamp;
use jiff::civil::Date;
use rust_decimal::Decimal;
use uuid::Uuid;

mod from_value;
mod into_value;

pub use from_value::{FromValue, Mismatch};
pub use into_value::truncate_to_micros;

/// One bound value or one cell of a row.
///
/// | Rust | PostgreSQL | MySQL/MariaDB | SQLite |
/// |---|---|---|---|
/// | `bool` | `BOOLEAN` | `TINYINT(1)` | `INTEGER` 0/1 |
/// | `i16` `i32` `i64` `u32` | `SMALLINT` `INTEGER` `BIGINT` | the same | `INTEGER` |
/// | `f32` `f64` | `REAL` `DOUBLE PRECISION` | `FLOAT` `DOUBLE` | `REAL` |
/// | `String` `&str` | `TEXT` `VARCHAR` | `VARCHAR` `TEXT` | `TEXT` |
/// | `Vec<u8>` `&[u8]` | `BYTEA` | `VARBINARY` `BLOB` | `BLOB` |
/// | `Uuid` | `UUID` | `BINARY(16)` | `BLOB`, 16 bytes |
/// | `jiff::Timestamp` | `TIMESTAMPTZ` | `DATETIME(6)`, UTC | `TEXT`, RFC 3339 UTC with 6 digits |
/// | `jiff::civil::Date` | `DATE` | `DATE` | `TEXT`, `YYYY-MM-DD` |
/// | `Decimal` | `NUMERIC` | `DECIMAL` | `TEXT` |
/// | `serde_json::Value` | `JSONB` `JSON` | `JSON` | `TEXT` |
/// | `Vec<T>` | arrays | refused | refused |
///
/// Timestamps are cut to microseconds when they are bound, so that what is read equals what was written everywhere.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A truth value.
    Bool(bool),
    /// Every integer.
    Int(i64),
    /// Every floating-point number.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A UUID.
    Uuid(Uuid),
    /// A point in time.
    Timestamp(Timestamp),
    /// A day without a time.
    Date(Date),
    /// An exact number.
    Decimal(Decimal),
    /// A JSON document.
    Json(serde_json::Value),
    /// A list, where the database has arrays.
    Array(Vec<Value>),
}
