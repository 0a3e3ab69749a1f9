//! [`Harness`]: a test program whose cases need servers that may not be there.

use std::collections::BTreeSet;
use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use mainstay_core::{Context, Result};

use super::{Server, TestDatabase};
use crate::db::Db;
use crate::driver::Dialect;
use crate::settings::DatabaseSettings;

/// Runs async cases as `cargo test` shows and filters them, each on a runtime of its own.
///
/// A case that panics or returns an error fails. See [`testing`](super) for an example.
#[must_use = "`run` runs the cases"]
#[derive(Default)]
pub struct Harness {
    trials: Vec<Trial>,
    /// Why cases are ignored, each reason once.
    ignored: BTreeSet<String>,
    one_at_a_time: bool,
    /// Why the cases that are added now can't be run, whatever they need besides.
    missing: Option<String>,
}

/// What a case can't do without.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Needs {
    /// MySQL or MariaDB.
    Mysql,
    /// Nothing but this process and a file system.
    Nothing,
    /// PostgreSQL.
    Postgres,
}

/// What a case on a database is given.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Scene {
    /// Connected to an empty database that no other case uses.
    pub db: Db,
    /// Done when the case has taken far too long.
    pub ctx: Context,
    /// For more handles to the same database.
    pub settings: DatabaseSettings,
}

/// A case that hangs is ended, and so fails by name instead of stopping the whole run.
const LIMIT: Duration = Duration::from_secs(300);

/// Set to `1` where all servers have to be there, as in CI.
const REQUIRE: &str = "MAINSTAY_REQUIRE_SERVICES";

impl Harness {
    /// A harness without cases.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cases that are added from here on also need something that the caller has looked for: an `Err` says why it isn't
    /// there.
    pub fn given(mut self, available: Result<(), String>) -> Self {
        self.missing = available.err();
        self
    }

    /// Adds a case that finds its way by itself.
    pub fn case<F>(self, name: &str, needs: Needs, case: F) -> Self
    where
        F: AsyncFnOnce() -> Result<()> + Send + 'static,
    {
        let available = match needs {
            Needs::Mysql => available(Server::Mysql),
            Needs::Nothing => Ok(()),
            Needs::Postgres => available(Server::Postgres),
        };
        self.case_if(available, name, case)
    }

    /// Adds a case that needs something which the caller has looked for: an `Err` says why it isn't there.
    pub fn case_if<F>(mut self, available: Result<(), String>, name: &str, case: F) -> Self
    where
        F: AsyncFnOnce() -> Result<()> + Send + 'static,
    {
        let available = self.missing.clone().map_or(available, Err);
        let trial = match available {
            Ok(()) => Trial::test(name, move || run(case)),
            Err(reason) if env::var(REQUIRE).is_ok_and(|value| value == "1") => {
                Trial::test(name, move || Err(format!("{reason}; {REQUIRE}=1 wants it there").into()))
            }
            Err(reason) => {
                self.ignored.insert(reason);
                Trial::test(name, || Ok(())).with_kind("not available").with_ignored_flag(true)
            }
        };
        self.trials.push(trial);
        self
    }

    /// Adds `case` once for each of the databases, as `postgres::name`, with a fresh database.
    pub fn on_each<F>(self, databases: &[Dialect], name: &str, case: F) -> Self
    where
        F: AsyncFnOnce(Scene) -> Result<()> + Clone + Send + 'static,
    {
        databases.iter().fold(self, |harness, &dialect| {
            let needs = match dialect {
                Dialect::Mysql => Needs::Mysql,
                Dialect::Postgres => Needs::Postgres,
                Dialect::Sqlite => Needs::Nothing,
            };
            let case = case.clone();
            harness.case(&format!("{dialect}::{name}"), needs, async move || on(dialect, case).await)
        })
    }

    /// Runs one case after another: for cases that measure, or that count what the whole process or server does.
    pub fn one_at_a_time(mut self) -> Self {
        self.one_at_a_time = true;
        self
    }

    /// Runs what the command line asks for, as `cargo test` does.
    pub fn run(self) -> ExitCode {
        for reason in &self.ignored {
            // On the side of what the test runner reads; that nobody reads it is no failure.
            let _ = writeln!(io::stderr(), "ignored: {reason}");
        }
        let mut arguments = arguments(env::args(), &self.trials);
        if self.one_at_a_time {
            arguments.test_threads = Some(1);
        }
        libtest_mimic::run(&arguments, self.trials).exit_code()
    }
}

/// Options of `cargo test` whose value is the next word.
const WITH_VALUE: [&str; 6] = ["--color", "--format", "--logfile", "--skip", "--test-threads", "-Z"];

/// What `words`, the program's own name first, ask for. Several names are as many cases, as with `cargo test`'s own harness,
/// while libtest-mimic knows one: what none of them means is skipped by its whole name.
fn arguments(mut words: impl Iterator<Item = String>, trials: &[Trial]) -> Arguments {
    let (mut options, mut names) = (Vec::new(), Vec::new());
    options.extend(words.next());
    while let Some(word) = words.next() {
        if !word.starts_with('-') {
            names.push(word);
            continue;
        }
        let value = if WITH_VALUE.contains(&word.as_str()) { words.next() } else { None };
        options.extend([word].into_iter().chain(value));
    }
    let arguments = Arguments::from_iter(options);
    if names.is_empty() {
        return arguments;
    }
    let by_name: Vec<_> = names.into_iter().map(|name| Arguments { filter: Some(name), ..arguments.clone() }).collect();
    let nobody_means = |trial: &&Trial| by_name.iter().all(|arguments| arguments.is_filtered_out(trial));
    let skip = trials.iter().filter(nobody_means).map(|trial| trial.name().to_owned()).collect();
    Arguments { exact: true, skip, ..arguments }
}

async fn on<F: AsyncFnOnce(Scene) -> Result<()>>(dialect: Dialect, case: F) -> Result<()> {
    let database = TestDatabase::create(dialect).await?;
    let ctx = Context::background().with_timeout(LIMIT);
    let db = database.connect(&ctx).await?;
    let result = case(Scene { db: db.clone(), ctx: ctx.clone(), settings: database.settings() }).await;
    db.close(&ctx.with_timeout(Duration::from_secs(5))).await;
    result.and(database.remove().await)
}

fn run<F: AsyncFnOnce() -> Result<()>>(case: F) -> Result<(), Failed> {
    // More than one thread, so that what races in a service races here.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.map_err(|error| Failed::from(error.to_string()))?.block_on(async {
        tokio::time::timeout(LIMIT, case()).await.map_err(|_| Failed::from(format!("not done after {LIMIT:?}")))
    })?;
    result.map_err(|error| Failed::from(format!("{error:?}")))
}

fn available(server: Server) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(server.url()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases that a command line runs.
    fn run_by(words: &str) -> String {
        let names = ["sqlite::a", "sqlite::a_b", "mysql::a", "mysql::c"];
        let trials: Vec<_> = names.into_iter().map(|name| Trial::test(name, || Ok(()))).collect();
        let words = ["program"].into_iter().chain(words.split_whitespace()).map(str::to_owned);
        let arguments = arguments(words, &trials);
        let run = trials.iter().filter(|trial| !arguments.is_filtered_out(trial));
        run.map(Trial::name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn names_on_the_command_line_are_parts_of_names_any_number_of_them() {
        for (words, run) in [
            ("", "sqlite::a sqlite::a_b mysql::a mysql::c"),
            ("a_b", "sqlite::a_b"),
            ("a_b mysql", "sqlite::a_b mysql::a mysql::c"),
            ("nobody a_b --nocapture nothing", "sqlite::a_b"),
            ("nobody nothing", ""),
            ("--test-threads 1 sqlite c", "sqlite::a sqlite::a_b mysql::c"),
            ("--test-threads=1 --skip a_b sqlite c", "sqlite::a mysql::c"),
            ("--skip sqlite", "mysql::a mysql::c"),
            ("--exact sqlite::a mysql", "sqlite::a"),
            ("sqlite::a mysql::c --exact", "sqlite::a mysql::c"),
        ] {
            assert_eq!(run_by(words), run, "{words}");
        }
    }
}
