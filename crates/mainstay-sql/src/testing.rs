//! Databases for tests (feature `testing`): a fresh one for each test, on SQLite and on whatever server answers.
//!
//! A test program with `harness = false` runs the same cases on every database:
//!
//! ```no_run
//! use mainstay_core::Result;
//! use mainstay_sql::testing::{Harness, Needs, Scene};
//!
//! async fn what_was_written_is_read(Scene { db, ctx, .. }: Scene) -> Result<()> {
//!     db.query("CREATE TABLE stock (amount BIGINT)").execute(&ctx).await?;
//!     db.query("INSERT INTO stock VALUES ($1)").bind(5).execute(&ctx).await?;
//!     assert_eq!(db.read("SELECT amount FROM stock").one::<i64>(&ctx).await?, 5);
//!     Ok(())
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     mainstay_sql::cases![Harness::new(); Sqlite, Postgres, Mysql; what_was_written_is_read]
//!         .case("needs_no_database", Needs::Nothing, async || Ok(()))
//!         .run()
//! }
//! ```
//!
//! PostgreSQL is looked for at `POSTGRES_TEST_URL`, MySQL or MariaDB at `MYSQL_TEST_URL` and `MARIADB_TEST_URL`, both
//! otherwise at their usual port on this machine. The user in the URL has to be allowed to create databases. Where no
//! server answers, its cases are reported as ignored, with the reason; `MAINSTAY_REQUIRE_SERVICES=1`, as CI sets it,
//! makes them fail instead.

use mainstay_core::Error;

use crate::{DatabaseError, DatabaseErrorKind};

mod database;
mod harness;
mod server;

pub use database::TestDatabase;
pub use harness::{Harness, Needs, Scene};
pub use server::Server;

/// The error of a statement that the database refused for `kind`, for code that has to tell them apart.
///
/// ```
/// use mainstay_core::Code;
/// use mainstay_sql::DatabaseErrorKind::DiskFull;
///
/// assert_eq!(mainstay_sql::testing::refused(DiskFull).code(), Code::ResourceExhausted);
/// ```
#[must_use]
pub fn refused(kind: DatabaseErrorKind) -> Error {
    DatabaseError::new(kind, "test", "refused by a test").into_error()
}

/// Adds async functions that take a [`Scene`] to a [`Harness`], to be run on each of the databases named:
/// `cases![Harness::new(); Sqlite, Postgres; first_test, second_test]`.
#[macro_export]
macro_rules! cases {
    ($harness:expr; $($database:ident),+ $(,)?; $($case:ident),+ $(,)?) => {
        $crate::__cases!($harness; [$($crate::Dialect::$database),+]; $($case),+)
    };
}

/// The list of databases as one token, because it is repeated for each case.
#[doc(hidden)]
#[macro_export]
macro_rules! __cases {
    ($harness:expr; $databases:tt; $($case:ident),+) => {
        $harness$(.on_each(&$databases, ::core::stringify!($case), $case))+
    };
}

/// The cases of the MySQL driver that need to see its inside; for `tests/mysql.rs` of this crate.
#[cfg(feature = "mysql")]
#[doc(hidden)]
pub fn mysql_driver_cases(harness: Harness) -> Harness {
    crate::mysql::tests::cases(harness)
}
