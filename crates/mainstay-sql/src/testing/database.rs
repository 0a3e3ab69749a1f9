//! [`TestDatabase`]: a database that lives as long as a test.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, fs, thread};

use jiff::Timestamp;
use mainstay_core::{Context, Error, Result};
use mainstay_telemetry::Metrics;
use uuid::Uuid;

use super::server::{self, Server};
use crate::db::Db;
use crate::driver::Dialect;
use crate::settings::DatabaseSettings;
use crate::value::Value;

/// An empty database of its own, gone when this is removed or dropped.
///
/// On SQLite it is a file in a temporary folder, on the servers a database named `mainstay_test_…`. What an aborted
/// process left behind on a server is removed by a later one, after an hour ([`TestDatabase::remove_leftovers`]).
#[derive(Debug)]
pub struct TestDatabase {
    url: String,
    place: Option<Place>, // `None` once it is removed
}

#[derive(Debug)]
enum Place {
    Folder(PathBuf),
    Server { url: String, name: String },
}

const PREFIX: &str = "mainstay_test_";
/// A test may not be connected yet, or not at the moment, to one that is younger.
const LEFTOVER_AGE: i64 = 60 * 60;
/// For creating and dropping, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

impl TestDatabase {
    /// Makes an empty database.
    ///
    /// # Errors
    /// [`Code::Unavailable`](mainstay_core::Code::Unavailable) when no such server answers; what it says to
    /// `CREATE DATABASE`.
    pub async fn create(dialect: Dialect) -> Result<Self> {
        match dialect {
            Dialect::Mysql => Self::create_on(Server::Mysql).await,
            Dialect::Postgres => Self::create_on(Server::Postgres).await,
            Dialect::Sqlite => {
                let folder = env::temp_dir().join(unique_name());
                fs::create_dir(&folder)?;
                let url = format!("sqlite://{}", folder.join("test.db").display());
                Ok(Self { url, place: Some(Place::Folder(folder)) })
            }
        }
    }

    /// Its URL, as [`DatabaseSettings::url`] takes it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The default settings with its URL.
    pub fn settings(&self) -> DatabaseSettings {
        DatabaseSettings::from_url(self.url.as_str())
    }

    /// A connected handle to it with the default settings.
    ///
    /// # Errors
    /// Those of [`Db::connect`].
    pub async fn connect(&self, ctx: &Context) -> Result<Db> {
        let db = Db::new(&self.settings(), &Metrics::new())?;
        db.connect(ctx).await?;
        Ok(db)
    }

    /// Removes it, cutting whoever is still connected.
    ///
    /// # Errors
    /// What the server or the file system says; dropping keeps that to itself.
    pub async fn remove(mut self) -> Result<()> {
        match self.place.take() {
            Some(place) => place.remove().await,
            None => Ok(()),
        }
    }

    /// Removes what aborted processes have left behind on the server: databases that are older than an hour, and that nobody is
    /// connected to. The first [`create`](Self::create) of a process does so too.
    ///
    /// # Errors
    /// See [`TestDatabase::create`].
    pub async fn remove_leftovers(dialect: Dialect) -> Result<()> {
        let server = match dialect {
            Dialect::Mysql => Server::Mysql,
            Dialect::Postgres => Server::Postgres,
            Dialect::Sqlite => return Ok(()),
        };
        let admin = server::connect(&server.url().await.map_err(Error::unavailable)?).await?;
        let removed = remove_leftovers(&admin).await;
        admin.close(&patience()).await;
        removed
    }

    async fn create_on(server: Server) -> Result<Self> {
        let url = server.url().await.map_err(Error::unavailable)?;
        let name = unique_name();
        let admin = server::connect(&url).await?;
        static CLEANED: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];
        if !CLEANED[usize::from(server == Server::Mysql)].swap(true, Ordering::Relaxed) {
            remove_leftovers(&admin).await?;
        }
        // Not of template1, which one other session in it makes impossible to copy.
        let template = if server == Server::Postgres { " TEMPLATE template0" } else { "" };
        let created = run(&admin, &format!("CREATE DATABASE {name}{template}")).await;
        admin.close(&patience()).await;
        created?;
        Ok(Self { url: with_database(&url, &name), place: Some(Place::Server { url, name }) })
    }
}

/// Removes it on a thread of its own and waits for that, because a test that panics has no `await` left.
impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else { return };
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(place.remove())
        });
        let _ = thread.join();
    }
}

impl Place {
    async fn remove(self) -> Result<()> {
        match self {
            Place::Folder(folder) => Ok(fs::remove_dir_all(folder)?),
            Place::Server { url, name } => {
                let admin = server::connect(&url).await?;
                let removed = remove(&admin, &name).await;
                admin.close(&patience()).await;
                removed
            }
        }
    }
}

async fn remove(admin: &Db, name: &str) -> Result<()> {
    if admin.dialect() == Dialect::Postgres {
        return run(admin, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
    }
    // MySQL would wait for transactions that the test left open.
    let others = "SELECT CAST(id AS SIGNED) FROM information_schema.processlist WHERE db = $1";
    for id in admin.query(others).bind(name).all::<i64>(&patience()).await? {
        let _ = run(admin, &format!("KILL {id}")).await; // it may have ended by itself
    }
    run(admin, &format!("DROP DATABASE IF EXISTS {name}")).await
}

async fn remove_leftovers(admin: &Db) -> Result<()> {
    let databases = match admin.dialect() {
        Dialect::Postgres => {
            "SELECT datname::text FROM pg_database d WHERE datname LIKE $1 \
             AND NOT EXISTS (SELECT 1 FROM pg_stat_activity a WHERE a.datname = d.datname)"
        }
        _ => {
            "SELECT schema_name FROM information_schema.schemata s WHERE schema_name LIKE $1 \
             AND NOT EXISTS (SELECT 1 FROM information_schema.processlist p WHERE p.db = s.schema_name)"
        }
    };
    let pattern = Value::from(format!("{PREFIX}%"));
    for name in admin.query(databases).bind(pattern).all::<String>(&patience()).await? {
        if is_leftover(&name, Timestamp::now()) {
            let _ = remove(admin, &name).await; // another process may be removing it too
        }
    }
    Ok(())
}

/// A statement with a name in it, which can't be bound. Every name here was made by [`unique_name`].
async fn run(db: &Db, sql: &str) -> Result<()> {
    let ctx = patience();
    db.driver(&ctx).await?.session(&ctx).await?.script(&ctx, sql).await
}

fn patience() -> Context {
    Context::background().with_timeout(PATIENCE)
}

/// With the time in it, by which leftovers are known.
fn unique_name() -> String {
    let random = Uuid::new_v4().simple().to_string();
    format!("{PREFIX}{}_{}", Timestamp::now().as_second(), random.get(..12).unwrap_or(&random))
}

fn is_leftover(name: &str, now: Timestamp) -> bool {
    let made = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')).and_then(|(made, _)| made.parse().ok());
    made.is_some_and(|made: i64| now.as_second().saturating_sub(made) > LEFTOVER_AGE)
}

/// `url` with another database in its path.
fn with_database(url: &str, name: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, String::new()), |(base, query)| (base, format!("?{query}")));
    let authority = base.find("://").map_or(0, |scheme| scheme + 3);
    let end = base.get(authority..).and_then(|rest| rest.find('/')).map_or(base.len(), |slash| authority + slash);
    format!("{}/{name}{query}", base.get(..end).unwrap_or(base))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_is_replaced_in_every_form_of_a_url() {
        for (url, wanted) in [
            ("postgres://u:p@h:1/old?host=/run/x", "postgres://u:p@h:1/new?host=/run/x"),
            ("mysql://root@h:3306/", "mysql://root@h:3306/new"),
            ("mysql://root@h", "mysql://root@h/new"),
            ("mysql://root@h?a=/b", "mysql://root@h/new?a=/b"),
        ] {
            assert_eq!(with_database(url, "new"), wanted);
        }
    }

    #[test]
    fn only_old_databases_of_ours_are_leftovers() {
        let now = Timestamp::from_second(10_000_000).unwrap();
        assert!(is_leftover("mainstay_test_9990000_abc", now));
        for kept in ["mainstay_test_9999999_abc", "mainstay_test_x_abc", "mainstay_test_", "shop", "mainstay_test_1"] {
            assert!(!is_leftover(kept, now), "{kept}");
        }
        assert!(!is_leftover(&unique_name(), Timestamp::now()));
    }
}
