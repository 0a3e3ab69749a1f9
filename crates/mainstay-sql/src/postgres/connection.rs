//! [`PgConnection`]: one connection, its prepared statements, and what is going on on it.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::{Stream, StreamExt};
use mainstay_core::Result;
use tokio::task::AbortHandle;
use tokio_postgres::{Client, RowStream};

use super::connect::Canceler;
use super::decode;
use super::encode::Parameter;
use super::fault;
use crate::driver::{Answer, Call, Want};
use crate::pool::Connection;
use crate::row::Row;

pub(super) struct PgConnection {
    client: Client,
    canceler: Canceler,
    socket: AbortHandle,
    statements: Statements,
    /// A statement was sent and its end hasn't been seen.
    running: bool,
    in_transaction: bool,
    reusable: bool,
}

/// The rows of a running statement.
pub(super) struct Decoded {
    rows: Pin<Box<RowStream>>,
    columns: Arc<[Box<str>]>,
}

/// A statement the server knows.
#[derive(Clone)]
struct Prepared {
    statement: tokio_postgres::Statement,
    columns: Arc<[Box<str>]>,
}

/// Prepared statements by their text, the least recently used thrown out.
struct Statements {
    entries: HashMap<Box<str>, (Prepared, u64)>,
    capacity: usize,
    clock: u64,
}

impl PgConnection {
    pub(super) fn new(client: Client, canceler: Canceler, socket: AbortHandle, statement_cache: usize) -> Self {
        let statements = Statements { entries: HashMap::new(), capacity: statement_cache, clock: 0 };
        Self { client, canceler, socket, statements, running: false, in_transaction: false, reusable: true }
    }

    /// Sets what the conversions of this crate count on.
    pub(super) async fn configure(&self) -> Result<()> {
        let settings = "SET TIME ZONE 'UTC'; SET standard_conforming_strings = on";
        self.client.batch_execute(settings).await.map_err(fault::error)
    }

    /// Runs a statement to its end.
    pub(super) async fn run(&mut self, call: &Call) -> Result<Answer> {
        let rows = self.rows(call).await?;
        let result = rows.answer(call.want).await;
        self.note(&result);
        result
    }

    /// Starts a statement. Whoever reads its rows to their end says [`PgConnection::settled`].
    pub(super) async fn rows(&mut self, call: &Call) -> Result<Decoded> {
        self.running = true;
        let result = self.start(call).await;
        if result.is_err() {
            self.note(&result);
        }
        result
    }

    /// Runs text as it stands, to its end.
    pub(super) async fn script(&mut self, sql: &str) -> Result<()> {
        self.running = true;
        let result = self.client.batch_execute(sql).await.map_err(fault::error);
        self.note(&result);
        result
    }

    /// The server has answered all that it was asked.
    pub(super) fn settled(&mut self) {
        self.running = false;
    }

    /// Says that a transaction is, or may be, open from here on.
    pub(super) fn in_transaction(&mut self, open: bool) {
        self.in_transaction = open;
    }

    /// Has the connection closed after its user.
    pub(super) fn not_reusable(&mut self) {
        self.reusable = false;
    }

    /// Waits until the statement that was left running has ended. Answers come in order, so the answer to nothing at
    /// all is the sign. A cancel may hit that, too, and an error is as good a sign.
    pub(super) async fn ended(&self) {
        let _ = self.client.batch_execute("").await;
    }

    /// Waits until the server has answered everything, and rolls back what is open.
    pub(super) async fn reset(&mut self) -> Result<()> {
        let sql = if self.in_transaction { "ROLLBACK" } else { "" };
        self.client.batch_execute(sql).await.map_err(fault::error)?;
        self.running = false;
        self.in_transaction = false;
        Ok(())
    }

    pub(super) fn canceler(&self) -> Canceler {
        self.canceler.clone()
    }

    pub(super) fn is_running(&self) -> bool {
        self.running
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.running || self.in_transaction
    }

    async fn start(&mut self, call: &Call) -> Result<Decoded> {
        let prepared = self.prepare(&call.sql).await?;
        let parameters = call.values.iter().enumerate().map(|(index, value)| Parameter { value, number: index + 1 });
        let rows = self.client.query_raw(&prepared.statement, parameters).await.map_err(fault::error)?;
        Ok(Decoded { rows: Box::pin(rows), columns: prepared.columns })
    }

    async fn prepare(&mut self, sql: &str) -> Result<Prepared> {
        if let Some(prepared) = self.statements.get(sql) {
            return Ok(prepared);
        }
        let statement = self.client.prepare(sql).await.map_err(fault::error)?;
        let columns = statement.columns().iter().map(|column| Box::from(column.name())).collect();
        let prepared = Prepared { statement, columns };
        self.statements.insert(sql, prepared.clone());
        Ok(prepared)
    }

    /// Draws from the end of a statement what it says about the connection.
    fn note<T>(&mut self, result: &Result<T>) {
        match result {
            Ok(_) => self.running = false,
            Err(error) => {
                self.running &= !fault::statement_is_over(error);
                if fault::of(error).is_some_and(fault::is_stale_plan) {
                    self.statements.entries.clear(); // what made one plan stale made others stale, too
                }
            }
        }
    }
}

impl Connection for PgConnection {
    fn is_reusable(&self) -> bool {
        self.reusable && !self.is_dirty() && !self.client.is_closed()
    }
}

impl Drop for PgConnection {
    fn drop(&mut self) {
        // A clean connection says goodbye by itself. This one would first wait for its statement to end.
        if self.is_dirty() {
            self.socket.abort();
        }
    }
}

impl Decoded {
    async fn answer(mut self, want: Want) -> Result<Answer> {
        let mut answer = Answer::default();
        while let Some(row) = self.rows.next().await {
            let row = row.map_err(fault::error)?;
            let wanted = match want {
                Want::Count => false,
                Want::First => answer.rows.is_empty(),
                Want::All => true,
            };
            if wanted {
                answer.rows.push(decode::row(&row, &self.columns)?);
            }
        }
        answer.affected = self.rows.rows_affected().unwrap_or(0);
        Ok(answer)
    }
}

impl Stream for Decoded {
    type Item = Result<Row>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let row = ready!(self.rows.as_mut().poll_next(cx));
        Poll::Ready(row.map(|row| decode::row(&row.map_err(fault::error)?, &self.columns)))
    }
}

impl Statements {
    fn get(&mut self, sql: &str) -> Option<Prepared> {
        self.clock += 1;
        let (prepared, used) = self.entries.get_mut(sql)?;
        *used = self.clock;
        Some(prepared.clone())
    }

    fn insert(&mut self, sql: &str, prepared: Prepared) {
        if self.capacity == 0 {
            return;
        }
        if self.entries.len() >= self.capacity {
            // A walk over all of them, only when a new text meets a full cache.
            let oldest = self.entries.iter().min_by_key(|(_, (_, used))| *used).map(|(sql, _)| sql.clone());
            oldest.map(|sql| self.entries.remove(&sql));
        }
        self.entries.insert(sql.into(), (prepared, self.clock));
    }
}
