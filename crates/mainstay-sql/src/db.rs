//! [`Db`]: the handle a service talks to its database with.

use std::fmt;
use std::sync::{Arc, OnceLock};

use mainstay_core::{Context, Error, Result};
use mainstay_telemetry::Metrics;
use tokio::sync::OnceCell;

use crate::driver::{Answer, Call, Dialect, Driver, PoolStats, Rows};
use crate::metrics::SqlMetrics;
use crate::query::{Observation, Query};
use crate::settings::{DatabaseSettings, DatabaseUrl};
use crate::statement::Statement;
use crate::tx::{self, CommitHook, Handle, Tx, TxOptions};

/// A database, or an open transaction of one: whatever takes a `&Db` works with both, because [`Tx`] derefs to it.
///
/// A clone is one reference count. The same text runs on SQLite, PostgreSQL and MySQL/MariaDB, with `$1`, `$2` … as
/// placeholders. Every call takes a [`Context`] and stops, here and in the database, when that is done.
///
/// ```
/// use mainstay_core::Context;
/// use mainstay_sql::Db;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> mainstay_core::Result<()> {
/// # if cfg!(not(feature = "sqlite")) { return Ok(()) }
/// let (ctx, db) = (Context::background(), Db::memory());
/// db.query("CREATE TABLE stock (sku TEXT PRIMARY KEY, amount BIGINT NOT NULL)").execute(&ctx).await?;
/// db.query("INSERT INTO stock (sku, amount) VALUES ($1, $2)").bind("tea").bind(5).execute(&ctx).await?;
///
/// let amount: i64 = db.read("SELECT amount FROM stock WHERE sku = $1").bind("tea").one(&ctx).await?;
/// assert_eq!(amount, 5);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Db(Target);

#[derive(Clone)]
enum Target {
    Pool(Arc<Database>),
    Transaction(Arc<Handle>),
}

/// What all handles of one database share.
pub(crate) struct Database {
    settings: DatabaseSettings,
    url: DatabaseUrl,
    metrics: SqlMetrics,
    driver: OnceCell<Arc<dyn Driver>>,
    commit_hook: OnceLock<Arc<dyn CommitHook>>,
    /// Whether the first use connects, as tests in memory want it. A service connects at a moment of its own, so that
    /// a wrong address is found at the start and not by a request.
    lazy: bool,
}

impl Db {
    /// A handle to the database at `settings.url`, which is checked but not connected to; see [`Db::connect`].
    ///
    /// # Errors
    /// [`Code::InvalidArgument`](mainstay_core::Code::InvalidArgument): a URL that isn't understood, or that names a
    /// database whose cargo feature is off.
    pub fn new(settings: &DatabaseSettings, metrics: &Metrics) -> Result<Self> {
        let url = DatabaseUrl::parse(settings.url.expose())?;
        feature_is_on(url.dialect())?;
        Ok(Self::over(settings.clone(), url, metrics, false))
    }

    /// A new, empty SQLite database in memory, private to this handle and its clones; for tests. It needs no
    /// [`Db::connect`].
    #[cfg(feature = "sqlite")]
    pub fn memory() -> Self {
        let url = DatabaseUrl::Sqlite(crate::settings::SqliteFile::Memory);
        Self::over(DatabaseSettings::from_url("sqlite::memory:"), url, &Metrics::new(), true)
    }

    /// Makes the first connection. A second call does nothing.
    ///
    /// Cancel safe: a call that is dropped leaves the handle unconnected.
    ///
    /// # Errors
    /// [`Code::Unavailable`](mainstay_core::Code::Unavailable) when nothing answers there, which is worth another try;
    /// [`Code::FailedPrecondition`](mainstay_core::Code::FailedPrecondition) for what another try won't change: a wrong
    /// password, no such database, a folder that can't be written.
    pub async fn connect(&self, ctx: &Context) -> Result<()> {
        self.database().connect(ctx).await.map(drop)
    }

    /// Waits for the statements and transactions in hand until `ctx` is done, cuts what is left, and closes all
    /// connections. Later calls fail with [`Code::Unavailable`](mainstay_core::Code::Unavailable).
    pub async fn close(&self, ctx: &Context) {
        if let Some(driver) = self.database().driver.get() {
            driver.close(ctx).await;
        }
    }

    /// Whether [`Db::connect`] succeeded once. It says nothing about now; [`Db::ping`] does.
    pub fn is_connected(&self) -> bool {
        self.database().driver.initialized()
    }

    /// Which database this is; known before it is connected.
    pub fn dialect(&self) -> Dialect {
        self.database().url.dialect()
    }

    /// Asks the database for an answer, for a health check.
    ///
    /// # Errors
    /// Those of any statement.
    pub async fn ping(&self, ctx: &Context) -> Result<()> {
        self.read("SELECT 1").execute(ctx).await.map(drop)
    }

    /// Gives the database what is done at the end of its transactions with what [`Tx::defer`] kept.
    ///
    /// # Errors
    /// [`Code::Internal`](mainstay_core::Code::Internal): it has one already.
    pub fn set_commit_hook(&self, hook: Arc<dyn CommitHook>) -> Result<()> {
        let set = self.database().commit_hook.set(hook);
        set.map_err(|_| Error::internal("the database has a commit hook already: it can have one"))
    }

    /// What [`Db::set_commit_hook`] set.
    pub fn commit_hook(&self) -> Option<Arc<dyn CommitHook>> {
        self.database().commit_hook()
    }

    /// A statement to bind values to and to run.
    pub fn query(&self, statement: impl Into<Statement>) -> Query {
        Query::new(self.clone(), statement.into(), false)
    }

    /// As [`Db::query`], and declares that the statement is a single one without side effects: it may run again after a
    /// connection broke, share a connection with others, or be sent to a replica.
    pub fn read(&self, statement: impl Into<Statement>) -> Query {
        Query::new(self.clone(), statement.into(), true)
    }

    /// Runs `work` in a transaction: committed when it returns `Ok`, rolled back when it returns `Err`, panics, or its
    /// future is dropped.
    ///
    /// When the database says that the transaction lost against a concurrent one (serialization failure, deadlock),
    /// `work` runs again from the start in a new transaction, after a random pause, until `ctx` is done, or for 100
    /// attempts if it has no deadline. So `work` has no side effects but those on the database, and borrows what it
    /// needs instead of consuming it. A commit that was sent is finished even when this future is dropped meanwhile;
    /// one whose outcome is unknown ([`CommitUnknown`](crate::CommitUnknown)) is never repeated.
    ///
    /// On a [`Tx`] this is a nested transaction, a savepoint: an `Err` undoes what was done inside, and the outer one
    /// goes on. The outer handle can't be used meanwhile.
    ///
    /// ```
    /// # use mainstay_core::{Context, Error, Result};
    /// # use mainstay_sql::Db;
    /// async fn take(db: &Db, ctx: &Context, sku: &str, amount: i64) -> Result<i64> {
    ///     db.transaction(ctx, |tx| async move {
    ///         let left: i64 = tx.query("SELECT amount FROM stock WHERE sku = $1").bind(sku).one(ctx).await?;
    ///         if left < amount {
    ///             return Err(Error::failed_precondition("not enough in stock")); // rolls back
    ///         }
    ///         let update = "UPDATE stock SET amount = amount - $2 WHERE sku = $1";
    ///         tx.query(update).bind(sku).bind(amount).execute(ctx).await?;
    ///         Ok(left - amount)
    ///     })
    ///     .await
    /// }
    /// ```
    ///
    /// # Errors
    /// What `work` returned; what beginning and committing say.
    pub async fn transaction<T, F, Fut>(&self, ctx: &Context, work: F) -> Result<T>
    where
        F: FnMut(Tx) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        self.transaction_with(ctx, TxOptions::new(), work).await
    }

    /// As [`Db::transaction`], with an isolation level, read-only or in the background.
    ///
    /// # Errors
    /// As [`Db::transaction`]; isolation or read-only on a nested transaction, which can't differ from the outer one.
    pub async fn transaction_with<T, F, Fut>(&self, ctx: &Context, options: TxOptions, work: F) -> Result<T>
    where
        F: FnMut(Tx) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        match &self.0 {
            Target::Pool(database) => tx::outermost(database, ctx, options, work).await,
            Target::Transaction(outer) => tx::nested(outer, ctx, options, work).await,
        }
    }

    /// A handle to a database that a test plays.
    #[cfg(test)]
    pub(crate) fn with_driver(driver: Arc<dyn Driver>) -> Self {
        let url = DatabaseUrl::Sqlite(crate::settings::SqliteFile::Memory);
        let db = Self::over(DatabaseSettings::default(), url, &Metrics::new(), false);
        assert!(db.database().driver.set(driver).is_ok());
        db
    }

    /// The transaction that a [`Tx`] is of.
    pub(crate) fn handle(&self) -> &Handle {
        match &self.0 {
            Target::Transaction(handle) => handle,
            Target::Pool(_) => unreachable!("a `Tx` is made of `Db::in_transaction` only"),
        }
    }

    pub(crate) fn in_transaction(handle: Handle) -> Self {
        Self(Target::Transaction(Arc::new(handle)))
    }

    /// The driver, for what needs a connection of its own: migrations.
    pub(crate) async fn driver(&self, ctx: &Context) -> Result<Arc<dyn Driver>> {
        self.database().driver(ctx).await
    }

    pub(crate) async fn run(&self, ctx: &Context, call: Call) -> Result<Answer> {
        let mut observation = Observation::new(ctx, self.database(), &call);
        let result = match &self.0 {
            Target::Pool(database) => match tx::refuse_pool_inside(database) {
                Ok(()) => match database.driver(ctx).await {
                    Ok(driver) => driver.run(ctx, call).await,
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            },
            Target::Transaction(handle) => handle.run(ctx, call).await,
        };
        observation.finish(result)
    }

    pub(crate) async fn stream(self, ctx: Context, call: Call) -> Result<Rows> {
        match self.0 {
            Target::Pool(database) => {
                tx::refuse_pool_inside(&database)?;
                database.driver(&ctx).await?.stream(&ctx, call).await
            }
            Target::Transaction(handle) => Ok(handle.stream(ctx, call)),
        }
    }

    pub(crate) fn database(&self) -> &Arc<Database> {
        match &self.0 {
            Target::Pool(database) => database,
            Target::Transaction(handle) => handle.database(),
        }
    }

    fn over(settings: DatabaseSettings, url: DatabaseUrl, metrics: &Metrics, lazy: bool) -> Self {
        let metrics = SqlMetrics::new(metrics);
        Self(Target::Pool(Arc::new(Database {
            settings,
            url,
            metrics,
            driver: OnceCell::new(),
            commit_hook: OnceLock::new(),
            lazy,
        })))
    }
}

/// Which database, where, and how busy its pool is.
impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = self.database();
        let PoolStats { max, open, in_use, waiting } = database.driver.get().map(|d| d.stats()).unwrap_or_default();
        f.debug_struct("Db")
            .field("url", &database.url)
            .field("transaction", &matches!(self.0, Target::Transaction(_)))
            .field("connections", &format_args!("{in_use} of {open} in use, at most {max}, {waiting} waiting"))
            .finish()
    }
}

impl Database {
    pub(crate) async fn driver(&self, ctx: &Context) -> Result<Arc<dyn Driver>> {
        match self.driver.get() {
            Some(driver) => Ok(driver.clone()),
            None if self.lazy => self.connect(ctx).await,
            None => Err(Error::unavailable("the database isn't connected yet")
                .context("`Db::connect` has to succeed before the first statement; an app does it at its start")),
        }
    }

    pub(crate) fn commit_hook(&self) -> Option<Arc<dyn CommitHook>> {
        self.commit_hook.get().cloned()
    }

    pub(crate) fn metrics(&self) -> &SqlMetrics {
        &self.metrics
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.url.dialect()
    }

    pub(crate) fn settings(&self) -> &DatabaseSettings {
        &self.settings
    }

    async fn connect(&self, ctx: &Context) -> Result<Arc<dyn Driver>> {
        ctx.run(self.driver.get_or_try_init(|| self.open(ctx))).await?.cloned()
    }

    #[cfg_attr(
        not(any(feature = "mysql", feature = "postgres", feature = "sqlite")),
        expect(unused_variables, reason = "without a database there is nothing to open")
    )]
    async fn open(&self, ctx: &Context) -> Result<Arc<dyn Driver>> {
        match &self.url {
            #[cfg(feature = "mysql")]
            DatabaseUrl::Mysql(server) => {
                Ok(Arc::new(crate::mysql::Mysql::connect(ctx, server, &self.settings, &self.metrics).await?))
            }
            #[cfg(feature = "postgres")]
            DatabaseUrl::Postgres(server) => {
                Ok(Arc::new(crate::postgres::Postgres::connect(ctx, server, &self.settings, &self.metrics).await?))
            }
            #[cfg(feature = "sqlite")]
            DatabaseUrl::Sqlite(file) => {
                Ok(Arc::new(crate::sqlite::Sqlite::connect(ctx, file, &self.settings, &self.metrics).await?))
            }
            #[allow(unreachable_patterns, reason = "reached where a database's feature is off")]
            url => feature_is_on(url.dialect()).and_then(|()| Err(Error::internal("a feature without a driver"))),
        }
    }
}

fn feature_is_on(dialect: Dialect) -> Result<()> {
    let on = match dialect {
        Dialect::Mysql => cfg!(feature = "mysql"),
        Dialect::Postgres => cfg!(feature = "postgres"),
        Dialect::Sqlite => cfg!(feature = "sqlite"),
    };
    if on {
        return Ok(());
    }
    Err(Error::invalid_argument(format!(
        "database url: this program was built without {dialect}: turn on the cargo feature `{dialect}`"
    )))
}
