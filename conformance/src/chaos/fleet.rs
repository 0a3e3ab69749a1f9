//! [`Fleet`]: the processes of a cell, each with its settings, started and ended as the fault wants it.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use mainstay::prelude::*;
use rustix::process::Signal;
use tokio::process::{ChildStdin, Command};

use crate::process::Process;

/// The parts that a process can play.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Publishes.
    Producer,
    /// Applies.
    Worker,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Producer => "producer",
            Role::Worker => "worker",
        }
    }
}

/// What a producer logs of events whose transaction or savepoint it undid, or was told has failed.
pub const UNDONE: &str = "undone for certain";
/// What a producer logs of events whose commit it was not told the outcome of.
pub const UNKNOWN: &str = "outcome unknown";
/// What a producer logs of an error that a user would have seen.
pub const REFUSED: &str = "publishing failed";
/// What a producer logs in the end of how long its transactions took.
pub const TOOK: &str = "transactions took";
/// What a producer logs of a pair of transactions that began in one order and were committed in the other.
pub const INTERLEAVED: &str = "interleaved";

/// What a worker logs when it begins with an event whose handler takes its time.
pub const SLOW: &str = "a slow step begins";

/// All processes on one database.
#[derive(Debug)]
pub struct Fleet {
    program: PathBuf,
    folder: tempfile::TempDir,
    url: String,
    environment: Vec<(String, String)>,
    members: Vec<Member>,
    /// What those wrote that have ended, by name.
    past: Vec<(String, String)>,
    started: u64,
}

/// A process that was started and has not been buried.
#[derive(Debug)]
pub struct Member {
    /// Its role and number, as `worker-7`; no two have the same.
    pub name: String,
    /// What it does.
    pub role: Role,
    process: Process,
    /// Its standard input. The process ends when this does, also when the supervisor was killed.
    tether: ChildStdin,
    /// Settings of its own, which its successor gets too.
    own: Vec<(String, String)>,
}

impl Fleet {
    /// No process yet, and what all of them are told.
    ///
    /// # Errors
    /// When there is no room for a temporary folder.
    pub fn new(program: &Path, url: String, environment: Vec<(String, String)>) -> Result<Self> {
        let (program, folder) = (program.to_owned(), tempfile::tempdir()?);
        Ok(Self { program, folder, url, environment, members: Vec::new(), past: Vec::new(), started: 0 })
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts go to another database from here on.
    pub fn move_to(&mut self, url: String) {
        self.url = url;
    }

    /// What every process is told from here on, besides or instead of before.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.push((name.to_owned(), value.into()));
    }

    /// The command of the program with all settings, for its subcommands.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env("DATABASE_URL", &self.url)
            .envs([("RIG_HTTP__ADDR", "127.0.0.1:0"), ("RIG_ADMIN__ADDR", "127.0.0.1:0")])
            .envs([("RIG_HTTP__HANDOVER", "off"), ("RIG_SHUTDOWN__SETTLE", "0s"), ("RIG_LOG__FORMAT", "json")])
            // A pool for each of many processes, below what a server allows in all.
            .envs([("RIG_DATABASE__MAX_CONNECTIONS", "6"), ("RIG_DATABASE__SLOW_STATEMENT", "60s")])
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a subcommand to its end: whether it succeeded, and what it wrote.
    ///
    /// # Errors
    /// When it can't be started.
    pub async fn run(&self, arguments: &[&str]) -> Result<(bool, String)> {
        self.running(arguments, &[]).await
    }

    /// As [`Fleet::run`], with settings of its own, while others do something to the fleet.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn running(
        &self,
        arguments: &[&str],
        own: &[(&str, &str)],
    ) -> impl Future<Output = Result<(bool, String)>> + Send + use<> {
        let mut command = self.command();
        command.args(arguments).envs(own.iter().copied()).kill_on_drop(true);
        async move {
            let output = command.output().await?;
            let said = [output.stdout, output.stderr].concat();
            Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
        }
    }

    /// Starts a process and doesn't wait for it. Returns its name.
    pub fn start(&mut self, role: Role, own: &[(&str, &str)]) -> String {
        let own = own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.start_with(role, own)
    }

    /// Starts a process and waits until it is ready. Returns its name.
    pub async fn ready(&mut self, role: Role, own: &[(&str, &str)]) -> String {
        let name = self.start(role, own);
        self.await_ready(&name).await;
        name
    }

    /// Waits until a process is ready or has ended: whether it was ready.
    pub async fn await_ready(&self, name: &str) -> bool {
        match self.members.iter().find(|member| member.name == name) {
            Some(member) => member.process.comes_to("\"ready\"").await,
            None => false,
        }
    }

    /// The names of those that play a role, the oldest first.
    pub fn names(&self, role: Role) -> Vec<String> {
        self.members.iter().filter(|member| member.role == role).map(|member| member.name.clone()).collect()
    }

    /// All names, with their roles.
    pub fn members(&self) -> Vec<(String, Role)> {
        self.members.iter().map(|member| (member.name.clone(), member.role)).collect()
    }

    /// All names.
    pub fn everyone(&self) -> Vec<String> {
        self.members.iter().map(|member| member.name.clone()).collect()
    }

    /// Whether a process has ended by itself.
    pub fn has_ended(&mut self, name: &str) -> bool {
        self.members.iter_mut().any(|member| member.name == name && member.process.exited().is_some())
    }

    /// Whether any process has ended by itself.
    pub fn any_ended(&mut self) -> bool {
        self.members.iter_mut().any(|member| member.process.exited().is_some())
    }

    /// Forgets what those of a role have written who are no more: it is about a database that is no more.
    pub fn forget_past(&mut self, role: Role) {
        self.past.retain(|(name, _)| !name.starts_with(role.name()));
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str, signal: Signal) {
        if let Some(member) = self.members.iter().find(|member| member.name == name) {
            member.process.signal(signal);
        }
    }

    /// Kills one and waits for its end.
    pub async fn kill(&mut self, name: &str) {
        self.signal(name, Signal::KILL);
        self.bury(name).await;
    }

    /// Asks one to end and waits for it: how it ended.
    pub async fn terminate(&mut self, name: &str) -> Option<ExitStatus> {
        self.signal(name, Signal::TERM);
        self.bury(name).await
    }

    /// Waits until one has ended by itself, or was killed: how.
    pub async fn bury(&mut self, name: &str) -> Option<ExitStatus> {
        let index = self.members.iter().position(|member| member.name == name)?;
        let Member { name, process, tether, .. } = self.members.remove(index);
        let (status, log) = process.ended().await;
        drop(tether);
        self.past.push((name, log));
        Some(status)
    }

    /// Kills one and starts its like. Returns the name of the new one, which may not be ready.
    pub async fn replace(&mut self, name: &str) -> Option<String> {
        let index = self.members.iter().position(|member| member.name == name)?;
        let (role, own) = (self.members[index].role, self.members[index].own.clone());
        self.kill(name).await;
        Some(self.start_with(role, own))
    }

    /// Starts the like of each that has ended by itself. Returns how many that were.
    pub async fn revive(&mut self) -> u64 {
        let ended = |member: &mut Member| member.process.exited().is_some().then(|| member.name.clone());
        let ended: Vec<String> = self.members.iter_mut().filter_map(ended).collect();
        for name in &ended {
            self.replace(name).await;
        }
        u64::try_from(ended.len()).unwrap_or(u64::MAX)
    }

    /// How much memory one holds, in bytes.
    pub fn resident(&self, name: &str) -> u64 {
        let member = self.members.iter().find(|member| member.name == name);
        member.map_or(0, |member| member.process.resident())
    }

    /// Everything that was written with `text` in it.
    pub fn lines(&self, text: &str) -> Vec<String> {
        self.logs()
            .iter()
            .flat_map(|(_, log)| log.lines())
            .filter(|line| line.contains(text))
            .map(str::to_owned)
            .collect()
    }

    /// The events named in the lines with `text` in them.
    pub fn events(&self, text: &str) -> HashSet<Uuid> {
        let lines = self.lines(text);
        let words = lines.iter().flat_map(|line| line.split(|c: char| !c.is_ascii_hexdigit() && c != '-'));
        words.filter(|word| word.len() == 36).filter_map(|word| word.parse().ok()).collect()
    }

    /// Writes what each process wrote into `folder`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        for (name, log) in self.logs() {
            fs::write(folder.join(format!("{name}.log")), log)?;
        }
        Ok(())
    }

    fn logs(&self) -> Vec<(String, String)> {
        let living = self.members.iter().map(|member| (member.name.clone(), member.process.log()));
        self.past.iter().cloned().chain(living).collect()
    }

    fn start_with(&mut self, role: Role, own: Vec<(String, String)>) -> String {
        self.started += 1;
        let name = format!("{}-{}", role.name(), self.started);
        let mut command = self.command();
        command
            .env("RIG_PART__ROLE", role.name())
            .env("RIG_PART__NAME", &name)
            .env("RIG_PART__INCARNATION", self.started.to_string());
        command.envs(own.iter().map(|(name, value)| (name, value)));
        let mut process = Process::start(command.env("RIG_PART__TETHERED", "true").stdin(Stdio::piped()));
        let tether = process.stdin();
        self.members.push(Member { name: name.clone(), role, process, tether, own });
        name
    }
}
