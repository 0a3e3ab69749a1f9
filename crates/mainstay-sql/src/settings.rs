//! [`DatabaseSettings`]: where the database is and how much of it a service may use.

use std::path::PathBuf;
use std::time::Duration;

use mainstay_core::SecretUrl;
use mainstay_core::settings::duration;
use serde::{Deserialize, Serialize};

mod tls;
mod url;

#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) use tls::{TlsMode, TlsTrust};
pub(crate) use url::DatabaseUrl;
#[cfg(any(feature = "sqlite", test))]
pub(crate) use url::SqliteFile;
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) use url::{Host, Server};

/// Where the database is and how much of it a service may use: the section `database` of a service's settings.
///
/// ```
/// use mainstay_sql::DatabaseSettings;
///
/// let settings = DatabaseSettings { max_connections: 4, ..DatabaseSettings::from_url("sqlite://data/shop.db") };
/// assert!(settings.migrate_on_start);
/// ```
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct DatabaseSettings {
    /// Which database, and where:
    ///
    /// - `sqlite://data/shop.db` (relative), `sqlite:///var/lib/shop/shop.db`, `sqlite::memory:`
    /// - `postgres://user:password@host:5432/database`; by a Unix socket `postgres://user@/database?host=/run/postgresql`
    /// - `mysql://user:password@host:3306/database`, `mariadb://…`; by a Unix socket `…?socket=/run/mysqld/mysqld.sock`
    ///
    /// TLS: `sslmode=` `disable`, `prefer` (the default: if the server has it, unverified), `require` (unverified),
    /// `verify-ca`, `verify-full`, against the system's authorities or those in `sslrootcert=/path/ca.pem`. MySQL's
    /// `ssl-mode` and `ssl-ca` with `disabled`, `preferred`, `required` and `verify_identity` are understood too. A
    /// Unix socket needs none.
    ///
    /// Special characters in user and password are percent-encoded. It is masked wherever settings are printed.
    pub url: SecretUrl,
    /// The most connections this process opens to a server. SQLite has one writer and its own number of readers.
    pub max_connections: u32,
    /// How long a statement waits for a free connection before it fails with `Unavailable`. On SQLite it waits as long
    /// for the lock of another process, and longer while processes that have it commit.
    #[serde(with = "duration")]
    pub acquire_timeout: Duration,
    /// How long opening a connection may take.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// A connection older than this is replaced instead of used again, so that a service follows a failover or a
    /// change of DNS without a restart.
    #[serde(with = "duration")]
    pub max_lifetime: Duration,
    /// How many prepared statements each connection keeps.
    pub statement_cache: usize,
    /// Statements that take longer are logged as warnings, with their text and never with their values.
    #[serde(with = "duration")]
    pub slow_statement: Duration,
    /// Whether `serve` applies pending migrations before it is ready.
    pub migrate_on_start: bool,
    /// How many threads read a SQLite file.
    pub sqlite_readers: usize,
    /// A SQLite transaction that runs no statement for this long is rolled back, because all other writers wait for it.
    #[serde(with = "duration")]
    pub sqlite_idle_transaction: Duration,
}

impl DatabaseSettings {
    /// The default settings with `url`.
    pub fn from_url(url: impl Into<SecretUrl>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// The file, if the URL names a SQLite file.
    pub fn sqlite_path(&self) -> Option<PathBuf> {
        match DatabaseUrl::parse(self.url.expose()) {
            Ok(DatabaseUrl::Sqlite(url::SqliteFile::Path(path))) => Some(path),
            _ => None,
        }
    }
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        Self {
            url: SecretUrl::from("sqlite://data/service.db"),
            max_connections: 16,
            // Well below the usual request deadline, so that an exhausted pool is told from a slow statement.
            acquire_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(5),
            max_lifetime: Duration::from_secs(30 * 60),
            statement_cache: 256,
            slow_statement: Duration::from_secs(1),
            migrate_on_start: true,
            sqlite_readers: 2,
            sqlite_idle_transaction: Duration::from_secs(10),
        }
    }
}
