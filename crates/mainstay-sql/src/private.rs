//! What the macros' code calls. No part of the API.

pub use mainstay_core::Result;
pub use mainstay_macros::embed_migrations;
pub use serde::de::DeserializeOwned;

use crate::row::Row;
use crate::value::FromValue;

/// A column that holds JSON; NULL is JSON's null, so that `Option<T>` reads it.
pub fn take_json<T: DeserializeOwned>(row: &mut Row, column: &str) -> Result<T> {
    let json = row.take::<Option<serde_json::Value>>(column)?.unwrap_or_default();
    read_json(json, column)
}

pub fn take_json_or_default<T: DeserializeOwned + Default>(row: &mut Row, column: &str) -> Result<T> {
    match take_or_default::<Option<serde_json::Value>>(row, column)? {
        Some(json) => read_json(json, column),
        None => Ok(T::default()),
    }
}

pub fn take_or_default<T: FromValue + Default>(row: &mut Row, column: &str) -> Result<T> {
    if !row.has(column) {
        return Ok(T::default());
    }
    Ok(row.take::<Option<T>>(column)?.unwrap_or_default())
}

fn read_json<T: DeserializeOwned>(json: serde_json::Value, column: &str) -> Result<T> {
    serde_json::from_value(json).map_err(|error| {
        mainstay_core::Error::internal(format!("column `{column}` is not the JSON that was wanted")).with_source(error)
    })
}
