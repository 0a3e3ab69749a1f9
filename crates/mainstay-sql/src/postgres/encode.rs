//! From [`Value`] to what PostgreSQL expects at a placeholder.

use std::error::Error as StdError;
use std::fmt;

use bytes::{BufMut, BytesMut};
use jiff::Timestamp;
use jiff::civil::Date;
use tokio_postgres::types::{Format, IsNull, Kind, ToSql, Type};

use super::numeric;
use crate::value::Value;

/// 2000-01-01T00:00:00Z, from which PostgreSQL counts, in microseconds since 1970.
pub(super) const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// 2000-01-01, from which PostgreSQL counts days.
pub(super) const EPOCH_DATE: Date = jiff::civil::date(2000, 1, 1);

/// A value on its way to a placeholder, counted from 1.
pub(super) struct Parameter<'a> {
    pub(super) value: &'a Value,
    pub(super) number: usize,
}

/// A value that can't go where it was bound.
#[derive(Debug)]
pub(super) struct Unfit(String);

type Fit = Result<IsNull, Box<dyn StdError + Sync + Send>>;

impl ToSql for Parameter<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Fit {
        let written = match self.encode_format(ty) {
            Format::Text => text(self.value, out),
            Format::Binary => binary(self.value, ty, out),
        };
        written.map_err(|why| {
            let kind = self.value.kind();
            Unfit(format!("parameter ${}: {kind} can't be bound where PostgreSQL takes {ty}: {why}", self.number))
                .into()
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(&self, ty: &Type, out: &mut BytesMut) -> Fit {
        self.to_sql(ty, out)
    }

    /// As text where the server reads it better than we do: text goes anywhere, as a literal does.
    fn encode_format(&self, ty: &Type) -> Format {
        match (self.value, base(ty)) {
            (Value::Text(_), _) => Format::Text,
            (Value::Float(_), &Type::NUMERIC) => Format::Text,
            (Value::Decimal(_), ty) if *ty != Type::NUMERIC => Format::Text,
            (Value::Uuid(_) | Value::Timestamp(_) | Value::Date(_) | Value::Json(_), ty) if is_text(ty) => Format::Text,
            (Value::Int(_), &Type::NUMERIC) => Format::Text,
            _ => Format::Binary,
        }
    }
}

/// Values never reach a log.
impl fmt::Debug for Parameter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}", self.number)
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Unfit {}

/// The type below the domains.
pub(super) fn base(ty: &Type) -> &Type {
    match ty.kind() {
        Kind::Domain(inner) => base(inner),
        _ => ty,
    }
}

/// Whether the type is text by nature: what has no size, no order of its own and no checks but those of text.
pub(super) fn is_text(ty: &Type) -> bool {
    matches!(*ty, Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::XML)
        || matches!(ty.kind(), Kind::Enum(_))
        || ty.name() == "citext"
}

fn text(value: &Value, out: &mut BytesMut) -> Result<IsNull, String> {
    match value {
        Value::Text(text) => out.put_slice(text.as_bytes()),
        Value::Int(number) => out.put_slice(number.to_string().as_bytes()),
        Value::Float(number) => out.put_slice(number.to_string().as_bytes()),
        Value::Decimal(number) => out.put_slice(number.to_string().as_bytes()),
        Value::Uuid(uuid) => out.put_slice(uuid.to_string().as_bytes()),
        Value::Timestamp(at) => out.put_slice(at.to_string().as_bytes()),
        Value::Date(date) => out.put_slice(date.to_string().as_bytes()),
        Value::Json(json) => out.put_slice(json.to_string().as_bytes()),
        _ => return Err("it has no text form".to_owned()),
    }
    Ok(IsNull::No)
}

fn binary(value: &Value, ty: &Type, out: &mut BytesMut) -> Result<IsNull, String> {
    let ty = base(ty);
    match (value, ty) {
        (Value::Null, _) => return Ok(IsNull::Yes),
        (Value::Bool(value), &Type::BOOL) => out.put_u8(u8::from(*value)),
        (Value::Int(value), &Type::INT2) => out.put_i16(fit(*value)?),
        (Value::Int(value), &Type::INT4) => out.put_i32(fit(*value)?),
        (Value::Int(value), &Type::INT8) => out.put_i64(*value),
        (Value::Int(value), &Type::OID) => out.put_u32(fit(*value)?),
        (Value::Int(value), &Type::FLOAT4) => out.put_f32(*value as f32),
        (Value::Int(value), &Type::FLOAT8) => out.put_f64(*value as f64),
        (Value::Float(value), &Type::FLOAT4) => {
            let narrow = *value as f32;
            if narrow.is_infinite() && value.is_finite() {
                return Err(format!("{value} is out of range"));
            }
            out.put_f32(narrow);
        }
        (Value::Float(value), &Type::FLOAT8) => out.put_f64(*value),
        (Value::Decimal(value), &Type::NUMERIC) => numeric::encode(*value, out),
        (Value::Bytes(value), &Type::BYTEA) => out.put_slice(value),
        (Value::Uuid(value), &Type::UUID) => out.put_slice(value.as_bytes()),
        (Value::Timestamp(at), &Type::TIMESTAMPTZ | &Type::TIMESTAMP) => out.put_i64(micros(*at)?),
        (Value::Date(date), &Type::DATE) => out.put_i32(days(*date)?),
        (Value::Json(json), &Type::JSON) => out.put_slice(json.to_string().as_bytes()),
        (Value::Json(json), &Type::JSONB) => {
            out.put_u8(1); // the version of the format
            out.put_slice(json.to_string().as_bytes());
        }
        (Value::Array(elements), _) => match ty.kind() {
            Kind::Array(element) => array(elements, element, out)?,
            _ => return Err("that is no array".to_owned()),
        },
        (Value::Text(text), ty) if is_text(ty) => out.put_slice(text.as_bytes()), // inside an array
        _ => return Err(format!("cast the placeholder, as in `$1::{}`, or bind another type", suggestion(value))),
    }
    Ok(IsNull::No)
}

fn array(elements: &[Value], ty: &Type, out: &mut BytesMut) -> Result<(), String> {
    let length = i32::try_from(elements.len()).map_err(|_| "it is too long".to_owned())?;
    let has_null = elements.contains(&Value::Null);
    out.put_i32(i32::from(length > 0)); // dimensions: an empty array has none
    out.put_i32(i32::from(has_null));
    out.put_u32(ty.oid());
    if length == 0 {
        return Ok(());
    }
    out.put_i32(length);
    out.put_i32(1); // the first index
    for element in elements {
        let start = out.len();
        out.put_i32(-1); // the length, which stays -1 for NULL
        if matches!(binary(element, ty, out)?, IsNull::No) {
            let written = i32::try_from(out.len() - start - 4).map_err(|_| "an element is too long".to_owned())?;
            out[start..start + 4].copy_from_slice(&written.to_be_bytes());
        }
    }
    Ok(())
}

fn fit<T: TryFrom<i64>>(value: i64) -> Result<T, String> {
    T::try_from(value).map_err(|_| format!("{value} is out of range"))
}

fn micros(at: Timestamp) -> Result<i64, String> {
    at.as_microsecond().checked_sub(EPOCH_MICROS).ok_or_else(|| "it is out of range".to_owned())
}

fn days(date: Date) -> Result<i32, String> {
    let span = EPOCH_DATE.until((jiff::Unit::Day, date)).map_err(|error| error.to_string())?;
    Ok(span.get_days())
}

fn suggestion(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "boolean",
        Value::Int(_) => "bigint",
        Value::Float(_) => "double precision",
        Value::Bytes(_) => "bytea",
        Value::Uuid(_) => "uuid",
        Value::Timestamp(_) => "timestamptz",
        Value::Date(_) => "date",
        Value::Decimal(_) => "numeric",
        Value::Json(_) => "jsonb",
        Value::Null | Value::Text(_) | Value::Array(_) => "text",
    }
}
