//! The fixture as a real process: started with its settings, watched by its log, told by signals.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which the lint's allowance for tests does not reach")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;

use crate::load::Wire;

/// A net against tests that hang; nothing is measured with it.
const PATIENCE: Duration = Duration::from_secs(180);

/// Where a fixture lives: its folder and its two addresses. Several processes can live there one after another.
#[derive(Debug)]
pub struct Place {
    /// The working folder: database and hand-over sockets.
    pub folder: tempfile::TempDir,
    /// The service's port.
    pub http: SocketAddr,
    /// The admin port.
    pub admin: SocketAddr,
}

impl Place {
    /// A new folder and two ports that were free just now.
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), http: free_port(), admin: free_port() }
    }

    /// The command that runs `program` here: no environment but what makes it live here.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env("FIXTURE_HTTP__ADDR", self.http.to_string())
            .env("FIXTURE_ADMIN__ADDR", self.admin.to_string())
            .env("FIXTURE_SHUTDOWN__SETTLE", "0s");
        command
    }

    /// The command that runs `program` here on `socket`, as a service manager does: as descriptor 3, announced by
    /// `LISTEN_FDS` under the name `http`.
    pub fn command_on(&self, socket: &TcpListener, program: &str) -> Command {
        let mut command = self.command("sh");
        command
            .args(["-c", &format!("exec 3<&0 </dev/null; export LISTEN_PID=$$; exec {program}")])
            .stdin(Stdio::from(OwnedFd::from(socket.try_clone().unwrap())))
            .envs([("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "http")]);
        command
    }

    /// The status of a path of the admin port, asked over a connection of its own.
    pub async fn admin_status(&self, path: &str) -> std::io::Result<u16> {
        Ok(Wire::connect(self.admin).await?.ask("GET", path, false).await?.status)
    }

    /// How many requests the service has in hand, as its metrics say.
    pub async fn in_hand(&self) -> u64 {
        let answer = Wire::connect(self.admin).await.unwrap().ask("GET", "/metrics", false).await.unwrap();
        let text = String::from_utf8(answer.body).unwrap();
        let lines = text.lines().filter(|line| line.starts_with("http_server_active_requests"));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// How many rows the fixture has stored.
    pub fn rows(&self) -> u64 {
        let database = rusqlite::Connection::open(self.folder.path().join("data/fixture.db")).unwrap();
        let count: i64 = database.query_row("SELECT count(*) FROM stored", [], |row| row.get(0)).unwrap();
        count.unsigned_abs()
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

/// A port outside the range that the kernel gives to outgoing connections, so that nobody gets it by chance.
pub fn free_port() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    loop {
        // Test programs that run side by side begin at different places, far from each other though their ids are close.
        let begin = u16::try_from(std::process::id().wrapping_mul(2_654_435_761) % u32::from(COUNT)).unwrap_or(0);
        let port = FIRST + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // Asked, not bound: a process that is being started meanwhile has a copy of each socket of ours until its `exec`,
        // and would hold the port a moment longer than we do.
        if TcpStream::connect(addr).is_err() {
            return addr;
        }
    }
}

/// A running fixture. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lines: watch::Receiver<Vec<String>>,
}

impl Process {
    /// Starts `command` and collects what it writes.
    pub fn start(command: &mut Command) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (lines, seen) = watch::channel(Vec::new());
        collect(child.stdout.take().unwrap(), lines.clone());
        collect(child.stderr.take().unwrap(), lines);
        Self { child, lines: seen }
    }

    /// Starts `command` and waits until it says that it is ready.
    pub async fn ready(command: &mut Command) -> Self {
        Self::prepared(command, "ready").await
    }

    /// Starts `command` and waits for a line with `text`.
    pub async fn prepared(command: &mut Command, text: &str) -> Self {
        let process = Self::start(command);
        process.says(text).await;
        process
    }

    /// Waits for a line of the log with `text`.
    #[track_caller]
    pub fn says(&self, text: &str) -> impl Future<Output = String> {
        let (mut lines, wanted) = (self.lines.clone(), text.to_owned());
        async move {
            let found = |lines: &Vec<String>| lines.iter().any(|line| line.contains(&wanted));
            let outcome = tokio::time::timeout(PATIENCE, lines.wait_for(found)).await;
            let heard = matches!(outcome, Ok(Ok(_)));
            drop(outcome);
            let lines = lines.borrow();
            assert!(heard, "never said `{wanted}`:\n{}", lines.join("\n"));
            lines.iter().find(|line| line.contains(&wanted)).cloned().unwrap_or_default()
        }
    }

    /// Waits for a line of the log with `text`, or for the end of the process: whether there was such a line.
    pub async fn comes_to(&self, text: &str) -> bool {
        let mut lines = self.lines.clone();
        let found = |lines: &Vec<String>| lines.iter().any(|line| line.contains(text));
        tokio::time::timeout(PATIENCE, lines.wait_for(found)).await.is_ok_and(|found| found.is_ok())
    }

    /// Everything it has written up to now.
    pub fn log(&self) -> String {
        self.lines.borrow().join("\n")
    }

    /// Its standard input, which was piped.
    pub fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let Some(id) = self.child.id() else { return }; // it has ended by itself and was waited for
        kill_process(Pid::from_raw(id.cast_signed()).unwrap(), signal).unwrap();
    }

    /// How much memory it holds, in bytes.
    pub fn resident(&self) -> u64 {
        let id = self.child.id().unwrap();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until it has ended, or for ever.
    pub async fn ends(&mut self) {
        self.child.wait().await.unwrap();
    }

    /// Waits for its end: the exit code and all it wrote.
    pub async fn ended(mut self) -> (ExitStatus, String) {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let Ok(status) = status else { panic!("still running:\n{}", self.log()) };
        // The pipes end with the process; what is in them is read first.
        while self.lines.changed().await.is_ok() {}
        (status.unwrap(), self.log())
    }
}

fn collect(pipe: impl AsyncRead + Send + Unpin + 'static, into: watch::Sender<Vec<String>>) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(pipe).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            into.send_modify(|lines| lines.push(line));
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn a_free_port_stays_free_while_processes_start() {
        let running = AtomicBool::new(true);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while running.load(Ordering::Relaxed) {
                        std::process::Command::new("true").status().unwrap();
                    }
                });
            }
            let taken = (0..5_000).filter(|_| TcpListener::bind(free_port()).is_err()).count();
            running.store(false, Ordering::Relaxed);
            assert_eq!(taken, 0);
        });
    }
}
