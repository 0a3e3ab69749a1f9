//! `From<…> for Value`: everything that can be bound. What would not fit (`u64`, `usize`) doesn't compile.

use std::borrow::Cow;

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan, Unit};
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::value::Value;

macro_rules! from {
    ($($from:ty => |$value:ident| $into:expr;)+) => {$(
        impl From<$from> for Value {
            fn from($value: $from) -> Self {
                $into
            }
        }
    )+};
}

from! {
    bool => |value| Value::Bool(value);
    i8 => |value| Value::Int(value.into());
    i16 => |value| Value::Int(value.into());
    i32 => |value| Value::Int(value.into());
    i64 => |value| Value::Int(value);
    u16 => |value| Value::Int(value.into());
    u32 => |value| Value::Int(value.into());
    f32 => |value| Value::Float(value.into());
    f64 => |value| Value::Float(value);
    String => |value| Value::Text(value);
    &str => |value| Value::Text(value.to_owned());
    Cow<'_, str> => |value| Value::Text(value.into_owned());
    Box<str> => |value| Value::Text(value.into_string());
    Vec<u8> => |value| Value::Bytes(value);
    &[u8] => |value| Value::Bytes(value.to_vec());
    Uuid => |value| Value::Uuid(value);
    Timestamp => |value| Value::Timestamp(truncate_to_micros(value));
    Date => |value| Value::Date(value);
    Decimal => |value| Value::Decimal(value);
    serde_json::Value => |value| Value::Json(value);
}

impl<const N: usize> From<[u8; N]> for Value {
    fn from(value: [u8; N]) -> Self {
        Value::Bytes(value.to_vec())
    }
}

/// `None` is NULL.
impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Self {
        Value::Array(values.into_iter().map(Into::into).collect())
    }
}

/// A borrowed value is cloned.
impl<T: Clone + Into<Value>> From<&T> for Value {
    fn from(value: &T) -> Self {
        value.clone().into()
    }
}

/// Cuts `timestamp` to whole microseconds, towards the past: what every database keeps.
///
/// Binding does it by itself; call it where a value is compared with what was read back.
pub fn truncate_to_micros(timestamp: Timestamp) -> Timestamp {
    let rest = timestamp.subsec_nanosecond().rem_euclid(1_000);
    // The nanoseconds of a time before 1970 are negative; rem_euclid makes the cut go to the past there too.
    timestamp.checked_sub(i64::from(rest).nanoseconds()).unwrap_or_else(|_| {
        // Only within a microsecond of the first representable instant: cut towards zero instead.
        timestamp.round(Unit::Microsecond).unwrap_or(timestamp)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_cut_to_microseconds_towards_the_past() {
        let cut = |nanoseconds| truncate_to_micros(Timestamp::from_nanosecond(nanoseconds).unwrap()).as_nanosecond();
        assert_eq!(cut(1_999), 1_000);
        assert_eq!(cut(1_000), 1_000);
        assert_eq!(cut(-1), -1_000);
        assert_eq!(cut(-1_000), -1_000);
        assert_eq!(cut(-1_000_000_001), -1_000_001_000);
        assert_eq!(truncate_to_micros(Timestamp::MAX).subsec_nanosecond() % 1_000, 0);
        assert_eq!(truncate_to_micros(Timestamp::MIN).subsec_nanosecond() % 1_000, 0);
    }

    #[test]
    fn the_usual_types_bind() {
        assert_eq!(Value::from(Some(3_i32)), Value::Int(3));
        assert_eq!(Value::from(None::<&str>), Value::Null);
        assert_eq!(Value::from(&String::from("a")), Value::from("a"));
        assert_eq!(Value::from(Some(&7_i64)), Value::Int(7));
        assert_eq!(Value::from(&[1_u8, 2][..]), Value::from(vec![1_u8, 2]));
        assert_eq!(Value::from(vec!["a", "b"]), Value::Array(vec![Value::from("a"), Value::from("b")]));
        assert_eq!(Value::from(&Value::Null), Value::Null);
    }
}
