//! [`Driver`]: the contract every database stands behind. `Db` and `Tx` are written once over it.

use std::borrow::Cow;
use std::fmt;

use futures_util::stream::BoxStream;
use mainstay_core::{BoxFuture, Context, Result};

use crate::row::Row;
use crate::value::Value;

/// Which database speaks.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Dialect {
    /// MySQL or MariaDB.
    Mysql,
    /// PostgreSQL.
    Postgres,
    /// SQLite.
    Sqlite,
}

/// One statement with its values, owned, because it may cross to another thread.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Portable text with `$1…`; a driver whose database spells placeholders otherwise rewrites it.
    pub(crate) sql: Cow<'static, str>,
    pub(crate) values: Vec<Value>,
    /// Declared by `db.read(…)`: a single statement without side effects. Only such a call may run twice, or on a replica.
    pub(crate) read: bool,
    pub(crate) want: Want,
}

/// How much of the answer the caller uses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Want {
    /// No row, the count only.
    Count,
    /// At most the first row; the driver may stop there.
    First,
    /// Every row.
    All,
}

/// What a statement did.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) rows: Vec<Row>,
    /// Rows matched by an INSERT, UPDATE or DELETE (MySQL counts matched rows too, not changed ones).
    pub(crate) affected: u64,
}

/// How a transaction begins.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Begin {
    /// `None` is the database's own default. SQLite is always serializable.
    pub(crate) isolation: Option<Isolation>,
    pub(crate) read_only: bool,
    /// Whether it takes turns with those that aren't, where transactions wait for one another.
    pub(crate) background: bool,
}

/// What a transaction may see of others, by the names of the SQL standard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Isolation {
    /// Each statement sees what was committed before it began.
    ReadCommitted,
    /// Each statement sees what was committed before the transaction's first one.
    RepeatableRead,
    /// As if transactions ran one after another; a conflict is `Aborted` and the closure runs again.
    Serializable,
}

/// The rows of a stream, in order. Dropping it ends the statement and frees the connection.
pub(crate) type Rows = BoxStream<'static, Result<Row>>;

/// How busy a pool is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PoolStats {
    pub(crate) max: u32,
    pub(crate) open: u32,
    pub(crate) in_use: u32,
    pub(crate) waiting: u32,
}

/// A database, connected.
///
/// Every method returns soon after `ctx` is done, with the cause as its error, and every future may be dropped at
/// any await. In both cases the connection it used comes back clean (no statement running, no transaction open) or
/// is closed; it never comes back in doubt.
pub(crate) trait Driver: Send + Sync + 'static {
    fn dialect(&self) -> Dialect;

    /// Runs one statement that commits by itself.
    fn run<'a>(&'a self, ctx: &'a Context, call: Call) -> BoxFuture<'a, Result<Answer>>;

    /// Runs one statement and hands out its rows as they are asked for, in bounded memory. `ctx` bounds the stream
    /// to its end, not only to its first row.
    fn stream<'a>(&'a self, ctx: &'a Context, call: Call) -> BoxFuture<'a, Result<Rows>>;

    /// Begins a transaction on a connection of its own.
    fn begin<'a>(&'a self, ctx: &'a Context, begin: Begin) -> BoxFuture<'a, Result<Box<dyn Session>>>;

    /// A connection of its own, outside a transaction, for migrations. Session-level locks live and die with it.
    fn session<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<Box<dyn Session>>>;

    fn stats(&self) -> PoolStats;

    /// Waits for connections in use until `ctx` is done, then closes all of them. Later calls fail with `Unavailable`.
    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, ()>;
}

/// A connection held by one owner. Dropping it rolls back what is open and gives the connection back.
pub(crate) trait Session: Send {
    fn run<'a>(&'a mut self, ctx: &'a Context, call: Call) -> BoxFuture<'a, Result<Answer>>;

    /// As [`Driver::stream`]; the session is borrowed until the stream ends, so rows arrive through `each`. `Ok(false)`
    /// or an error from `each` ends the statement.
    fn each<'a>(
        &'a mut self,
        ctx: &'a Context,
        call: Call,
        each: &'a mut (dyn FnMut(Row) -> BoxFuture<'static, Result<bool>> + Send),
    ) -> BoxFuture<'a, Result<()>>;

    /// Runs text as it stands, one statement or many, without values: savepoints, migrations, session settings.
    fn script<'a>(&'a mut self, ctx: &'a Context, sql: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Commits. Once polled it should be polled to its end: the caller spawns it, and drops it only when nobody would
    /// believe in an answer any more; then the outcome is unknown and the connection is closed or cleaned. An error that
    /// leaves the outcome open has [`CommitUnknown`](crate::CommitUnknown) in its chain.
    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<()>>;

    /// Rolls back and waits for it; dropping does the same in the background.
    fn rollback(self: Box<Self>) -> BoxFuture<'static, Result<()>>;
}

impl Dialect {
    /// The lower-case name used for folders and in messages: `mysql`, `postgres`, `sqlite`.
    pub const fn name(self) -> &'static str {
        match self {
            Dialect::Mysql => "mysql",
            Dialect::Postgres => "postgres",
            Dialect::Sqlite => "sqlite",
        }
    }

    /// The name by the OpenTelemetry conventions.
    pub(crate) const fn system(self) -> &'static str {
        match self {
            Dialect::Mysql => "mysql",
            Dialect::Postgres => "postgresql",
            Dialect::Sqlite => "sqlite",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
