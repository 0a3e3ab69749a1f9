//! Portable SQL over SQLite, PostgreSQL and MySQL/MariaDB.

mod db;
mod driver;
mod fault;
mod lexer;
mod metrics;
#[cfg(feature = "mysql")]
mod mysql;
pub mod migrate;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod pool;
#[cfg(feature = "postgres")]
mod postgres;
#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
mod query;
mod row;
mod settings;
#[cfg(feature = "sqlite")]
mod sqlite;
mod statement;
#[cfg(feature = "testing")]
pub mod testing;
mod tx;
mod value;

pub use db::Db;
pub use driver::{Dialect, Isolation};
pub use fault::{CommitUnknown, DatabaseError, DatabaseErrorKind};
/// ```
/// use mainstay_sql::FromRow;
///
/// #[derive(FromRow)]
/// struct Order {
///     id: i64,
///     #[row(rename = "total_cents")]
///     total: Option<i64>,
///     #[row(json)]
///     tags: Vec<String>,
///     #[row(flatten)]
///     audit: Audit,
/// }
///
/// #[derive(FromRow)]
/// struct Audit {
///     created_by: String,
/// }
/// ```
///
/// A field of a type that no column holds doesn't compile, and neither does an attribute that isn't known:
///
/// ```compile_fail,E0277
/// #[derive(mainstay_sql::FromRow)]
/// struct Order { worker: std::thread::Thread }
/// ```
///
/// ```compile_fail
/// #[derive(mainstay_sql::FromRow)]
/// struct Order { #[row(renamed = "x")] id: i64 }
/// ```
pub use mainstay_macros::FromRow;
pub use query::Query;
pub use row::{FromRow, Row};
pub use settings::DatabaseSettings;
pub use statement::{Sql, Statement};
pub use tx::{Tx, TxOptions};
pub use value::{FromValue, Mismatch, Value, truncate_to_micros};
