//! [`PrivateServer`]: a PostgreSQL or MariaDB that may be stopped, because nobody else uses it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use mainstay::prelude::*;
use mainstay::sql::Dialect;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::Command;

use crate::process::{self, Process};

/// A server with data and a port of its own. It ends with this value.
#[derive(Debug)]
pub struct PrivateServer {
    dialect: Dialect,
    folder: TempDir,
    port: u16,
    process: Option<Process>,
}

/// Whether the programs are there; if not, a sentence about what is missing.
///
/// # Errors
/// That sentence.
pub fn installed(dialect: Dialect) -> Result<(), String> {
    match dialect {
        Dialect::Sqlite => Ok(()),
        Dialect::Postgres if postgres_program("initdb").is_some() => Ok(()),
        Dialect::Postgres => Err("PostgreSQL's initdb and postgres are not installed here".to_owned()),
        Dialect::Mysql if find("mariadbd").is_some() && find("mariadb-install-db").is_some() => Ok(()),
        Dialect::Mysql => Err("mariadbd and mariadb-install-db are not installed here".to_owned()),
    }
}

impl PrivateServer {
    /// A new server with no data, ready.
    ///
    /// # Errors
    /// When its programs are missing or fail.
    pub async fn start(dialect: Dialect) -> Result<Self> {
        Self::start_in(&std::env::temp_dir(), dialect).await
    }

    /// One whose data are in `parent`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_in(parent: &Path, dialect: Dialect) -> Result<Self> {
        let folder = tempfile::tempdir_in(parent)?;
        if is_root() {
            // Servers refuse to run as root.
            run(Command::new("chown").arg(owner(dialect)).arg(folder.path())).await?;
        }
        let data = folder.path().join("data");
        run(&mut match dialect {
            Dialect::Postgres => {
                let mut command = run_as(dialect, &postgres("initdb")?);
                command.args(["-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8", "-D"]).arg(&data);
                command
            }
            _ => {
                let mut command = run_as(dialect, &find("mariadb-install-db").ok_or_else(|| missing("MariaDB"))?);
                command
                    .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
                    .arg(format!("--datadir={}", data.display()))
                    .arg(format!("--tmpdir={}", folder.path().display()));
                command
            }
        })
        .await?;
        let mut server = Self { dialect, folder, port: process::free_port().port(), process: None };
        server.start_again().await?;
        Ok(server)
    }

    /// Starts it on the same port, and waits until it takes connections.
    ///
    /// # Errors
    /// When its program is missing.
    pub async fn start_again(&mut self) -> Result<()> {
        let (data, port) = (self.folder.path().join("data"), self.port);
        let (mut command, ready) = match self.dialect {
            Dialect::Postgres => {
                let mut command = run_as(self.dialect, &postgres("postgres")?);
                command.arg("-D").arg(data).arg("-p").arg(port.to_string());
                // No power is cut here, so that no sync is needed.
                for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"] {
                    command.args(["-c", setting]);
                }
                (command, "ready to accept connections")
            }
            _ => {
                let mut command = run_as(self.dialect, &find("mariadbd").ok_or_else(|| missing("MariaDB"))?);
                let path = |name: &str| self.folder.path().join(name).display().to_string();
                command.args(["--no-defaults", "--bind-address=127.0.0.1", "--innodb-flush-log-at-trx-commit=2"]);
                command.arg(format!("--port={port}")).arg(format!("--datadir={}", data.display()));
                command.arg(format!("--tmpdir={}", self.folder.path().display()));
                command.arg(format!("--socket={}", path("socket"))).arg(format!("--pid-file={}", path("pid")));
                (command, "ready for connections")
            }
        };
        self.process = Some(Process::prepared(&mut command, ready).await);
        Ok(())
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.process.as_mut().is_none_or(|process| process.exited().is_some())
    }

    /// Ends it: in order, or at once as in a crash.
    pub async fn stop(&mut self, at_once: bool) {
        if let Some(process) = self.process.take() {
            process.signal(match (self.dialect, at_once) {
                (Dialect::Postgres, true) => Signal::QUIT, // "immediate": no checkpoint, recovery at the next start
                (Dialect::Postgres, false) => Signal::INT, // "fast": doesn't wait for clients
                (_, true) => Signal::KILL,
                (_, false) => Signal::TERM,
            });
            process.ended().await;
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The URL of one of its databases.
    pub fn url(&self, database: &str) -> String {
        match self.dialect {
            Dialect::Postgres => format!("postgres://postgres@{}/{database}?sslmode=disable", self.address()),
            _ => format!("mysql://root@{}/{database}?ssl-mode=disabled", self.address()),
        }
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        // Asked, so that it takes its children along; it is killed should it be slow.
        if let Some(process) = &self.process {
            process.signal(Signal::QUIT);
        }
    }
}

/// Runs `command` to its end.
///
/// # Errors
/// What it wrote, if it failed.
pub(super) async fn run(command: &mut Command) -> Result<()> {
    let output = command.kill_on_drop(true).output().await?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::internal(format!("{:?}: {}: {said}", command.as_std(), output.status)))
}

/// One of PostgreSQL's programs.
pub(super) fn postgres(program: &str) -> Result<PathBuf> {
    postgres_program(program).ok_or_else(|| missing("PostgreSQL"))
}

fn missing(what: &str) -> Error {
    Error::unavailable(format!("{what} is not installed here"))
}

fn owner(dialect: Dialect) -> &'static str {
    if dialect == Dialect::Postgres { "postgres" } else { "mysql" }
}

fn run_as(dialect: Dialect, program: &Path) -> Command {
    run_as_user(owner(dialect), program)
}

/// As `user` if we are root, because servers refuse that.
pub(super) fn run_as_user(user: &str, program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", user, "--init-groups"]).arg(program);
    command.current_dir("/"); // one that this user may enter
    command
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// In the path, or where Debian keeps the programs of each version.
fn postgres_program(name: &str) -> Option<PathBuf> {
    if let Some(program) = find(name) {
        return Some(program);
    }
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let programs = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin").join(name)));
    programs.filter(|program| program.exists()).max()
}

pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|program| program.exists())
}
