//! [`Server`]: where a test finds PostgreSQL and MySQL.

use std::env;
use std::sync::OnceLock;
use std::time::Duration;

use mainstay_core::{Context, Result};
use mainstay_telemetry::Metrics;

use crate::db::Db;
use crate::driver::Dialect;
use crate::settings::DatabaseSettings;

/// A database server that tests use if it answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Server {
    /// MySQL or MariaDB.
    Mysql,
    /// PostgreSQL.
    Postgres,
}

/// Long enough for a server on a busy machine, short enough to wait for on every run without one.
const PATIENCE: Duration = Duration::from_secs(5);

impl Server {
    /// The URL at which it answered, with a user who may create databases; or, in a sentence, why it did not. It is
    /// asked once in a process.
    pub async fn url(self) -> Result<String, String> {
        static MYSQL: OnceLock<Result<String, String>> = OnceLock::new();
        static POSTGRES: OnceLock<Result<String, String>> = OnceLock::new();
        let found = match self {
            Server::Mysql => &MYSQL,
            Server::Postgres => &POSTGRES,
        };
        match found.get() {
            Some(found) => found.clone(),
            None => {
                let answer = self.ask().await;
                found.get_or_init(|| answer).clone()
            }
        }
    }

    /// Which of the databases it is.
    pub fn dialect(self) -> Dialect {
        match self {
            Server::Mysql => Dialect::Mysql,
            Server::Postgres => Dialect::Postgres,
        }
    }

    async fn ask(self) -> Result<String, String> {
        let (variables, usual) = match self {
            Server::Mysql => (&["MYSQL_TEST_URL", "MARIADB_TEST_URL"][..], "mysql://root@127.0.0.1:3306/"),
            Server::Postgres => (&["POSTGRES_TEST_URL"][..], "postgres://postgres@127.0.0.1:5432/postgres"),
        };
        let set = variables.iter().find_map(|variable| Some((variable, env::var(variable).ok()?)));
        let (place, url) = match set {
            Some((variable, url)) => (format!("at {variable}"), url),
            None => (format!("at {usual} ({} is not set)", variables.join(" or ")), usual.to_owned()),
        };
        match connect(&url).await {
            Ok(db) => {
                db.close(&Context::background().with_timeout(PATIENCE)).await;
                Ok(url)
            }
            Err(error) => Err(format!("{} doesn't answer {place}: {}", self.dialect(), error.report())),
        }
    }
}

/// A small pool with the server's own user.
pub(super) async fn connect(url: &str) -> Result<Db> {
    let settings =
        DatabaseSettings { max_connections: 1, connect_timeout: PATIENCE, ..DatabaseSettings::from_url(url) };
    let ctx = Context::background().with_timeout(PATIENCE);
    let db = Db::new(&settings, &Metrics::new())?;
    db.connect(&ctx).await?;
    db.ping(&ctx).await?;
    Ok(db)
}
