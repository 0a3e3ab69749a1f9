//! [`Query`]: a statement, its values, and the ways to run it.

use std::sync::Arc;

use futures_util::{Stream, StreamExt, TryStreamExt};
use mainstay_core::{Code, Context, Error, Result};
use mainstay_telemetry::trace::{self, Span, SpanKind};
use tokio::time::Instant;

use crate::db::{Database, Db};
use crate::driver::{Answer, Call, Dialect, Want};
use crate::lexer;
use crate::metrics::Operation;
use crate::row::{FromRow, Row};
use crate::statement::Statement;
use crate::value::Value;

/// A statement with its values, made by [`Db::query`] and [`Db::read`].
///
/// Nothing is sent before one of the last steps: [`one`](Query::one), [`optional`](Query::optional),
/// [`all`](Query::all), [`stream`](Query::stream), [`execute`](Query::execute), [`batch`](Query::batch). All of them
/// are cancel safe: a future that is dropped stops the statement in the database, and a statement outside a
/// transaction may or may not have taken effect then.
///
/// Beside what is said at each, they fail with [`Code::Internal`] for wrong SQL, a wrong number of values or a cell of
/// another type; with [`Code::AlreadyExists`] and [`Code::FailedPrecondition`] for violated constraints; with
/// [`Code::Unavailable`] when the database can't be reached or no connection came free; and with the cause of `ctx`.
/// [`DatabaseError`](crate::DatabaseError) is in the chain of what the database itself refused.
#[derive(Clone, Debug)]
#[must_use = "a query does nothing until `one`, `optional`, `all`, `stream`, `execute` or `batch` runs it"]
pub struct Query {
    db: Db,
    statement: Statement,
    values: Vec<Value>,
    read: bool,
}

impl Query {
    pub(crate) fn new(db: Db, statement: Statement, read: bool) -> Self {
        Self { db, statement, values: Vec::new(), read }
    }

    /// Binds the next placeholder's value.
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Binds the next placeholders' values, in order.
    pub fn bind_all<V: Into<Value>>(mut self, values: impl IntoIterator<Item = V>) -> Self {
        self.values.extend(values.into_iter().map(Into::into));
        self
    }

    /// The first row. Rows after it are ignored; say `LIMIT 1` where there may be many.
    ///
    /// # Errors
    /// [`Code::NotFound`] when there is none.
    pub async fn one<T: FromRow>(self, ctx: &Context) -> Result<T> {
        self.optional(ctx).await?.ok_or_else(|| Error::new(Code::NotFound, "not found"))
    }

    /// The first row, or `None`.
    ///
    /// # Errors
    /// See [`Query`].
    pub async fn optional<T: FromRow>(self, ctx: &Context) -> Result<Option<T>> {
        let answer = self.run(ctx, Want::First).await?;
        answer.rows.into_iter().next().map(|mut row| T::from_row(&mut row)).transpose()
    }

    /// All rows, in memory at once.
    ///
    /// # Errors
    /// See [`Query`].
    pub async fn all<T: FromRow>(self, ctx: &Context) -> Result<Vec<T>> {
        let answer = self.run(ctx, Want::All).await?;
        answer.rows.into_iter().map(|mut row| T::from_row(&mut row)).collect()
    }

    /// The rows one after another, in bounded memory. The statement starts when the stream is first polled, and `ctx`
    /// bounds it to its end. It occupies a connection until it ended or was dropped; inside a transaction no other
    /// statement may run meanwhile.
    ///
    /// ```
    /// # use futures_util::TryStreamExt;
    /// # use mainstay_core::{Context, Result};
    /// # use mainstay_sql::Db;
    /// async fn total(db: &Db, ctx: &Context) -> Result<i64> {
    ///     let amounts = db.read("SELECT amount FROM stock").stream::<i64>(ctx);
    ///     amounts.try_fold(0, |sum, amount| async move { Ok(sum + amount) }).await
    /// }
    /// ```
    pub fn stream<T: FromRow + 'static>(self, ctx: &Context) -> impl Stream<Item = Result<T>> + Send + Unpin + use<T> {
        let ctx = ctx.clone();
        let rows = async move {
            let (db, call) = self.prepare(Want::All)?;
            let mut observation = Observation::new(&ctx, db.database(), &call);
            let rows = observation.check(db.stream(ctx, call).await)?;
            Ok::<_, Error>(Observed { rows, observation })
        };
        let rows = futures_util::stream::once(rows).try_flatten();
        rows.map(|row: Result<Row>| T::from_row(&mut row?)).boxed()
    }

    /// Runs the statement for its effect and says how many rows an INSERT, UPDATE or DELETE matched.
    ///
    /// # Errors
    /// See [`Query`].
    pub async fn execute(self, ctx: &Context) -> Result<u64> {
        Ok(self.run(ctx, Want::Count).await?.affected)
    }

    /// Runs the statement once for each of `rows`, all of them or none in one transaction, and says how many rows were
    /// matched in all. [`values!`](crate::values) makes a row; values bound before come first in each.
    ///
    /// # Errors
    /// See [`Query`]. The first row that fails undoes those before it.
    pub async fn batch(self, ctx: &Context, rows: impl IntoIterator<Item = Vec<Value>>) -> Result<u64> {
        let rows: Vec<Vec<Value>> = rows.into_iter().collect();
        if rows.is_empty() {
            return Ok(0);
        }
        let (query, rows) = (&self, &rows);
        let work = |tx: crate::Tx| async move {
            let mut affected = 0;
            for (index, row) in rows.iter().enumerate() {
                let query = Query { db: (*tx).clone(), ..query.clone() }.bind_all(row.iter().cloned());
                let done = query.execute(ctx).await;
                affected += done.map_err(|error| error.context(format!("row {index} of a batch")))?;
            }
            Ok(affected)
        };
        self.db.transaction(ctx, work).await
    }

    /// How the database would carry the statement out, in its own words: a line for each row of its `EXPLAIN`. For tests
    /// that hold a statement to its index, and for eyes. The statement itself is not carried out.
    ///
    /// # Errors
    /// See [`Query`].
    pub async fn explain(self, ctx: &Context) -> Result<String> {
        let (db, mut call) = self.prepare(Want::All)?;
        let explain = match db.dialect() {
            Dialect::Mysql | Dialect::Postgres => "EXPLAIN",
            Dialect::Sqlite => "EXPLAIN QUERY PLAN",
        };
        call.sql = format!("{explain} {}", call.sql).into();
        let answer = db.run(ctx, call).await?;
        Ok(answer.rows.iter().map(Row::to_line).collect::<Vec<_>>().join("\n"))
    }

    async fn run(self, ctx: &Context, want: Want) -> Result<Answer> {
        let (db, call) = self.prepare(want)?;
        db.run(ctx, call).await
    }

    /// Checks all that can be checked before anything is sent.
    fn prepare(self, want: Want) -> Result<(Db, Call)> {
        let dialect = self.db.dialect();
        let (sql, mut values) = self.statement.resolve(dialect)?;
        values.extend(self.values);
        let wanted = lexer::placeholder_count(dialect, &sql);
        if wanted != values.len() {
            let bound = values.len();
            return Err(Error::internal(format!(
                "the statement has {wanted} placeholders and {bound} values were bound"
            ))
            .context(excerpt(&sql)));
        }
        if let Some(keyword) = lexer::transaction_control(dialect, &sql) {
            return Err(Error::internal(format!(
                "{keyword} isn't a statement for `query`, which may run on any connection: use `Db::transaction`"
            )));
        }
        Ok((self.db, Call { sql, values, read: self.read, want }))
    }
}

/// How much of a statement a span shows, in characters: enough to know it, whatever an IN list grows to.
const LONGEST_TEXT: usize = 2_000;

/// A statement on the clock: counts, logs and, when it was dropped half way, says so.
pub(crate) struct Observation {
    database: Arc<Database>,
    ctx: Context,
    span: Option<Span>,
    sql: std::borrow::Cow<'static, str>,
    operation: Operation,
    start: Instant,
    over: bool,
}

impl Observation {
    pub(crate) fn new(ctx: &Context, database: &Arc<Database>, call: &Call) -> Self {
        let operation = Operation::of(&call.sql);
        let mut span = trace::span(ctx, SpanKind::Client, || operation.name().to_uppercase().into());
        if let Some(span) = &mut span {
            span.set("db.system.name", database.dialect().system());
            span.set("db.operation.name", operation.name());
            // Values are bound and never part of it.
            span.set("db.query.text", call.sql.chars().take(LONGEST_TEXT).collect::<String>());
        }
        Self {
            database: database.clone(),
            ctx: ctx.clone(),
            span,
            sql: call.sql.clone(),
            operation,
            start: Instant::now(),
            over: false,
        }
    }

    /// Ends the observation with the statement.
    pub(crate) fn finish<T>(&mut self, result: Result<T>) -> Result<T> {
        let result = self.check(result);
        if result.is_ok() {
            self.record(None);
        }
        result
    }

    /// Ends the observation if this is an error, which then says which statement it was.
    pub(crate) fn check<T>(&mut self, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            self.record(Some(error.code()));
            error.context(excerpt(&self.sql))
        })
    }

    fn record(&mut self, outcome: Option<Code>) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let took = self.start.elapsed();
        self.database.metrics().operation(&self.ctx, self.operation, outcome, took);
        if let Some(mut span) = self.span.take()
            && let Some(code) = outcome
        {
            span.fail(code.name());
        }
        let failure = outcome.map(tracing::field::display);
        if took >= self.database.settings().slow_statement {
            tracing::warn!(target: "mainstay::sql", sql = %self.sql, ?took, failure, "slow statement");
        } else {
            tracing::debug!(target: "mainstay::sql", sql = %self.sql, ?took, failure, "statement");
        }
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        self.record(Some(Code::Cancelled));
    }
}

/// A stream of rows that ends its observation with itself.
struct Observed {
    rows: crate::driver::Rows,
    observation: Observation,
}

impl Stream for Observed {
    type Item = Result<Row>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let next = std::task::ready!(self.rows.poll_next_unpin(cx));
        let next = match next {
            Some(row) => Some(self.observation.check(row)),
            None => {
                self.observation.record(None);
                None
            }
        };
        std::task::Poll::Ready(next)
    }
}

/// The beginning of the text, for the log.
fn excerpt(sql: &str) -> String {
    let mut words = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = words.char_indices().nth(200) {
        words.truncate(end);
        words.push('…');
    }
    format!("statement `{words}`")
}
