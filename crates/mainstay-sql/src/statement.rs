//! [`Statement`]: the text of a query, one for all databases or one for each.

use std::borrow::Cow;

use mainstay_core::{Error, Result};

use crate::driver::Dialect;
use crate::value::Value;

mod builder;

pub use builder::Sql;

/// The text of a query with `$1`, `$2` … as placeholders on every database.
///
/// Made from a `&'static str`, from [`sql!`](crate::sql) where databases differ, or from [`Sql`] where the text depends
/// on input. There is deliberately no way from a `String`: text that was put together at run time is how injections
/// happen.
#[derive(Clone, Debug)]
pub struct Statement {
    text: Text,
    values: Vec<Value>,
}

#[derive(Clone, Debug)]
enum Text {
    Same(Cow<'static, str>),
    Each {
        mysql: Option<&'static str>,
        postgres: Option<&'static str>,
        sqlite: Option<&'static str>,
    },
    /// A mistake in building that is told when the statement is used.
    Wrong(&'static str),
}

impl Statement {
    /// The same text on every database.
    pub const fn new(sql: &'static str) -> Self {
        Self { text: Text::Same(Cow::Borrowed(sql)), values: Vec::new() }
    }

    /// What [`sql!`](crate::sql) makes; use that.
    #[doc(hidden)]
    pub const fn per_dialect(
        mysql: Option<&'static str>,
        postgres: Option<&'static str>,
        sqlite: Option<&'static str>,
    ) -> Self {
        Self { text: Text::Each { mysql, postgres, sqlite }, values: Vec::new() }
    }

    /// The text for `dialect` and the values that came with it.
    pub(crate) fn resolve(self, dialect: Dialect) -> Result<(Cow<'static, str>, Vec<Value>)> {
        let text = match self.text {
            Text::Same(text) => text,
            Text::Wrong(why) => return Err(Error::internal(why)),
            Text::Each { mysql, postgres, sqlite } => {
                let text = match dialect {
                    Dialect::Mysql => mysql,
                    Dialect::Postgres => postgres,
                    Dialect::Sqlite => sqlite,
                };
                let missing =
                    || Error::internal(format!("this `sql!` has no text for {dialect}: add `{dialect}:` or `_:`"));
                Cow::Borrowed(text.ok_or_else(missing)?)
            }
        };
        Ok((text, self.values))
    }
}

impl From<&'static str> for Statement {
    fn from(sql: &'static str) -> Self {
        Self::new(sql)
    }
}

impl From<Sql> for Statement {
    fn from(sql: Sql) -> Self {
        let (text, values) = sql.finish();
        let text = match text {
            Ok(text) => Text::Same(text),
            Err(why) => Text::Wrong(why),
        };
        Self { text, values }
    }
}

/// One [`Statement`] with a text for each database, where they differ. `_` stands for those that aren't named.
///
/// It is constant, so it can be a `const`:
///
/// ```
/// use mainstay_sql::{Statement, sql};
///
/// const UPSERT: Statement = sql! {
///     mysql: "INSERT INTO stock (sku, amount) VALUES ($1, $2) ON DUPLICATE KEY UPDATE amount = amount + $2",
///     _: "INSERT INTO stock (sku, amount) VALUES ($1, $2)
///         ON CONFLICT (sku) DO UPDATE SET amount = stock.amount + excluded.amount",
/// };
/// ```
///
/// An arm that is missing for the database in use is an error when the statement runs.
#[macro_export]
macro_rules! sql {
    ($($arms:tt)+) => {
        $crate::__sql_arms!([None] [None] [None] [None] $($arms)+)
    };
}

/// Collects the arms of [`sql!`]: mysql, postgres, sqlite and the default.
#[doc(hidden)]
#[macro_export]
macro_rules! __sql_arms {
    ([$m:expr] [$p:expr] [$s:expr] [$d:expr] mysql: $text:expr $(, $($rest:tt)*)?) => {
        $crate::__sql_arms!([Some($text)] [$p] [$s] [$d] $($($rest)*)?)
    };
    ([$m:expr] [$p:expr] [$s:expr] [$d:expr] postgres: $text:expr $(, $($rest:tt)*)?) => {
        $crate::__sql_arms!([$m] [Some($text)] [$s] [$d] $($($rest)*)?)
    };
    ([$m:expr] [$p:expr] [$s:expr] [$d:expr] sqlite: $text:expr $(, $($rest:tt)*)?) => {
        $crate::__sql_arms!([$m] [$p] [Some($text)] [$d] $($($rest)*)?)
    };
    ([$m:expr] [$p:expr] [$s:expr] [$d:expr] _: $text:expr $(, $($rest:tt)*)?) => {
        $crate::__sql_arms!([$m] [$p] [$s] [Some($text)] $($($rest)*)?)
    };
    ([$m:expr] [$p:expr] [$s:expr] [$d:expr]) => {{
        const fn or(text: Option<&'static str>, default: Option<&'static str>) -> Option<&'static str> {
            match text {
                Some(_) => text,
                None => default,
            }
        }
        $crate::Statement::per_dialect(or($m, $d), or($p, $d), or($s, $d))
    }};
}

/// A `Vec<Value>` of anything that can be bound: a row for [`Query::batch`](crate::Query::batch).
///
/// ```
/// # use mainstay_sql::{Value, values};
/// let row = values![7, "tea", None::<i64>];
/// assert_eq!(row, vec![Value::Int(7), Value::Text("tea".to_owned()), Value::Null]);
/// ```
#[macro_export]
macro_rules! values {
    ($($value:expr),* $(,)?) => {
        ::std::vec![$($crate::Value::from($value)),*]
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_database_gets_its_arm_or_the_default() {
        const TEXT: Statement = crate::sql! { postgres: "p", _: "rest" };
        assert_eq!(TEXT.resolve(Dialect::Postgres).unwrap().0, "p");
        assert_eq!(TEXT.resolve(Dialect::Mysql).unwrap().0, "rest");
        assert_eq!(TEXT.resolve(Dialect::Sqlite).unwrap().0, "rest");
    }

    #[test]
    fn a_missing_arm_is_named() {
        let error = crate::sql! { sqlite: "s", mysql: "m" }.resolve(Dialect::Postgres).unwrap_err();
        assert!(error.report().to_string().contains("`postgres:`"), "{error:?}");
    }
}
