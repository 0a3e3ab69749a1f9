//! Portable SQL over SQLite, PostgreSQL and MySQL/MariaDB.
//!
//! SQL is written as SQL, with `$1`, `$2` … as placeholders on every database, and each call takes a
//! [`Context`](mainstay_core::Context): when that is done, the statement stops, in the database too.
//!
//! - [`Db`] is the handle; [`Db::query`] and [`Db::read`] run statements, [`Db::transaction`] runs a closure in a
//!   transaction and again after a conflict. [`Tx`] derefs to [`Db`], so a repository that takes `&Db` works in both.
//! - [`Statement`] is a `&'static str`, an [`sql!`] where databases differ, or a [`Sql`] where it depends on input.
//! - [`FromRow`] turns rows into structs (derived), tuples and single values; [`Value`] has the table of types.
//! - [`migrate`] changes the schema; `testing` (a feature) makes temporary databases.
//!
//! ```
//! use mainstay_core::{Context, Error, Result};
//! use mainstay_sql::{Db, FromRow};
//!
//! #[derive(FromRow)]
//! struct Account {
//!     owner: String,
//!     balance: i64,
//! }
//!
//! async fn pay(ctx: &Context, db: &Db, from: i64, to: i64, amount: i64) -> Result<Account> {
//!     const ADD: &str = "UPDATE accounts SET balance = balance + $2 WHERE id = $1";
//!     db.transaction(ctx, |tx| async move {
//!         tx.query(ADD).bind(from).bind(-amount).execute(ctx).await?;
//!         tx.query(ADD).bind(to).bind(amount).execute(ctx).await?;
//!         let account = "SELECT owner, balance FROM accounts WHERE id = $1";
//!         let account: Account = tx.query(account).bind(from).one(ctx).await?;
//!         if account.balance < 0 {
//!             return Err(Error::failed_precondition("not enough money")); // undoes both
//!         }
//!         Ok(account)
//!     })
//!     .await
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
//! # if cfg!(not(feature = "sqlite")) { return Ok(()) }
//! let (ctx, db) = (Context::background(), Db::memory());
//! db.query("CREATE TABLE accounts (id BIGINT PRIMARY KEY, owner TEXT, balance BIGINT)").execute(&ctx).await?;
//! db.query("INSERT INTO accounts VALUES (1, 'Ada', 10), (2, 'Bob', 0)").execute(&ctx).await?;
//! assert_eq!(pay(&ctx, &db, 1, 2, 7).await?.balance, 3);
//! assert!(pay(&ctx, &db, 1, 2, 7).await.is_err());
//! # Ok(()) }
//! ```
//!
//! # Where the promises end
//! - A statement that was cut off outside a transaction may have taken effect or not; inside one it is undone.
//! - Session settings (`SET …`) outlive their statement on a connection that others use later. Give them to the user or
//!   the database with `ALTER ROLE … SET` instead.
//! - Unless the URL says `sslmode=verify-full` (MySQL: `ssl-mode=verify_identity`), whoever can answer in the server's
//!   place is taken for it. Root certificates are read once, when the service starts.

#![cfg_attr(
    not(any(feature = "mysql", feature = "postgres", feature = "sqlite")),
    allow(dead_code, reason = "without a database much of this has no caller; the crate still builds")
)]

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
mod db;
mod driver;
mod fault;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod lexer;
mod metrics;
pub mod migrate;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod pool;
#[cfg(feature = "postgres")]
mod postgres;
mod query;
mod row;
mod settings;
#[cfg(feature = "sqlite")]
mod sqlite;
mod statement;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod tls;
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
pub use tx::{CommitHook, Committed, Deferred, Tx, TxOptions};
pub use value::{FromValue, Mismatch, Value, truncate_to_micros};
