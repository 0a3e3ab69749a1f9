//! Between [`Value`] and MySQL's binary protocol.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use mainstay_core::{Error, Result};
use mysql_async::consts::ColumnType;
use mysql_async::{Column, Value as MysqlValue};
use rust_decimal::Decimal;

use crate::value::Value;

/// The character set of columns that hold bytes.
const BINARY: u16 = 63;

/// The values in the order of the placeholders.
pub(super) fn params(values: &[Value], order: &[usize]) -> Result<Vec<MysqlValue>> {
    let param = |index: &usize| {
        let value = values
            .get(*index)
            .ok_or_else(|| Error::internal(format!("`${}` has no value: {} are bound", index + 1, values.len())))?;
        cell_of(value).map_err(|error| error.context(format!("binding ${}", index + 1)))
    };
    order.iter().map(param).collect()
}

/// One cell of an answer.
pub(super) fn value_of(cell: MysqlValue, column: &Column) -> Result<Value> {
    Ok(match cell {
        MysqlValue::NULL => Value::Null,
        MysqlValue::Int(number) => Value::Int(number),
        MysqlValue::UInt(number) => Value::Int(i64::try_from(number).map_err(|_| {
            Error::internal(format!("column `{}` holds an unsigned number above the range of i64", column.name_str()))
        })?),
        MysqlValue::Float(number) => Value::Float(number.into()),
        MysqlValue::Double(number) => Value::Float(number),
        MysqlValue::Date(year, month, day, hour, minute, second, micro) => {
            let time = moment(year, month, day, hour, minute, second, micro).ok_or_else(|| {
                Error::internal(format!("column `{}` holds a date that doesn't exist", column.name_str()))
            })?;
            match column.column_type() {
                ColumnType::MYSQL_TYPE_DATE | ColumnType::MYSQL_TYPE_NEWDATE => Value::Date(time.date()),
                _ => timestamp(time)?,
            }
        }
        MysqlValue::Time(negative, days, hours, minutes, seconds, micros) => {
            let sign = if negative { "-" } else { "" };
            let hours = u64::from(days) * 24 + u64::from(hours);
            Value::Text(format!("{sign}{hours:02}:{minutes:02}:{seconds:02}.{micros:06}"))
        }
        MysqlValue::Bytes(bytes) => of_bytes(bytes, column),
    })
}

fn of_bytes(bytes: Vec<u8>, column: &Column) -> Value {
    use ColumnType as Type;
    let numeric = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::trim).map(str::to_owned);
    match column.column_type() {
        // A number of more digits than Decimal keeps stays readable as text.
        Type::MYSQL_TYPE_DECIMAL | Type::MYSQL_TYPE_NEWDECIMAL => {
            match numeric(&bytes).and_then(|text| Decimal::from_str_exact(&text).ok()) {
                Some(number) => Value::Decimal(number),
                None => text_or_bytes(bytes),
            }
        }
        Type::MYSQL_TYPE_BIT if bytes.len() <= 8 => {
            let number = bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
            i64::try_from(number).map_or(Value::Bytes(bytes), Value::Int)
        }
        // Statements that can't be prepared answer in text.
        Type::MYSQL_TYPE_TINY
        | Type::MYSQL_TYPE_SHORT
        | Type::MYSQL_TYPE_INT24
        | Type::MYSQL_TYPE_LONG
        | Type::MYSQL_TYPE_LONGLONG
        | Type::MYSQL_TYPE_YEAR => {
            numeric(&bytes).and_then(|text| text.parse().ok()).map_or_else(|| text_or_bytes(bytes), Value::Int)
        }
        Type::MYSQL_TYPE_FLOAT | Type::MYSQL_TYPE_DOUBLE => {
            numeric(&bytes).and_then(|text| text.parse().ok()).map_or_else(|| text_or_bytes(bytes), Value::Float)
        }
        Type::MYSQL_TYPE_JSON => text_or_bytes(bytes),
        _ if column.character_set() == BINARY => Value::Bytes(bytes),
        _ => text_or_bytes(bytes),
    }
}

/// Text, unless it is none: a parameter of bytes in `SELECT $1` comes back in the connection's character set.
fn text_or_bytes(bytes: Vec<u8>) -> Value {
    String::from_utf8(bytes).map_or_else(|error| Value::Bytes(error.into_bytes()), Value::Text)
}

fn cell_of(value: &Value) -> Result<MysqlValue> {
    Ok(match value {
        Value::Null => MysqlValue::NULL,
        Value::Bool(value) => MysqlValue::Int((*value).into()),
        Value::Int(value) => MysqlValue::Int(*value),
        Value::Float(value) if !value.is_finite() => {
            return Err(Error::internal("MySQL can't store a float that is infinite or not a number (NaN)"));
        }
        Value::Float(value) => MysqlValue::Double(*value),
        Value::Text(value) => MysqlValue::Bytes(value.as_bytes().to_vec()),
        Value::Bytes(value) => MysqlValue::Bytes(value.clone()),
        Value::Uuid(value) => MysqlValue::Bytes(value.as_bytes().to_vec()),
        Value::Timestamp(value) => cell_of_time(TimeZone::UTC.to_datetime(*value))?,
        Value::Date(value) => cell_of_time(value.to_datetime(jiff::civil::Time::midnight()))?,
        Value::Decimal(value) => MysqlValue::Bytes(value.to_string().into_bytes()),
        Value::Json(value) => MysqlValue::Bytes(value.to_string().into_bytes()),
        Value::Array(_) => {
            return Err(Error::internal("MySQL has no arrays: bind JSON, or one placeholder for each element"));
        }
    })
}

fn cell_of_time(time: DateTime) -> Result<MysqlValue> {
    let year = u16::try_from(time.year()).map_err(|_| Error::internal("MySQL keeps no years before 0"))?;
    // Parts of a civil time are never negative.
    let part = |part: i8| part.unsigned_abs();
    Ok(MysqlValue::Date(
        year,
        part(time.month()),
        part(time.day()),
        part(time.hour()),
        part(time.minute()),
        part(time.second()),
        time.subsec_nanosecond().unsigned_abs() / 1_000,
    ))
}

fn moment(year: u16, month: u8, day: u8, hour: u8, minute: u8, second: u8, micro: u32) -> Option<DateTime> {
    let small = |part: u8| i8::try_from(part).ok();
    let day = Date::new(i16::try_from(year).ok()?, small(month)?, small(day)?).ok()?;
    let nanosecond = i32::try_from(micro.checked_mul(1_000)?).ok()?;
    let time = jiff::civil::Time::new(small(hour)?, small(minute)?, small(second)?, nanosecond).ok()?;
    Some(day.to_datetime(time))
}

/// The session's time zone is UTC, whatever the server's.
fn timestamp(time: DateTime) -> Result<Value> {
    let zoned = time.to_zoned(TimeZone::UTC);
    Ok(Value::Timestamp(
        zoned.map_err(|error| Error::internal("a timestamp out of range").with_source(error))?.timestamp(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn column(kind: ColumnType, character_set: u16) -> Column {
        Column::new(kind).with_name(b"c").with_character_set(character_set)
    }

    #[test]
    fn cells_become_what_their_columns_are() {
        use ColumnType as Type;
        let of = |cell, kind, set| value_of(cell, &column(kind, set)).map_err(|error| error.report().to_string());
        let bytes = |text: &str| MysqlValue::Bytes(text.as_bytes().to_vec());
        assert_eq!(of(bytes("12.30"), Type::MYSQL_TYPE_NEWDECIMAL, 63), Ok(Value::Decimal(Decimal::new(1230, 2))));
        let long = "1".repeat(65);
        assert_eq!(of(bytes(&long), Type::MYSQL_TYPE_NEWDECIMAL, 63), Ok(Value::Text(long)));
        assert_eq!(of(bytes("{}"), Type::MYSQL_TYPE_JSON, 63), Ok(Value::from("{}")));
        assert_eq!(of(bytes("a"), Type::MYSQL_TYPE_BLOB, 63), Ok(Value::from(&b"a"[..])));
        assert_eq!(of(bytes("a"), Type::MYSQL_TYPE_BLOB, 45), Ok(Value::from("a")));
        assert_eq!(of(MysqlValue::Bytes(vec![1, 1]), Type::MYSQL_TYPE_BIT, 63), Ok(Value::Int(257)));
        assert_eq!(of(bytes("-7"), Type::MYSQL_TYPE_LONG, 63), Ok(Value::Int(-7)));
        assert!(of(MysqlValue::UInt(u64::MAX), Type::MYSQL_TYPE_LONGLONG, 63).is_err());
        let day = MysqlValue::Date(2026, 2, 28, 0, 0, 0, 0);
        assert_eq!(of(day.clone(), Type::MYSQL_TYPE_DATE, 63), Ok(Value::Date(date(2026, 2, 28))));
        let wanted: jiff::Timestamp = "2026-02-28T00:00:00Z".parse().unwrap();
        assert_eq!(of(day, Type::MYSQL_TYPE_DATETIME, 63), Ok(Value::Timestamp(wanted)));
        assert!(of(MysqlValue::Date(0, 0, 0, 0, 0, 0, 0), Type::MYSQL_TYPE_DATE, 63).is_err());
        let time = MysqlValue::Time(true, 1, 2, 3, 4, 5);
        assert_eq!(of(time, Type::MYSQL_TYPE_TIME, 63), Ok(Value::from("-26:03:04.000005")));
    }

    #[test]
    fn values_go_to_their_placeholders() {
        let values = [Value::Int(1), Value::from("b")];
        let bound = params(&values, &[1, 0, 1]).unwrap();
        assert_eq!(bound, [MysqlValue::from("b"), MysqlValue::Int(1), MysqlValue::from("b")]);
        assert!(params(&values, &[2]).is_err());
        assert!(params(&[Value::Float(f64::NAN)], &[0]).is_err());
    }
}
