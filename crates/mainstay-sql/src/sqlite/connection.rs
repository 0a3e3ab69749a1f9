//! [`Connection`]: one SQLite connection, owned by one thread, and the work it does.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{Error, Result};
use rusqlite::config::DbConfig;
use rusqlite::{CachedStatement, OpenFlags};

use super::cell::{bind, value_of, weight};
use super::clock::{Stopwatch, pause};
use super::fault::{check, fault_of};
use super::patience::Patience;
use super::ticket::{Current, Ticket};
use crate::driver::{Answer, Begin, Call, Want};
use crate::fault::DatabaseError;
use crate::row::Row;
use crate::settings::SqliteFile;

/// Steps of SQLite's virtual machine between two looks at the ticket: some tens of microseconds.
const STEPS_BETWEEN_LOOKS: i32 = 1_000;

/// How often a connection that waits for another process's lock tries again. Shorter than the pause that a busy
/// writer makes for it.
const LOCK_POLL: Duration = Duration::from_millis(1);

/// A chunk of a stream ends at so many rows or bytes, whichever is first.
const CHUNK_ROWS: usize = 128;
const CHUNK_BYTES: usize = 256 * 1024;

/// What a connection is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    /// Refuses every change, whatever the statement.
    Reader,
    Writer,
}

/// How connections are opened.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    pub(super) file: SqliteFile,
    pub(super) statement_cache: usize,
    /// How long a lock that another process holds is waited for while nobody gets on; see [`Patience`].
    pub(super) lock_timeout: Duration,
}

pub(super) struct Connection {
    sqlite: rusqlite::Connection,
    current: Current,
    /// Whether the open transaction may only read.
    read_only: Cell<bool>,
}

/// What became of a call.
pub(super) enum Ran {
    Answer(Answer),
    /// It would change something, and the connection only reads.
    Writes,
}

impl Connection {
    pub(super) fn open(opening: &Opening, role: Role, current: Current) -> Result<Self, DatabaseError> {
        let sqlite = configured(opening, role, &current).map_err(fault_of)?;
        Ok(Self { sqlite, current, read_only: Cell::new(false) })
    }

    pub(super) fn current(&self) -> &Current {
        &self.current
    }

    /// Whether no transaction is open.
    pub(super) fn is_autocommit(&self) -> bool {
        self.sqlite.is_autocommit()
    }

    /// Runs one statement to its end.
    pub(super) fn run(&self, ticket: &Arc<Ticket>, call: &Call, role: Role) -> Result<Ran> {
        self.current.with(ticket, || {
            let mut statement = check(self.sqlite.prepare_cached(&call.sql))?;
            let Some(reads) = allowed(&statement, call, role)? else { return Ok(Ran::Writes) };
            bind(&mut statement, &call.values)?;
            let changes_before = self.sqlite.total_changes();
            let mut rows = Vec::new();
            let mut columns = None;
            let mut cursor = statement.raw_query();
            while let Some(row) = check(cursor.next())? {
                if call.want != Want::Count && (call.want == Want::All || rows.is_empty()) {
                    rows.push(row_of(row, &mut columns)?.0);
                }
                // What changes something is stepped to its end: only the last step commits and tells of its failure.
                if reads && call.want == Want::First {
                    break;
                }
            }
            // `changes` keeps the number of the last statement that changed rows, which may be another one.
            let changed = !reads && self.sqlite.total_changes() != changes_before;
            Ok(Ran::Answer(Answer { rows, affected: if changed { self.sqlite.changes() } else { 0 } }))
        })
    }

    /// Runs one statement and hands its rows out in chunks, the first ones small so that they come soon. Stops early
    /// when `sink` breaks. `None` for a statement that this connection may not run.
    pub(super) fn chunks(
        &self,
        ticket: &Arc<Ticket>,
        call: &Call,
        role: Role,
        started: impl FnOnce(),
        mut sink: impl FnMut(Vec<Row>) -> ControlFlow<()>,
    ) -> Result<Option<()>> {
        self.current.with(ticket, || {
            let mut statement = check(self.sqlite.prepare_cached(&call.sql))?;
            if allowed(&statement, call, role)?.is_none() {
                return Ok(None);
            }
            bind(&mut statement, &call.values)?;
            started();
            let (mut chunk, mut bytes, mut limit) = (Vec::new(), 0, 1);
            let mut columns = None;
            let mut cursor = statement.raw_query();
            while let Some(row) = check(cursor.next())? {
                let (row, weight) = row_of(row, &mut columns)?;
                bytes += weight;
                chunk.push(row);
                if chunk.len() >= limit || bytes >= CHUNK_BYTES {
                    if sink(std::mem::take(&mut chunk)).is_break() {
                        return Ok(Some(()));
                    }
                    limit = (limit * 2).min(CHUNK_ROWS);
                    bytes = 0;
                }
            }
            if !chunk.is_empty() {
                let _ = sink(chunk); // nothing is left to stop
            }
            Ok(Some(()))
        })
    }

    /// Runs text as it stands, one statement or many.
    pub(super) fn script(&self, ticket: &Arc<Ticket>, sql: &str) -> Result<()> {
        self.current.with(ticket, || check(self.sqlite.execute_batch(sql)))
    }

    /// Begins a transaction. One that may write takes the writer's lock at once, so that it never fails half way for
    /// the want of it.
    pub(super) fn begin(&self, ticket: &Arc<Ticket>, begin: Begin) -> Result<()> {
        let sql = if begin.read_only { "BEGIN DEFERRED" } else { "BEGIN IMMEDIATE" };
        self.current.with(ticket, || {
            check(self.sqlite.execute_batch(sql))?;
            if begin.read_only {
                check(self.sqlite.execute_batch("PRAGMA query_only = ON"))?;
                self.read_only.set(true);
            }
            Ok(())
        })
    }

    /// Commits; a commit that fails rolls back, so that nothing is open afterwards either way.
    pub(super) fn commit(&self) -> Result<()> {
        if self.is_autocommit() {
            return Ok(());
        }
        let committed = check(self.sqlite.execute_batch("COMMIT"));
        if committed.is_err() {
            self.rollback()?;
        }
        self.allow_writes();
        committed
    }

    pub(super) fn rollback(&self) -> Result<()> {
        let rolled_back = if self.is_autocommit() { Ok(()) } else { check(self.sqlite.execute_batch("ROLLBACK")) };
        self.allow_writes();
        rolled_back
    }

    fn allow_writes(&self) {
        if self.read_only.replace(false)
            && let Err(error) = self.sqlite.execute_batch("PRAGMA query_only = OFF")
        {
            tracing::warn!(%error, "a SQLite connection stays read-only");
        }
    }
}

/// Whether the statement only reads; `None` when it doesn't and `role` says it must.
fn allowed(statement: &CachedStatement<'_>, call: &Call, role: Role) -> Result<Option<bool>> {
    let reads = statement.readonly();
    if call.read && !reads {
        return Err(Error::internal("`read` was given a statement that changes something: use `query`"));
    }
    Ok((reads || role == Role::Writer).then_some(reads))
}

/// The row, and roughly how much memory it takes.
fn row_of(row: &rusqlite::Row<'_>, columns: &mut Option<Arc<[Box<str>]>>) -> Result<(Row, usize)> {
    // Named after the first step: a statement that was prepared before a change of the schema has its new columns then.
    let statement: &rusqlite::Statement<'_> = row.as_ref();
    let columns = columns.get_or_insert_with(|| statement.column_names().map(Box::from).collect());
    let mut values = Vec::with_capacity(columns.len());
    for index in 0..columns.len() {
        values.push(value_of(check(row.get_ref(index))?)?);
    }
    let weight = weight(&values);
    Ok((Row::new(columns.clone(), values), weight))
}

fn configured(opening: &Opening, role: Role, current: &Current) -> rusqlite::Result<rusqlite::Connection> {
    // No mutex: a connection never leaves its thread. No URI: the path is a path.
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, role == Role::Writer);
    let mut sqlite = match &opening.file {
        SqliteFile::Memory => rusqlite::Connection::open_in_memory_with_flags(flags)?,
        SqliteFile::Path(path) => rusqlite::Connection::open_with_flags(path, flags)?,
    };
    let handler = current.clone();
    sqlite.progress_handler(STEPS_BETWEEN_LOOKS, Some(move || handler.must_stop()))?;
    let (handler, mut patience) = (current.clone(), Patience::new(&opening.file, opening.lock_timeout));
    sqlite.busy_handler(Some(move |tries: i32| {
        if tries == 0 {
            patience.begin();
        }
        if handler.must_stop() || patience.is_over() {
            return false;
        }
        pause(LOCK_POLL);
        true
    }))?;
    // "text" in double quotes is a name, as everywhere else; a misspelt one would be a string.
    sqlite.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    sqlite.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
    sqlite.set_prepared_statement_cache_capacity(opening.statement_cache);
    sqlite.execute_batch("PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY; PRAGMA synchronous = FULL")?;
    match role {
        Role::Reader => sqlite.execute_batch("PRAGMA query_only = ON")?,
        Role::Writer if opening.file != SqliteFile::Memory => write_ahead(&sqlite, opening.lock_timeout)?,
        Role::Writer => {}
    }
    Ok(sqlite)
}

/// Turns the write-ahead log on, which stays with the file. Two processes that do it at once to a new file refuse
/// each other without asking the busy handler.
fn write_ahead(sqlite: &rusqlite::Connection, limit: Duration) -> rusqlite::Result<()> {
    let since = Stopwatch::start();
    loop {
        match sqlite.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0)) {
            Ok(_) => break,
            Err(error) if since.elapsed() < limit && is_lock(&error) => pause(LOCK_POLL),
            Err(error) => return Err(error),
        }
    }
    // A log that one long reader made grow is cut back at the next chance.
    sqlite.execute_batch("PRAGMA journal_size_limit = 67108864")
}

fn is_lock(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked))
}
