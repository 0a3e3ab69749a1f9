//! What has to be done, and what is refused: decided from the scripts and the records alone.

use std::fmt;

use mainstay_core::{Error, Result};

use super::lint;
use super::migration::{Direction, Migration, Migrations, Steps, checksum, label};
use super::record::{Phase, Record};
use crate::driver::Dialect;

/// What [`Migrator::up`](super::Migrator::up) would run. `Display` prints it as SQL.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    /// The migrations in order.
    pub migrations: Vec<Planned>,
}

/// A migration that would be run.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Planned {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub name: String,
    /// The statements that would be run.
    pub statements: Vec<String>,
    /// How many statements before these an earlier run did, before one failed.
    pub statements_done: usize,
    /// Whether they take effect together or not at all.
    pub in_transaction: bool,
    /// What would block others, or break the version of the service that still runs, and what to do instead.
    pub warnings: Vec<String>,
}

/// A script to run, from the statement behind the `done` first ones.
#[derive(Debug)]
pub(super) struct Work<'a> {
    pub(super) migration: &'a Migration,
    pub(super) direction: Direction,
    pub(super) steps: Steps<'a>,
    pub(super) done: usize,
    /// What the table says about the migration.
    pub(super) record: Option<Record>,
}

impl Plan {
    pub(super) fn new(migrations: &Migrations, dialect: Dialect, records: &[Record]) -> Result<Self> {
        let planned = pending(migrations, dialect, records)?.into_iter().map(|work| {
            let statements = work.remaining();
            Planned {
                version: work.migration.version(),
                name: work.migration.name().to_owned(),
                warnings: lint::warnings(dialect, statements),
                statements: statements.iter().map(|&statement| statement.to_owned()).collect(),
                statements_done: work.done,
                in_transaction: work.is_whole(dialect),
            }
        });
        Ok(Self { migrations: planned.collect() })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.migrations.is_empty() {
            return writeln!(f, "-- nothing to migrate");
        }
        self.migrations.iter().try_for_each(|migration| write!(f, "{migration}"))
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.in_transaction { "in one transaction" } else { "statement by statement" };
        writeln!(f, "-- {}, {how}", label(self.version, &self.name))?;
        if self.statements_done > 0 {
            writeln!(f, "-- goes on behind statement {}", self.statements_done)?;
        }
        for warning in &self.warnings {
            writeln!(f, "-- warning: {warning}")?;
        }
        for statement in &self.statements {
            // On a line of its own where a comment would swallow it.
            let comment = statement.lines().last().is_some_and(|line| line.contains("--") || line.contains('#'));
            writeln!(f, "{statement}{};", if comment { "\n" } else { "" })?;
        }
        writeln!(f)
    }
}

impl<'a> Work<'a> {
    pub(super) fn remaining(&self) -> &[&'a str] {
        self.steps.statements.get(self.done..).unwrap_or_default()
    }

    /// Whether the script and its record are one transaction; where not, every statement is recorded.
    pub(super) fn is_whole(&self, dialect: Dialect) -> bool {
        self.steps.in_transaction && dialect != Dialect::Mysql
    }

    /// Of the first `done` statements.
    pub(super) fn prefix_checksum(&self, done: usize) -> String {
        checksum(self.steps.statements.iter().take(done).copied())
    }

    fn new(
        migration: &'a Migration,
        direction: Direction,
        dialect: Dialect,
        record: Option<&Record>,
        resumes: impl FnOnce(Phase) -> bool,
    ) -> Result<Self> {
        let steps = migration.steps(dialect, direction)?;
        let done = record.filter(|record| resumes(record.phase)).map_or(0, |record| record.statements_done);
        let work = Self { migration, direction, steps, done, record: record.cloned() };
        if let Some(record) = record
            && done > 0
            && (done > work.steps.statements.len() || work.prefix_checksum(done) != record.checksum)
        {
            let (label, way) = (migration.label(), direction.name());
            return Err(Error::failed_precondition(format!(
                "the first {done} statements of {label}.{way}.sql were done before it failed and have been changed \
                 since: restore them, and repair what comes behind them"
            )));
        }
        Ok(work)
    }
}

/// Everything to apply, in order.
///
/// # Errors
/// What [`Migrator::up`](super::Migrator::up) refuses.
pub(super) fn pending<'a>(migrations: &'a Migrations, dialect: Dialect, records: &[Record]) -> Result<Vec<Work<'a>>> {
    for record in records {
        refuse_changed(migrations.find(record.version), dialect, record)?;
    }
    let newest = records.iter().rfind(|record| record.phase == Phase::Applied);
    let record_of = |migration: &Migration| records.iter().find(|record| record.version == migration.version());
    let not_applied = |migration: &&Migration| record_of(migration).is_none_or(|record| record.phase != Phase::Applied);
    let work = migrations.iter().filter(not_applied).map(|migration| {
        if let Some(newest) = newest.filter(|newest| newest.version > migration.version()) {
            let (old, new) = (migration.label(), label(newest.version, &newest.name));
            return Err(Error::failed_precondition(format!(
                "{old} is new, but {new} has been applied already: give it a number above {}",
                newest.version
            )));
        }
        let resumes = |phase| matches!(phase, Phase::Failed | Phase::Running);
        Work::new(migration, Direction::Up, dialect, record_of(migration), resumes)
    });
    work.collect()
}

/// The next migration to take back; `None` when nothing is applied.
///
/// # Errors
/// What [`Migrator::down`](super::Migrator::down) refuses.
pub(super) fn newest<'a>(migrations: &'a Migrations, dialect: Dialect, records: &[Record]) -> Result<Option<Work<'a>>> {
    // One that failed and left nothing behind is as good as pending.
    let Some(record) = records.iter().rfind(|record| record.phase != Phase::Failed || record.statements_done > 0)
    else {
        return Ok(None);
    };
    let name = label(record.version, &record.name);
    if matches!(record.phase, Phase::Failed | Phase::Running) {
        return Err(Error::failed_precondition(format!(
            "{name} is half applied ({} statements): repair it and migrate up first",
            record.statements_done
        )));
    }
    let migration = migrations.find(record.version).ok_or_else(|| {
        Error::failed_precondition(format!(
            "{name} is unknown to this binary: take it back with the binary that applied it"
        ))
    })?;
    Work::new(migration, Direction::Down, dialect, Some(record), |phase| phase == Phase::Reverting).map(Some)
}

/// Whether the up script is another than the one that was applied.
pub(super) fn is_edited(migration: &Migration, dialect: Dialect, record: &Record) -> bool {
    let script = migration.script(dialect, Direction::Up);
    script.is_none_or(|script| checksum([script]) != record.checksum)
}

fn refuse_changed(migration: Option<&Migration>, dialect: Dialect, record: &Record) -> Result<()> {
    let name = label(record.version, &record.name);
    match (record.phase, migration) {
        (Phase::Reverting, _) => Err(Error::failed_precondition(format!(
            "{name} is half reverted ({} statements): finish it with `migrate down` first",
            record.statements_done
        ))),
        (Phase::Applied, Some(migration)) if is_edited(migration, dialect, record) => {
            let at = record.at;
            Err(Error::failed_precondition(format!(
                "{name} was edited after it was applied on {at:.0}: restore it, or write a new migration"
            )))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    const SQLITE: Dialect = Dialect::Sqlite;
    const UP: [&str; 3] = ["CREATE TABLE a (x INT)", "INSERT INTO a VALUES (1); INSERT INTO a VALUES (2)", "SELECT 3"];

    fn migrations() -> Migrations {
        let migrations =
            UP.iter().zip(1..).map(|(&up, version)| Migration::new(version, "m", up).down("SELECT 1; SELECT 2"));
        Migrations::new(migrations).unwrap()
    }

    fn record(version: i64, phase: Phase, statements_done: usize, checksum: String) -> Record {
        let at = "2026-11-22T10:00:00Z".parse::<Timestamp>().unwrap();
        Record { version, name: "m".to_owned(), checksum, at, phase, statements_done, error: None }
    }

    fn applied(version: i64) -> Record {
        record(version, Phase::Applied, 1, checksum([UP[version as usize - 1]]))
    }

    fn versions(records: &[Record]) -> Vec<(i64, usize)> {
        let migrations = migrations();
        let pending = pending(&migrations, SQLITE, records).unwrap();
        pending.iter().map(|work| (work.migration.version(), work.done)).collect()
    }

    fn refused(records: &[Record]) -> String {
        pending(&migrations(), SQLITE, records).unwrap_err().message().to_owned()
    }

    #[test]
    fn what_is_not_applied_is_pending_in_order() {
        assert_eq!(versions(&[]), [(1, 0), (2, 0), (3, 0)]);
        assert_eq!(versions(&[applied(1)]), [(2, 0), (3, 0)]);
        assert_eq!(versions(&[applied(1), applied(2), applied(3)]), []);
    }

    #[test]
    fn one_that_a_newer_binary_applied_is_none_of_ours() {
        let newer = record(9, Phase::Applied, 1, "?".to_owned());
        assert_eq!(versions(&[applied(1), applied(2), applied(3), newer]), []);
    }

    #[test]
    fn an_edited_one_is_refused_by_name() {
        let edited = record(1, Phase::Applied, 1, checksum(["something else"]));
        assert_eq!(
            refused(&[edited]),
            "0001_m was edited after it was applied on 2026-11-22T10:00:00Z: restore it, or write a new migration"
        );
    }

    #[test]
    fn a_new_one_below_an_applied_one_is_refused_with_the_fix() {
        assert_eq!(
            refused(&[applied(1), applied(3)]),
            "0002_m is new, but 0003_m has been applied already: give it a number above 3"
        );
    }

    #[test]
    fn one_that_failed_goes_on_where_it_failed() {
        let failed = |done, text: &str| record(2, Phase::Failed, done, checksum([text]));
        assert_eq!(versions(&[applied(1), failed(1, "INSERT INTO a VALUES (1)")]), [(2, 1), (3, 0)]);
        assert_eq!(versions(&[applied(1), failed(0, "?")]), [(2, 0), (3, 0)]);
        let changed = refused(&[applied(1), failed(1, "INSERT INTO a VALUES (7)")]);
        assert!(changed.starts_with("the first 1 statements of 0002_m.up.sql were done"), "{changed}");
        assert!(refused(&[applied(1), failed(3, "?")]).starts_with("the first 3 statements"));
    }

    #[test]
    fn down_takes_the_newest_and_refuses_what_it_does_not_know() {
        let migrations = migrations();
        let newest = |records: &[Record]| {
            let work = newest(&migrations, SQLITE, records).map_err(|error| error.message().to_owned())?;
            Ok(work.map(|work| (work.migration.version(), work.done)))
        };
        assert_eq!(newest(&[]), Ok(None));
        assert_eq!(newest(&[applied(1), applied(2)]), Ok(Some((2, 0))));
        assert_eq!(newest(&[applied(1), record(2, Phase::Failed, 0, String::new())]), Ok(Some((1, 0))));
        assert_eq!(newest(&[record(1, Phase::Reverting, 1, checksum(["SELECT 1"]))]), Ok(Some((1, 1))));
        let half: Result<_, String> = newest(&[record(2, Phase::Failed, 1, String::new())]);
        assert!(half.unwrap_err().contains("half applied"));
        assert!(newest(&[record(9, Phase::Applied, 1, String::new())]).unwrap_err().contains("unknown to this binary"));
        assert!(refused(&[record(1, Phase::Reverting, 1, String::new())]).contains("migrate down"));
    }

    #[test]
    fn a_plan_prints_as_sql() {
        let plan = Plan::new(&migrations(), SQLITE, &[applied(1), applied(2)]).unwrap();
        assert_eq!(plan.to_string(), "-- 0003_m, in one transaction\nSELECT 3;\n\n");
        assert_eq!(Plan { migrations: vec![] }.to_string(), "-- nothing to migrate\n");
        let commented = Migrations::new([Migration::new(1, "m", "SELECT 1 -- one")]).unwrap();
        assert!(Plan::new(&commented, SQLITE, &[]).unwrap().to_string().contains("SELECT 1 -- one\n;\n"));
    }
}
