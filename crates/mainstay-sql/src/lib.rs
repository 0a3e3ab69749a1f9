//! Portable SQL over SQLite, PostgreSQL and MySQL/MariaDB.

mod driver;
mod fault;
mod row;
mod value;

pub use driver::{Dialect, Isolation};
pub use fault::{CommitUnknown, DatabaseError, DatabaseErrorKind};
pub use row::{FromRow, Row};
pub use value::{FromValue, Mismatch, Value};
