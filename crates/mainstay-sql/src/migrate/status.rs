//! [`Status`]: how each migration stands.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

use super::migration::{Migrations, label};
use super::plan::is_edited;
use super::record::{Phase, Record};
use crate::driver::Dialect;

/// How one migration stands. `Display` is a line for a terminal.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub name: String,
    /// How far it got.
    pub state: State,
}

/// How far a migration got.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum State {
    /// It is applied.
    Applied {
        /// Since when.
        at: Timestamp,
    },
    /// It is applied, and its file was changed since: restore the file, or write a new migration.
    Edited {
        /// When it was applied.
        at: Timestamp,
    },
    /// A statement of it failed: repair the file and migrate up.
    Failed {
        /// When.
        at: Timestamp,
        /// How many statements before it took effect; the next run leaves them out.
        statements_done: usize,
        /// Which statement it was, and the database's words.
        error: String,
    },
    /// It isn't applied.
    Pending,
    /// It is half taken back, or being taken back right now: repair the file and migrate down.
    Reverting {
        /// When it got there.
        at: Timestamp,
        /// How many statements of the down script took effect.
        statements_done: usize,
        /// What failed; `None` when it was cut off or is still running.
        error: Option<String>,
    },
    /// It is being applied right now, or the process that did it was cut off: the statement behind those done may have
    /// taken effect or not.
    Running {
        /// When it got there.
        at: Timestamp,
        /// How many statements are known to have taken effect.
        statements_done: usize,
    },
    /// The database has it and this binary doesn't: a newer binary was here.
    Unknown {
        /// When it was applied.
        at: Timestamp,
    },
}

pub(super) fn of(migrations: &Migrations, dialect: Dialect, records: &[Record]) -> Vec<Status> {
    let known = migrations.iter().map(|migration| {
        let (version, name) = (migration.version(), migration.name().to_owned());
        (version, Status { version, name, state: State::Pending })
    });
    let mut all: BTreeMap<_, _> = known.collect();
    for record in records {
        let &Record { version, at, statements_done, .. } = record;
        let migration = migrations.find(version);
        let state = match record.phase {
            Phase::Applied if migration.is_none() => State::Unknown { at },
            Phase::Applied if migration.is_some_and(|known| is_edited(known, dialect, record)) => State::Edited { at },
            Phase::Applied => State::Applied { at },
            Phase::Failed => State::Failed { at, statements_done, error: record.error.clone().unwrap_or_default() },
            Phase::Reverting => State::Reverting { at, statements_done, error: record.error.clone() },
            Phase::Running => State::Running { at, statements_done },
        };
        let name = migration.map_or(&*record.name, |known| known.name()).to_owned();
        all.insert(version, Status { version, name, state });
    }
    all.into_values().collect()
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", label(self.version, &self.name), self.state)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Applied { at } => write!(f, "applied {at:.0}"),
            State::Edited { at } => write!(f, "applied {at:.0} and edited since"),
            State::Failed { at, error, .. } => write!(f, "failed {at:.0} at {error}"),
            State::Pending => f.write_str("pending"),
            State::Reverting { at, statements_done, error } => {
                write!(f, "half reverted since {at:.0}, behind statement {statements_done}")?;
                error.as_ref().map_or(Ok(()), |error| write!(f, ", failed at {error}"))
            }
            State::Running { at, statements_done } => {
                write!(f, "running since {at:.0} or cut off then, behind statement {statements_done}")
            }
            State::Unknown { at } => write!(f, "applied {at:.0}, unknown to this binary"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::migration::{Migration, checksum};
    use super::*;

    #[test]
    fn known_and_recorded_migrations_are_joined_by_version() {
        let at: Timestamp = "2026-11-22T10:00:00.5Z".parse().unwrap();
        let record = |version, phase, error: Option<&str>| Record {
            version,
            name: "old_name".to_owned(),
            checksum: checksum(["SELECT 1"]),
            at,
            phase,
            statements_done: 1,
            error: error.map(str::to_owned),
        };
        let known = |version| Migration::new(version, "m", "SELECT 1");
        let migrations = Migrations::new([known(1), Migration::new(2, "m", "SELECT 2"), known(3), known(4)]).unwrap();
        let records = [
            record(1, Phase::Applied, None),
            record(2, Phase::Applied, None),
            record(3, Phase::Failed, Some("statement 2 of 2: no such table")),
            record(9, Phase::Applied, None),
        ];
        let lines: Vec<_> = of(&migrations, Dialect::Sqlite, &records).iter().map(Status::to_string).collect();
        assert_eq!(
            lines,
            [
                "0001_m: applied 2026-11-22T10:00:00Z",
                "0002_m: applied 2026-11-22T10:00:00Z and edited since",
                "0003_m: failed 2026-11-22T10:00:00Z at statement 2 of 2: no such table",
                "0004_m: pending",
                "0009_old_name: applied 2026-11-22T10:00:00Z, unknown to this binary",
            ]
        );
    }
}
