//! Database servers of the tests' own, with a certificate or without.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;
use std::{process, thread};

use tempfile::TempDir;

use crate::certificates;

/// A server that ends with this value.
pub(crate) struct Private {
    child: Child,
    /// What it logs. The end of it is the end of the server and its children.
    log: Receiver<String>,
    folder: TempDir,
    pub(crate) port: u16,
}

/// How long a server may say nothing, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long it may take to end once it was asked.
const GOODBYE: Duration = Duration::from_secs(5);

pub(crate) fn postgres_is_installed() -> Result<(), String> {
    postgres_programs().map(drop).ok_or_else(|| "PostgreSQL's initdb and postgres are not installed here".to_owned())
}

pub(crate) fn mariadb_is_installed() -> Result<(), String> {
    let installed = find("mariadbd").is_some() && find("mariadb-install-db").is_some();
    installed.then_some(()).ok_or_else(|| "mariadbd and mariadb-install-db are not installed here".to_owned())
}

/// PostgreSQL with the user `app`, password `secret`.
pub(crate) fn postgres(with_tls: bool) -> Private {
    let programs = postgres_programs().unwrap();
    let folder = folder("postgres");
    let data = folder.path().join("data");
    fs::write(folder.path().join("password"), "secret").unwrap();
    finish(run_as("postgres", &programs.join("initdb")).args(["-A", "scram-sha-256", "-U", "app"]).args([
        "-D".as_ref(),
        data.as_os_str(),
        "--pwfile".as_ref(),
        folder.path().join("password").as_os_str(),
    ]));
    start(folder, "ready to accept connections", |folder, port| {
        let mut command = run_as("postgres", &programs.join("postgres"));
        command.arg("-D").arg(&data).arg("-p").arg(port.to_string());
        let mut set = |name: &str, value: &str| {
            command.arg("-c").arg(format!("{name}={value}"));
        };
        set("listen_addresses", "127.0.0.1");
        set("unix_socket_directories", "");
        set("fsync", "off");
        if with_tls {
            set("ssl", "on");
            set("ssl_cert_file", &folder.join("tls.crt").display().to_string());
            set("ssl_key_file", &folder.join("tls.key").display().to_string());
        }
        command
    })
}

/// MariaDB with the user `root` without a password.
pub(crate) fn mariadb(with_tls: bool) -> Private {
    let folder = folder("mysql");
    let data = folder.path().join("data");
    finish(
        run_as("mysql", &find("mariadb-install-db").unwrap())
            .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--tmpdir={}", folder.path().display())),
    );
    start(folder, "ready for connections", |folder, port| {
        let mut command = run_as("mysql", &find("mariadbd").unwrap());
        command.arg("--no-defaults").arg(format!("--port={port}")).arg("--bind-address=127.0.0.1");
        let mut set = |name: &str, path: &Path| {
            command.arg(format!("--{name}={}", path.display()));
        };
        set("datadir", &data);
        // In the common one a server that starts removes the temporary tables of every other.
        set("tmpdir", folder);
        set("socket", &folder.join("socket"));
        set("pid-file", &folder.join("pid"));
        if with_tls {
            set("ssl-cert", &folder.join("tls.crt"));
            set("ssl-key", &folder.join("tls.key"));
        }
        command
    })
}

impl Private {
    /// A file beside its certificate.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // Asked first, so that it takes its shared memory and its children along.
        let asked = Command::new("kill").args(["-QUIT", &self.child.id().to_string()]).status();
        while asked.is_ok() && self.log.recv_timeout(GOODBYE).is_ok() {}
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts it on a free port and waits for the line in which it says that it is ready.
fn start(folder: TempDir, ready: &'static str, command: impl Fn(&Path, u16) -> Command) -> Private {
    for attempt in 0..5 {
        let port = free_port(attempt);
        let mut child = command(folder.path(), port).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (said, heard) = mpsc::channel();
        thread::spawn(move || {
            // To its end, or the server would block on a full pipe.
            for line in lines.map_while(Result::ok) {
                let _ = said.send(line);
            }
        });
        let mut log = String::new();
        while let Ok(line) = heard.recv_timeout(PATIENCE) {
            if line.contains(ready) {
                return Private { child, log: heard, folder, port };
            }
            log.push_str(&line);
            log.push('\n');
        }
        let _ = child.kill();
        let _ = child.wait();
        assert!(log.contains("Address already in use"), "the server doesn't start:\n{log}");
    }
    panic!("no port was free");
}

/// Below the ports that outgoing connections use, and somewhere else in each process.
fn free_port(attempt: u32) -> u16 {
    let first = 20_000 + (process::id() * 7 + attempt * 1009) % 10_000;
    let ports = (first..first + 500).map(|port| u16::try_from(port).unwrap());
    ports.into_iter().find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok()).unwrap()
}

/// A folder with certificates that `user` may use.
fn folder(user: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    certificates::write(folder.path());
    fs::set_permissions(folder.path().join("tls.key"), Permissions::from_mode(0o600)).unwrap();
    if is_root() {
        finish(Command::new("chown").arg("-R").arg(user).arg(folder.path()));
    }
    folder
}

/// Servers refuse to run as root.
fn run_as(user: &str, program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", user, "--init-groups"]).arg(program);
    command.current_dir("/"); // one that this user may enter
    command
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.trim_ascii() == b"0"
}

fn finish(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Debian keeps the programs of each version in a folder of its own.
fn postgres_programs() -> Option<PathBuf> {
    if let Some(program) = find("initdb") {
        return program.parent().map(Path::to_owned);
    }
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    folders.filter(|folder| folder.join("initdb").exists()).max()
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|program| program.exists())
}
