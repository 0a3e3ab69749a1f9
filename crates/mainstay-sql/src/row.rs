//! [`Row`] and [`FromRow`]: from a line of an answer to a Rust value.

use std::sync::Arc;

use mainstay_core::{Error, Result};

use crate::value::{FromValue, Value};

mod tuples;

/// One line of an answer. Cells are taken out by name or by place.
#[derive(Debug)]
pub struct Row {
    columns: Arc<[Box<str>]>,
    values: Vec<Value>,
}

/// A type that a row can be turned into. `#[derive(FromRow)]` writes it for a struct by the names of its fields;
/// tuples and single values read columns in order.
pub trait FromRow: Sized {
    /// Reads `Self` out of `row`, moving what it needs.
    ///
    /// # Errors
    /// [`Code::Internal`](mainstay_core::Code::Internal) that names the column, what it held and what was wanted.
    fn from_row(row: &mut Row) -> Result<Self>;
}

impl Row {
    pub(crate) fn new(columns: Arc<[Box<str>]>, values: Vec<Value>) -> Self {
        debug_assert_eq!(columns.len(), values.len());
        Self { columns, values }
    }

    /// Moves the cell of the column `name` out; a second take reads NULL.
    ///
    /// # Errors
    /// No such column, or a cell that is no `T`.
    pub fn take<T: FromValue>(&mut self, name: &str) -> Result<T> {
        let index = self.columns.iter().position(|column| **column == *name).ok_or_else(|| {
            Error::internal(format!("no column `{name}` in the answer, which has: {}", self.columns.join(", ")))
        })?;
        self.take_at(index)
    }

    /// Moves the cell at `index`, counted from 0, out; a second take reads NULL.
    ///
    /// # Errors
    /// No such column, or a cell that is no `T`.
    pub fn take_at<T: FromValue>(&mut self, index: usize) -> Result<T> {
        let cell = self.values.get_mut(index).ok_or_else(|| {
            Error::internal(format!("no column {index} in the answer, which has {}", self.columns.len()))
        })?;
        let value = std::mem::replace(cell, Value::Null);
        T::from_value(value).map_err(|mismatch| {
            let column = self.columns.get(index).map_or("?", |column| column);
            Error::internal(format!("column `{column}`")).with_source(mismatch)
        })
    }

    /// Whether there is a column `name`.
    pub fn has(&self, name: &str) -> bool {
        self.columns.iter().any(|column| **column == *name)
    }

    /// The cells in order, for people.
    pub(crate) fn to_line(&self) -> String {
        let cell = |value: &Value| match value {
            Value::Null => "NULL".to_owned(),
            Value::Int(number) => number.to_string(),
            Value::Text(text) => text.clone(),
            Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => format!("{other:?}"),
        };
        self.values.iter().map(cell).collect::<Vec<_>>().join(" ")
    }

    /// The names of the columns, in order.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| &**column)
    }
}
