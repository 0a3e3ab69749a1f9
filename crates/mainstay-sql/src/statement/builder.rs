//! [`Sql`]: text that depends on input, with its values always bound.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::driver::Dialect;
use crate::lexer;
use crate::value::Value;

/// A statement put together at run time: optional filters, lists, many rows. The text is `&'static str` piece by piece
/// and what comes from outside is always bound, so nothing can be injected.
///
/// The builder writes the placeholders itself; the pieces have none.
///
/// ```
/// use mainstay_sql::Sql;
///
/// fn search(status: Option<&str>, ids: &[i64]) -> Sql {
///     let mut sql = Sql::new("SELECT * FROM orders WHERE").push_in("id", ids.iter().copied());
///     if let Some(status) = status {
///         sql = sql.push_bind(" AND status = ", status);
///     }
///     sql.push(" ORDER BY id LIMIT ").bind(50)
/// }
/// assert_eq!(search(Some("paid"), &[7, 8]).text(),
///     "SELECT * FROM orders WHERE id IN ($1, $2) AND status = $3 ORDER BY id LIMIT $4");
/// assert_eq!(search(None, &[]).text(), "SELECT * FROM orders WHERE 1 = 0 ORDER BY id LIMIT $1");
/// ```
#[derive(Clone, Debug)]
#[must_use = "a statement does nothing until it is given to `query`"]
pub struct Sql {
    text: String,
    values: Vec<Value>,
    wrong: Option<&'static str>,
}

impl Sql {
    /// A statement that begins with `text`.
    pub fn new(text: &'static str) -> Self {
        Self { text: String::new(), values: Vec::new(), wrong: None }.push(text)
    }

    /// Adds `text` as it stands.
    pub fn push(mut self, text: &'static str) -> Self {
        if lexer::placeholder_count(Dialect::Sqlite, text) > 0 {
            self.wrong = Some("a piece of a `Sql` has a placeholder: write `.push_bind(\"… = \", value)` instead");
        }
        self.text.push_str(text);
        self
    }

    /// Adds a placeholder for `value`.
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        let _ = write!(self.text, "${}", self.values.len()); // writing to a `String` can't fail
        self
    }

    /// Adds `text` and a placeholder for `value`.
    pub fn push_bind(self, text: &'static str, value: impl Into<Value>) -> Self {
        self.push(text).bind(value)
    }

    /// Adds ` column IN ($1, …)`. An empty list is in nothing: ` 1 = 0`, which SQL has no other words for.
    pub fn push_in<V: Into<Value>>(mut self, column: &'static str, values: impl IntoIterator<Item = V>) -> Self {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return self.push(" 1 = 0");
        }
        self = self.push(" ").push(column).push(" IN ");
        self.list(values)
    }

    /// Adds ` VALUES ($1, …), (…)`, all rows of the same length, at least one.
    pub fn push_values(mut self, rows: impl IntoIterator<Item = Vec<Value>>) -> Self {
        let mut width = None;
        for row in rows {
            self.text.push_str(if width.is_none() { " VALUES " } else { ", " });
            if row.is_empty() || *width.get_or_insert(row.len()) != row.len() {
                self.wrong = Some("`push_values` needs rows that all have the same number of values, at least one");
            }
            self = self.list(row);
        }
        if width.is_none() {
            self.wrong = Some("`push_values` got no rows: there is no statement that inserts nothing");
        }
        self
    }

    /// The text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn finish(self) -> (Result<Cow<'static, str>, &'static str>, Vec<Value>) {
        (self.wrong.map_or(Ok(Cow::Owned(self.text)), Err), self.values)
    }

    fn list<V: Into<Value>>(mut self, values: impl IntoIterator<Item = V>) -> Self {
        for (index, value) in values.into_iter().enumerate() {
            self.text.push_str(if index == 0 { "(" } else { ", " });
            self = self.bind(value);
        }
        self.text.push(')');
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_numbered_on() {
        let sql = Sql::new("INSERT INTO t (a, b)").push_values([crate::values![1, "x"], crate::values![2, "y"]]);
        assert_eq!(sql.text(), "INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4)");
        let (text, values) = sql.finish();
        assert!(text.is_ok());
        assert_eq!(values, crate::values![1, "x", 2, "y"]);
    }

    #[test]
    fn mistakes_in_building_are_told() {
        for (sql, word) in [
            (Sql::new("SELECT $1"), "push_bind"),
            (Sql::new("INSERT INTO t").push_values([crate::values![1], crate::values![1, 2]]), "same number"),
            (Sql::new("INSERT INTO t").push_values([]), "no rows"),
        ] {
            assert!(sql.finish().0.unwrap_err().contains(word));
        }
    }

    #[test]
    fn a_dollar_in_a_string_is_no_placeholder() {
        assert!(Sql::new("SELECT '$1'").finish().0.is_ok());
    }
}
