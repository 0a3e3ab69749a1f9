//! Between [`Value`] and what SQLite stores: integers, floats, text, bytes, NULL.

use jiff::tz::TimeZone;
use mainstay_core::{Error, Result};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Statement, ToSql};

use super::fault::check;
use crate::value::Value;

/// Binds each `$n` of `statement` to the n-th of `values`.
///
/// SQLite reads `$1` as a name, so the text goes to it as it is, and a name that is used twice is one parameter.
pub(super) fn bind(statement: &mut Statement<'_>, values: &[Value]) -> Result<()> {
    for index in 1..=statement.parameter_count() {
        let name = statement.parameter_name(index).unwrap_or("?");
        let value = name
            .strip_prefix('$')
            .and_then(|number| number.parse::<usize>().ok())
            .ok_or_else(|| Error::internal(format!("the placeholder `{name}` isn't one: write $1, $2 and so on")))
            .and_then(|number| {
                let value = number.checked_sub(1).and_then(|place| values.get(place));
                value.ok_or_else(|| Error::internal(format!("`{name}` has no value: {} are bound", values.len())))
            })?;
        let cell = cell_of(value).map_err(|error| error.context(format!("binding ${index}")))?;
        check(statement.raw_bind_parameter(index, cell))?;
    }
    Ok(())
}

/// Moves one cell out. SQLite tells what is stored, not what the column was declared as.
pub(super) fn value_of(cell: ValueRef<'_>) -> Result<Value> {
    Ok(match cell {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Int(number),
        ValueRef::Real(number) => Value::Float(number),
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(error) => return Err(Error::internal("a text in the answer is not UTF-8").with_source(error)),
        },
    })
}

/// Roughly how much memory a row takes, for the bounds of streams.
pub(super) fn weight(values: &[Value]) -> usize {
    values
        .iter()
        .map(|value| match value {
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            _ => 0,
        } + size_of::<Value>())
        .sum()
}

/// A value as SQLite takes it.
enum Cell<'a> {
    Borrowed(ValueRef<'a>),
    Text(String),
}

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Cell::Borrowed(value) => ToSqlOutput::Borrowed(*value),
            Cell::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
        })
    }
}

fn cell_of(value: &Value) -> Result<Cell<'_>> {
    Ok(match value {
        Value::Null => Cell::Borrowed(ValueRef::Null),
        Value::Bool(value) => Cell::Borrowed(ValueRef::Integer((*value).into())),
        Value::Int(value) => Cell::Borrowed(ValueRef::Integer(*value)),
        // SQLite would store NULL without a word.
        Value::Float(value) if value.is_nan() => {
            return Err(Error::internal("SQLite can't store a float that is not a number (NaN)"));
        }
        Value::Float(value) => Cell::Borrowed(ValueRef::Real(*value)),
        Value::Text(value) => Cell::Borrowed(ValueRef::Text(value.as_bytes())),
        Value::Bytes(value) => Cell::Borrowed(ValueRef::Blob(value)),
        Value::Uuid(value) => Cell::Borrowed(ValueRef::Blob(value.as_bytes())),
        // Always six digits, so that texts sort as the times do.
        Value::Timestamp(value) => {
            Cell::Text(TimeZone::UTC.to_datetime(*value).strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string())
        }
        Value::Date(value) => Cell::Text(value.to_string()),
        Value::Decimal(value) => Cell::Text(value.to_string()),
        Value::Json(value) => Cell::Text(value.to_string()),
        Value::Array(_) => {
            return Err(Error::internal("SQLite has no arrays: bind JSON, or one placeholder for each element"));
        }
    })
}
