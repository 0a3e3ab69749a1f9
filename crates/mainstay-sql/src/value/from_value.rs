//! [`FromValue`]: from a cell to a Rust value, strictly. Only what loses nothing is converted.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use uuid::Uuid;

use crate::value::Value;

/// A type that one cell can be turned into.
///
/// The conversions are strict, with the exceptions that portable SQL needs: a truth value from 0 and 1, an integer
/// from an exact number without a fraction (`SUM` of integers is one on PostgreSQL and MySQL), and times, dates,
/// UUIDs, exact numbers and JSON from the text or bytes that SQLite and MySQL keep them as. NULL is an error for
/// everything but `Option` and [`Value`].
///
/// ```
/// use mainstay_sql::{FromValue, Mismatch, Value};
///
/// #[derive(Debug, PartialEq)]
/// enum Status { Open, Closed }
///
/// impl FromValue for Status {
///     fn from_value(value: Value) -> Result<Self, Mismatch> {
///         match &value {
///             Value::Text(text) if text == "open" => Ok(Status::Open),
///             Value::Text(text) if text == "closed" => Ok(Status::Closed),
///             _ => Err(Mismatch::new("`open` or `closed`", &value)),
///         }
///     }
/// }
/// assert_eq!(Status::from_value(Value::from("open")).unwrap(), Status::Open);
/// assert!(Status::from_value(Value::Null).is_err());
/// ```
pub trait FromValue: Sized {
    /// Turns `value` into `Self`, moving what it needs.
    ///
    /// # Errors
    /// [`Mismatch`], which says what was wanted and what was there.
    fn from_value(value: Value) -> Result<Self, Mismatch>;
}

/// A cell was not what the Rust side wanted.
#[derive(Clone, Debug)]
pub struct Mismatch {
    wanted: Cow<'static, str>,
    found: &'static str,
    reason: Option<String>,
}

impl Mismatch {
    /// `wanted` is a type or a set of values in words. Of `found` only the kind is kept, never the content, because
    /// the text goes to logs.
    pub fn new(wanted: impl Into<Cow<'static, str>>, found: &Value) -> Self {
        Self { wanted: wanted.into(), found: found.kind(), reason: None }
    }

    /// Adds why it did not fit, or what to do.
    #[must_use]
    pub fn because(mut self, reason: impl fmt::Display) -> Self {
        self.reason = Some(reason.to_string());
        self
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wanted {}, found {}", self.wanted, self.found)?;
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Mismatch {}

impl Value {
    /// What kind of value this is, in the word that messages use.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::Null => "NULL",
            Value::Bool(_) => "a truth value",
            Value::Int(_) => "an integer",
            Value::Float(_) => "a floating-point number",
            Value::Text(_) => "text",
            Value::Bytes(_) => "bytes",
            Value::Uuid(_) => "a UUID",
            Value::Timestamp(_) => "a timestamp",
            Value::Date(_) => "a date",
            Value::Decimal(_) => "an exact number",
            Value::Json(_) => "JSON",
            Value::Array(_) => "an array",
        }
    }
}

impl FromValue for Value {
    fn from_value(value: Value) -> Result<Self, Mismatch> {
        Ok(value)
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: Value) -> Result<Self, Mismatch> {
        match value {
            Value::Null => Ok(None),
            value => T::from_value(value).map(Some),
        }
    }
}

impl FromValue for bool {
    fn from_value(value: Value) -> Result<Self, Mismatch> {
        match value {
            Value::Bool(value) => Ok(value),
            Value::Int(0) => Ok(false),
            Value::Int(1) => Ok(true),
            Value::Int(_) => Err(Mismatch::new("bool", &value).because("only 0 and 1 are truth values")),
            other => Err(mismatch("bool", &other)),
        }
    }
}

/// Integers come from integers in range, and from exact numbers without a fraction.
macro_rules! integers {
    ($($integer:ty),+) => {$(
        impl FromValue for $integer {
            fn from_value(value: Value) -> Result<Self, Mismatch> {
                let number = match &value {
                    Value::Int(number) => *number,
                    Value::Decimal(number) if number.is_integer() => number.to_i64().ok_or_else(|| {
                        mismatch(stringify!($integer), &value).because("it is out of range")
                    })?,
                    Value::Decimal(_) => {
                        return Err(mismatch(stringify!($integer), &value).because("it has a fraction"));
                    }
                    _ => return Err(mismatch(stringify!($integer), &value)),
                };
                number.try_into().map_err(|_| mismatch(stringify!($integer), &value).because("it is out of range"))
            }
        }
    )+};
}

// `u8` is missing on purpose: `Vec<u8>` is bytes, not an array of integers.
integers!(i8, i16, i32, i64, u16, u32, u64);

impl FromValue for f64 {
    fn from_value(value: Value) -> Result<Self, Mismatch> {
        /// Every integer up to here is a `f64` of its own.
        const EXACT: u64 = 1 << f64::MANTISSA_DIGITS;
        match value {
            Value::Float(number) => Ok(number),
            Value::Int(number) if number.unsigned_abs() <= EXACT => Ok(number as f64),
            Value::Int(_) => Err(mismatch("f64", &value).because("it has more digits than a f64 keeps")),
            // Averages are exact numbers on PostgreSQL and MySQL; a caller who asks for a f64 asks for its precision.
            Value::Decimal(number) => number.to_f64().ok_or_else(|| mismatch("f64", &value)),
            other => Err(mismatch("f64", &other)),
        }
    }
}

impl FromValue for f32 {
    fn from_value(value: Value) -> Result<Self, Mismatch> {
        let found = value.clone();
        let number = f64::from_value(value).map_err(|_| mismatch("f32", &found))?;
        let narrow = number as f32;
        // Digits may be lost, as everywhere with f32; the magnitude may not.
        if narrow.is_infinite() && number.is_finite() {
            return Err(mismatch("f32", &found).because("it is out of range"));
        }
        Ok(narrow)
    }
}

impl FromValue for String {
    fn from_value(value: Value) -> Result<Self, Mismatch> {
        match value {
            Value::Text(text) => Ok(text),
            Value::Json(json) => Ok(json.to_string()),
            other => Err(mismatch("String", &other)),
        }
    }
}

impl FromValue for Box<str> {
    fn from_value(value: Value) -> Result<Self, Mismatch> {
        String::from_value(value).map(String::into_boxed_str)
    }
}

impl FromValue for Vec<u8> {
    fn from_value(value: Value) -> Result<Self, Mismatch> {
        match value {
            Value::Bytes(bytes) => Ok(bytes),
            other => Err(mismatch("bytes", &other)),
        }
    }
}

impl FromValue for Uuid {
    fn from_value(value: Value) -> Result<Self, Mismatch> {
        match value {
            Value::Uuid(uuid) => Ok(uuid),
            Value::Bytes(ref bytes) => {
                Uuid::from_slice(bytes).map_err(|_| mismatch("Uuid", &value).because("a UUID has 16 bytes"))
            }
            Value::Text(ref text) => {
                Uuid::parse_str(text).map_err(|_| mismatch("Uuid", &value).because("it doesn't read as a UUID"))
            }
            other => Err(mismatch("Uuid", &other)),
        }
    }
}

impl FromValue for Timestamp {
    fn from_value(value: Value) -> Result<Self, Mismatch> {
        match value {
            Value::Timestamp(timestamp) => Ok(timestamp),
            Value::Text(ref text) => timestamp_of_text(text)
                .ok_or_else(|| mismatch("Timestamp", &value).because("it doesn't read as a date with a time")),
            other => Err(mismatch("Timestamp", &other)),
        }
    }
}

impl FromValue for Date {
    fn from_value(value: Value) -> Result<Self, Mismatch> {
        match value {
            Value::Date(date) => Ok(date),
            // A text with a time of day would be cut without a word: only `YYYY-MM-DD` is a date.
            Value::Text(ref text) if text.len() == 10 => {
                text.parse().map_err(|_| mismatch("Date", &value).because("it doesn't read as YYYY-MM-DD"))
            }
            other => Err(mismatch("Date", &other)),
        }
    }
}

impl FromValue for Decimal {
    fn from_value(value: Value) -> Result<Self, Mismatch> {
        match value {
            Value::Decimal(number) => Ok(number),
            Value::Int(number) => Ok(number.into()),
            Value::Text(ref text) => Decimal::from_str_exact(text)
                .map_err(|_| mismatch("Decimal", &value).because("it doesn't read as an exact number")),
            Value::Float(_) => Err(mismatch("Decimal", &value)
                .because("a float has lost its last digits; on SQLite declare the column TEXT")),
            other => Err(mismatch("Decimal", &other)),
        }
    }
}

impl FromValue for serde_json::Value {
    fn from_value(value: Value) -> Result<Self, Mismatch> {
        match value {
            Value::Json(json) => Ok(json),
            Value::Text(ref text) => {
                serde_json::from_str(text).map_err(|error| mismatch("JSON", &value).because(error))
            }
            other => Err(mismatch("JSON", &other)),
        }
    }
}

impl<T: FromValue> FromValue for Vec<T> {
    fn from_value(value: Value) -> Result<Self, Mismatch> {
        match value {
            Value::Array(values) => values.into_iter().map(T::from_value).collect(),
            other => Err(mismatch("an array", &other)),
        }
    }
}

/// RFC 3339, or SQLite's own `YYYY-MM-DD HH:MM:SS` (`CURRENT_TIMESTAMP`), which is UTC.
fn timestamp_of_text(text: &str) -> Option<Timestamp> {
    text.parse::<Timestamp>().ok().or_else(|| {
        let time = text.parse::<DateTime>().ok().filter(|_| text.len() > 10)?;
        Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })
}

fn mismatch(wanted: &'static str, found: &Value) -> Mismatch {
    let mismatch = Mismatch::new(wanted, found);
    match found {
        Value::Null => mismatch.because(format_args!("use Option<{wanted}> for a column that may be NULL")),
        _ => mismatch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: FromValue>(value: impl Into<Value>) -> Result<T, String> {
        T::from_value(value.into()).map_err(|mismatch| mismatch.to_string())
    }

    #[test]
    fn integers_are_checked_for_their_range() {
        assert_eq!(read::<i16>(32_767_i64), Ok(32_767));
        assert_eq!(read::<i16>(32_768_i64).unwrap_err(), "wanted i16, found an integer: it is out of range");
        assert!(read::<u64>(-1_i64).is_err());
        assert_eq!(read::<i64>(i64::MIN), Ok(i64::MIN));
        assert_eq!(read::<i64>(Decimal::new(700, 2)), Ok(7));
        assert!(read::<i64>(Decimal::new(701, 2)).is_err());
        assert!(read::<i64>(Decimal::MAX).is_err());
        assert!(read::<i64>(1.0).is_err());
    }

    #[test]
    fn floats_refuse_integers_they_would_change() {
        assert_eq!(read::<f64>((1_i64 << 53) - 1), Ok(9_007_199_254_740_991.0));
        assert!(read::<f64>((1_i64 << 53) + 1).is_err());
        assert!(read::<f32>(f64::MAX).is_err());
        assert_eq!(read::<f32>(f64::INFINITY), Ok(f32::INFINITY));
    }

    #[test]
    fn null_is_refused_with_the_way_out() {
        assert_eq!(
            read::<String>(Value::Null).unwrap_err(),
            "wanted String, found NULL: use Option<String> for a column that may be NULL"
        );
        assert_eq!(read::<Option<String>>(Value::Null), Ok(None));
        assert_eq!(read::<Value>(Value::Null), Ok(Value::Null));
    }

    #[test]
    fn truth_values_are_zero_and_one_only() {
        assert_eq!((read::<bool>(0_i64), read::<bool>(1_i64), read::<bool>(true)), (Ok(false), Ok(true), Ok(true)));
        assert!(read::<bool>(2_i64).is_err());
        assert!(read::<bool>("true").is_err());
    }

    #[test]
    fn times_are_read_from_the_texts_sqlite_keeps() {
        let wanted: Timestamp = "2026-11-22T20:00:01Z".parse().unwrap();
        assert_eq!(read::<Timestamp>("2026-11-22T20:00:01.000000Z"), Ok(wanted));
        assert_eq!(read::<Timestamp>("2026-11-22 20:00:01"), Ok(wanted));
        assert!(read::<Timestamp>("2026-11-22").is_err());
        assert!(read::<Timestamp>("yesterday").is_err());
        assert_eq!(read::<Date>("2026-11-22"), Ok(jiff::civil::date(2026, 11, 22)));
        assert!(read::<Date>("2026-11-22 20:00:01").is_err());
    }

    #[test]
    fn a_float_never_becomes_an_exact_number() {
        assert!(read::<Decimal>(0.1).unwrap_err().contains("TEXT"));
        assert_eq!(read::<Decimal>("0.10"), Ok(Decimal::new(10, 2)));
        assert!(read::<Decimal>("0.10000000000000000000000000000000001").is_err());
    }

    #[test]
    fn content_never_reaches_a_message() {
        assert!(!read::<i64>("hunter2").unwrap_err().contains("hunter2"));
        assert!(!read::<Uuid>("hunter2").unwrap_err().contains("hunter2"));
    }

    #[test]
    fn bytes_and_arrays_keep_apart() {
        assert_eq!(read::<Vec<u8>>(vec![1_u8, 2]), Ok(vec![1, 2]));
        assert_eq!(read::<Vec<i32>>(vec![1_i32, 2]), Ok(vec![1, 2]));
        assert_eq!(read::<Vec<Option<i32>>>(vec![Some(1_i32), None]), Ok(vec![Some(1), None]));
        assert!(read::<Vec<i32>>(vec![1_u8, 2]).is_err());
    }
}
