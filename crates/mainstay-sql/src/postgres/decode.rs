//! From PostgreSQL's binary cells to [`Value`].

use std::error::Error as StdError;
use std::sync::Arc;

use jiff::Timestamp;
use mainstay_core::{Error, Result};
use tokio_postgres::types::{FromSql, Kind, Type};
use uuid::Uuid;

use super::encode::{EPOCH_DATE, EPOCH_MICROS, base, is_text};
use super::numeric;
use crate::row::Row;
use crate::value::Value;

/// A row, cell by cell.
pub(super) fn row(row: &tokio_postgres::Row, columns: &Arc<[Box<str>]>) -> Result<Row> {
    let cell = |index: usize| -> Result<Value> {
        row.try_get::<_, Cell>(index).map(|Cell(value)| value).map_err(|error| {
            let (column, ty) =
                row.columns().get(index).map_or(("?", ""), |column| (column.name(), column.type_().name()));
            let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            Error::internal(format!("column `{column}` of type {ty}: {why}"))
        })
    };
    let values = (0..row.len()).map(cell).collect::<Result<Vec<_>>>()?;
    Ok(Row::new(columns.clone(), values))
}

struct Cell(Value);

type Decoded<T> = std::result::Result<T, Box<dyn StdError + Sync + Send>>;

impl<'a> FromSql<'a> for Cell {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Decoded<Self> {
        value(base(ty), raw).map(Cell)
    }

    fn from_sql_null(_: &Type) -> Decoded<Self> {
        Ok(Cell(Value::Null))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn value(ty: &Type, raw: &[u8]) -> Decoded<Value> {
    Ok(match *ty {
        Type::BOOL => Value::Bool(u8::from_be_bytes(fixed(raw)?) != 0),
        Type::INT2 => Value::Int(i16::from_be_bytes(fixed(raw)?).into()),
        Type::INT4 => Value::Int(i32::from_be_bytes(fixed(raw)?).into()),
        Type::INT8 => Value::Int(i64::from_be_bytes(fixed(raw)?)),
        Type::OID => Value::Int(u32::from_be_bytes(fixed(raw)?).into()),
        Type::FLOAT4 => Value::Float(f32::from_be_bytes(fixed(raw)?).into()),
        Type::FLOAT8 => Value::Float(f64::from_be_bytes(fixed(raw)?)),
        Type::NUMERIC => Value::Decimal(numeric::decode(raw)?),
        Type::BYTEA => Value::Bytes(raw.to_vec()),
        Type::UUID => Value::Uuid(Uuid::from_bytes(fixed(raw)?)),
        Type::TIMESTAMPTZ | Type::TIMESTAMP => Value::Timestamp(timestamp(i64::from_be_bytes(fixed(raw)?))?),
        Type::DATE => Value::Date(date(i32::from_be_bytes(fixed(raw)?))?),
        Type::JSON => Value::Json(serde_json::from_slice(raw)?),
        Type::JSONB => {
            Value::Json(serde_json::from_slice(raw.strip_prefix(&[1]).ok_or("an unknown version of jsonb")?)?)
        }
        Type::CHAR => Value::Text(String::from_utf8_lossy(raw).into_owned()), // the one-byte "char" of the catalogs
        Type::VOID => Value::Null,
        _ if is_text(ty) => Value::Text(std::str::from_utf8(raw)?.to_owned()),
        _ => match ty.kind() {
            Kind::Array(element) => array(base(element), raw)?,
            _ => return Err("this type isn't read: cast it in the statement, as in `column::text`".into()),
        },
    })
}

fn array(ty: &Type, raw: &[u8]) -> Decoded<Value> {
    let mut rest = raw;
    let dimensions = take(&mut rest).map(i32::from_be_bytes)?;
    let _has_null = take::<4>(&mut rest)?;
    let _type = take::<4>(&mut rest)?;
    match dimensions {
        0 => return Ok(Value::Array(Vec::new())),
        1 => {}
        _ => return Err("arrays of more than one dimension aren't read".into()),
    }
    let length = take(&mut rest).map(i32::from_be_bytes)?;
    let _first_index = take::<4>(&mut rest)?;
    // Not reserved by what the message says it holds, but by what it can hold: each element has 4 bytes at least.
    let mut elements = Vec::with_capacity(usize::try_from(length)?.min(rest.len() / 4));
    for _ in 0..length {
        let size = take(&mut rest).map(i32::from_be_bytes)?;
        elements.push(match usize::try_from(size) {
            Err(_) => Value::Null, // -1
            Ok(size) => {
                let (element, after) = rest.split_at_checked(size).ok_or(CUT)?;
                rest = after;
                value(ty, element)?
            }
        });
    }
    Ok(Value::Array(elements))
}

fn timestamp(micros: i64) -> Decoded<Timestamp> {
    if micros == i64::MAX || micros == i64::MIN {
        return Err("infinity is no point in time: cast it to text, or replace it in the statement".into());
    }
    let micros = micros.checked_add(EPOCH_MICROS).ok_or("out of range")?;
    // Not `from_microsecond`, which refuses the fraction of the last second there is.
    Ok(Timestamp::new(micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000) as i32 * 1_000)?)
}

fn date(days: i32) -> Decoded<jiff::civil::Date> {
    if days == i32::MAX || days == i32::MIN {
        return Err("infinity is no date: cast it to text, or replace it in the statement".into());
    }
    let span = jiff::Span::new().try_days(days)?;
    Ok(EPOCH_DATE.checked_add(span)?)
}

const CUT: &str = "the cell is shorter than its type";

fn fixed<const N: usize>(raw: &[u8]) -> Decoded<[u8; N]> {
    raw.try_into().map_err(|_| CUT.into())
}

fn take<const N: usize>(rest: &mut &[u8]) -> Decoded<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(CUT)?;
    *rest = tail;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;
    use tokio_postgres::types::ToSql;

    use super::super::encode::Parameter;
    use super::*;

    fn round_trip(value: &Value, ty: &Type) -> Value {
        let mut out = BytesMut::new();
        Parameter { value, number: 1 }.to_sql(ty, &mut out).unwrap();
        super::value(ty, &out).unwrap()
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for (value, ty) in [
            (Value::Int(i16::MIN.into()), Type::INT2),
            (Value::Int(i32::MAX.into()), Type::INT4),
            (Value::Int(i64::MIN), Type::INT8),
            (Value::Date("0001-01-01".parse().unwrap()), Type::DATE),
            (Value::Date("9999-12-31".parse().unwrap()), Type::DATE),
            (Value::Timestamp("1969-07-20T20:17:40.000001Z".parse().unwrap()), Type::TIMESTAMPTZ),
            (Value::Timestamp("9999-12-30T22:00:00.999999Z".parse().unwrap()), Type::TIMESTAMPTZ),
            (Value::Array(vec![]), Type::INT4_ARRAY),
            (Value::Array(vec![Value::Int(1), Value::Null]), Type::INT4_ARRAY),
            (Value::Array(vec![Value::Text(String::new()), Value::Text("a".into())]), Type::TEXT_ARRAY),
        ] {
            assert_eq!(round_trip(&value, &ty), value, "{ty}");
        }
    }

    #[test]
    fn what_does_not_fit_names_its_parameter() {
        let value = Value::Int(70_000);
        let refusal = |number, ty| match (Parameter { value: &value, number }).to_sql(&ty, &mut BytesMut::new()) {
            Ok(_) => panic!("{ty} took it"),
            Err(error) => error.to_string(),
        };
        let error = refusal(3, Type::INT2);
        assert!(error.contains("$3") && error.contains("70000 is out of range"), "{error}");
        assert!(refusal(1, Type::TEXT).contains("`$1::bigint`"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(raw in proptest::collection::vec(any::<u8>(), 0..64)) {
            for ty in [Type::BOOL, Type::INT4, Type::NUMERIC, Type::UUID, Type::DATE, Type::TIMESTAMPTZ, Type::JSONB,
                       Type::TEXT, Type::INT4_ARRAY, Type::TEXT_ARRAY, Type::INTERVAL] {
                let _ = super::value(&ty, &raw);
            }
        }
    }
}
