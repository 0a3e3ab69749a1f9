//! [`Store`]: the database of a cell, on the server that everybody uses or on one of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use mainstay::prelude::*;
use mainstay::sql::{DatabaseSettings, Dialect};
use mainstay::telemetry::Metrics;
use mainstay_sql::testing::TestDatabase;
use tokio::process::Command;

use super::disk::SmallDisk;
use super::server::{self, PrivateServer};

/// An empty database that a cell can do anything with.
#[derive(Debug)]
pub struct Store {
    /// Which kind.
    pub dialect: Dialect,
    url: String,
    keep: Keep,
}

#[derive(Debug)]
enum Keep {
    Shared(TestDatabase),
    Private(Box<PrivateServer>),
    /// A file, without a server.
    File,
}

/// The database's name on a server of its own.
const NAME: &str = "rig";

impl Store {
    /// A database on the common server; on SQLite, a file.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn shared(dialect: Dialect) -> Result<Self> {
        let database = TestDatabase::create(dialect).await?;
        Ok(Self { dialect, url: database.url().to_owned(), keep: Keep::Shared(database) })
    }

    /// A database on a new server, which may be stopped. SQLite has no server: it is a file all the same.
    ///
    /// # Errors
    /// When the server's programs are missing.
    pub async fn private(dialect: Dialect) -> Result<Self> {
        if dialect == Dialect::Sqlite {
            return Self::shared(dialect).await;
        }
        Self::on(PrivateServer::start(dialect).await?, dialect).await
    }

    /// A database whose files are on `disk`; so is its server's whole folder, where it has one.
    ///
    /// # Errors
    /// As [`private`](Store::private).
    pub async fn on_disk(disk: &SmallDisk, dialect: Dialect) -> Result<Self> {
        if dialect == Dialect::Sqlite {
            let url = format!("sqlite://{}/{NAME}.db", disk.path().display());
            return Ok(Self { dialect, url, keep: Keep::File });
        }
        Self::on(PrivateServer::start_in(disk.path(), dialect).await?, dialect).await
    }

    async fn on(server: PrivateServer, dialect: Dialect) -> Result<Self> {
        let admin = connect(&server.url(if dialect == Dialect::Postgres { "postgres" } else { "" }), 1).await?;
        admin.query("CREATE DATABASE rig").execute(&Context::background()).await?;
        admin.close(&Context::background()).await;
        Ok(Self { dialect, url: server.url(NAME), keep: Keep::Private(Box::new(server)) })
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where its server listens; SQLite has none.
    pub fn address(&self) -> Option<SocketAddr> {
        let (host, port) = self.authority()?;
        let host = if host == "localhost" { Ipv4Addr::LOCALHOST.into() } else { host.parse().ok()? };
        Some(SocketAddr::new(host, port))
    }

    /// Its URL by way of `proxy`, in plain text, so that the proxy can read what it breaks.
    pub fn url_by(&self, proxy: SocketAddr) -> String {
        let Some((before, rest)) = self.url.split_once('@') else { return self.url.clone() };
        let path = rest.split_once('/').map_or("", |(_, path)| path);
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let plain = if self.dialect == Dialect::Postgres { "sslmode=disable" } else { "ssl-mode=disabled" };
        format!("{before}@{proxy}/{path}?{plain}")
    }

    /// A handle for the supervisor, past every proxy.
    ///
    /// # Errors
    /// Those of [`Db::connect`].
    pub async fn connect(&self) -> Result<Db> {
        connect(&self.url, 3).await
    }

    /// The server, if it is the cell's own.
    pub fn server(&mut self) -> Option<&mut PrivateServer> {
        match &mut self.keep {
            Keep::Private(server) => Some(server),
            Keep::Shared(_) | Keep::File => None,
        }
    }

    /// Writes all of it, as of one moment, into `file`, while others go on.
    ///
    /// # Errors
    /// What the database's own tool says.
    pub async fn dump(&self, file: &Path) -> Result<()> {
        let Some((host, port)) = self.authority() else {
            let db = self.connect().await?;
            let path = file.display().to_string();
            let done = db.query("VACUUM INTO $1").bind(path).execute(&Context::background()).await;
            db.close(&Context::background()).await;
            return done.map(drop);
        };
        let port = port.to_string();
        server::run(&mut if self.dialect == Dialect::Postgres {
            let mut command = Command::new(server::postgres("pg_dump")?);
            command.args(["-h", &host, "-p", &port, "-U", self.user(), "-d", self.name(), "-f"]).arg(file);
            command
        } else {
            let mut command = Command::new("mariadb-dump");
            command.args(["--no-defaults", "--single-transaction", "-h", &host, "-P", &port, "-u", self.user()]);
            command.arg(format!("--result-file={}", file.display())).arg(self.name());
            command
        })
        .await
    }

    /// Reads what [`dump`](Store::dump) wrote into this database, which is empty.
    ///
    /// # Errors
    /// What the database's own tool says.
    pub async fn restore(&self, file: &Path) -> Result<()> {
        let Some((host, port)) = self.authority() else {
            let path = self.url.strip_prefix("sqlite://").unwrap_or(&self.url);
            std::fs::copy(file, path)?;
            return Ok(());
        };
        let port = port.to_string();
        server::run(&mut if self.dialect == Dialect::Postgres {
            let mut command = Command::new(server::postgres("psql")?);
            command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", &host, "-p", &port, "-U", self.user()]);
            command.args(["-d", self.name(), "-f"]).arg(file).stdout(std::process::Stdio::null());
            command
        } else {
            let mut command = Command::new("mariadb");
            command.args(["--no-defaults", "-h", &host, "-P", &port, "-u", self.user(), self.name()]);
            command.stdin(std::fs::File::open(file)?);
            command
        })
        .await
    }

    /// Removes it, and its server if it has one.
    ///
    /// # Errors
    /// What the shared server says.
    pub async fn remove(self) -> Result<()> {
        match self.keep {
            Keep::Shared(database) => database.remove().await,
            Keep::Private(mut server) => {
                server.stop(true).await;
                Ok(())
            }
            Keep::File => Ok(()), // it goes with its disk
        }
    }

    fn authority(&self) -> Option<(String, u16)> {
        if self.dialect == Dialect::Sqlite {
            return None;
        }
        let authority = self.url.split_once('@').map(|(_, rest)| rest)?.split(['/', '?']).next()?;
        let usual = if self.dialect == Dialect::Postgres { 5432 } else { 3306 };
        match authority.split_once(':') {
            Some((host, port)) => Some((host.to_owned(), port.parse().ok()?)),
            None => Some((authority.to_owned(), usual)),
        }
    }

    fn user(&self) -> &str {
        let credentials = self.url.split_once("://").and_then(|(_, rest)| rest.split_once('@')).map(|(user, _)| user);
        credentials.and_then(|user| user.split(':').next()).unwrap_or("root")
    }

    fn name(&self) -> &str {
        let path = self.url.split_once('@').and_then(|(_, rest)| rest.split_once('/')).map(|(_, path)| path);
        path.and_then(|path| path.split('?').next()).unwrap_or(NAME)
    }
}

async fn connect(url: &str, connections: u32) -> Result<Db> {
    let settings = DatabaseSettings { max_connections: connections, ..DatabaseSettings::from_url(url) };
    let db = Db::new(&settings, &Metrics::new())?;
    db.connect(&Context::background()).await?;
    Ok(db)
}
