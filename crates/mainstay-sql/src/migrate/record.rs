//! The table that says which migrations a database has.

use std::borrow::Cow;

use jiff::Timestamp;
use mainstay_core::{Error, Result};

use crate::driver::{Call, Dialect, Want};
use crate::row::Row;
use crate::value::Value;

/// A line of the table.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) version: i64,
    pub(super) name: String,
    /// Of the whole up script once it is applied; before, and while it is taken back, of the statements done.
    pub(super) checksum: String,
    /// When the state was reached.
    pub(super) at: Timestamp,
    pub(super) phase: Phase,
    pub(super) statements_done: usize,
    pub(super) error: Option<String>,
}

/// How far a migration got.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    Applied,
    /// A statement failed on the way up.
    Failed,
    /// On the way down: in the middle, or a statement failed.
    Reverting,
    /// On the way up and not in a transaction.
    Running,
}

/// Writes the statements that read and change the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) dialect: Dialect,
}

impl Table {
    /// # Errors
    /// `name` is more than letters, digits and `_`.
    pub(super) fn new(name: &'static str, dialect: Dialect) -> Result<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || name.len() > 60 || !name.bytes().all(plain) {
            let message = format!("`{name}` can't name the table of migrations: use up to 60 letters, digits and `_`");
            return Err(Error::invalid_argument(message));
        }
        Ok(Self { name, dialect })
    }

    pub(super) fn create(&self) -> String {
        let (key, text, time) = match self.dialect {
            Dialect::Mysql => ("VARCHAR(255)", "TEXT", "DATETIME(6)"),
            Dialect::Postgres => ("TEXT", "TEXT", "TIMESTAMPTZ"),
            Dialect::Sqlite => ("TEXT", "TEXT", "TEXT"),
        };
        format!(
            "CREATE TABLE IF NOT EXISTS {} (version BIGINT NOT NULL PRIMARY KEY, name {key} NOT NULL, \
             checksum {key} NOT NULL, applied_at {time} NOT NULL, state {key} NOT NULL, \
             statements_done INTEGER NOT NULL, error {text})",
            self.name
        )
    }

    /// Counts the tables of that name: one or none.
    pub(super) fn exists(&self) -> Call {
        let sql = match self.dialect {
            Dialect::Mysql => {
                "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = $1"
            }
            // By the search path, as every other statement finds it.
            Dialect::Postgres => "SELECT COUNT(*) FROM pg_class WHERE oid = to_regclass($1)",
            Dialect::Sqlite => "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = $1",
        };
        call(sql, vec![self.name.into()])
    }

    pub(super) fn read(&self) -> Call {
        let columns = "version, name, checksum, applied_at, state, statements_done, error";
        call(format!("SELECT {columns} FROM {} ORDER BY version", self.name), vec![])
    }

    pub(super) fn insert(&self, record: &Record) -> Call {
        call(
            format!(
                "INSERT INTO {} (version, name, checksum, applied_at, state, statements_done, error) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
                self.name
            ),
            vec![
                record.version.into(),
                (&record.name).into(),
                (&record.checksum).into(),
                record.at.into(),
                record.phase.name().into(),
                i64::try_from(record.statements_done).unwrap_or(i64::MAX).into(),
                record.error.clone().into(),
            ],
        )
    }

    pub(super) fn update(&self, record: &Record) -> Call {
        let sql = format!(
            "UPDATE {} SET name = $2, checksum = $3, applied_at = $4, state = $5, statements_done = $6, error = $7 \
             WHERE version = $1",
            self.name
        );
        Call { sql: sql.into(), ..self.insert(record) }
    }

    pub(super) fn delete(&self, version: i64) -> Call {
        call(format!("DELETE FROM {} WHERE version = $1", self.name), vec![version.into()])
    }
}

impl Record {
    pub(super) fn from_row(row: &mut Row) -> Result<Self> {
        let done: i64 = row.take("statements_done")?;
        Ok(Self {
            version: row.take("version")?,
            name: row.take("name")?,
            checksum: row.take("checksum")?,
            at: row.take("applied_at")?,
            phase: Phase::parse(&row.take::<String>("state")?)?,
            statements_done: usize::try_from(done).unwrap_or(0),
            error: row.take("error")?,
        })
    }
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Phase::Applied => "applied",
            Phase::Failed => "failed",
            Phase::Reverting => "reverting",
            Phase::Running => "running",
        }
    }

    fn parse(name: &str) -> Result<Self> {
        [Phase::Applied, Phase::Failed, Phase::Reverting, Phase::Running]
            .into_iter()
            .find(|phase| phase.name() == name)
            .ok_or_else(|| Error::internal(format!("the table of migrations has a state `{name}`, unknown here")))
    }
}

pub(super) fn call(sql: impl Into<Cow<'static, str>>, values: Vec<Value>) -> Call {
    Call { sql: sql.into(), values, read: false, want: Want::All }
}
