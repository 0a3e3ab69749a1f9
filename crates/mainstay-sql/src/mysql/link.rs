//! [`Link`]: one connection to a MySQL or MariaDB server, and the statements it runs.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::StreamExt;
use mainstay_core::{Error, Result};
use mysql_async::consts::StatusFlags;
use mysql_async::prelude::{Protocol, Queryable};
use mysql_async::{Column, Conn, Error as MysqlError, Opts, OptsBuilder, Params, QueryResult, SslOpts};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;

use super::cell::{params, value_of};
use super::fault::{UNSUPPORTED_PREPARED, check, error_of, explain, leaves_usable, tls_failed};
use crate::driver::{Answer, Call, Want};
use crate::lexer::rewrite_placeholders;
use crate::pool::Connection;
use crate::row::Row;
use crate::settings::{DatabaseSettings, Host, Server, TlsMode, TlsTrust};
use crate::tls;
use crate::value::Value;

/// How many texts are kept rewritten.
const KNOWN_TEXTS: usize = 4_096;

/// A connection that lay idle for longer is asked whether it still stands before it is used.
pub(super) const FRESH: Duration = Duration::from_secs(5);

/// What every session is set to, whatever the server's defaults: UTC, and errors instead of silent changes of values.
const SESSION: &str = "SET time_zone = '+00:00', sql_mode = \
    'STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'";

pub(crate) struct Link {
    connection: Conn,
    texts: Arc<Texts>,
    /// In the middle of a statement. A future that is dropped then leaves the protocol nobody knows where.
    busy: bool,
    broken: bool,
    last_used: Instant,
}

/// How connections are made.
#[derive(Clone)]
pub(super) struct Connector {
    options: Opts,
    /// The way without TLS, where the url allows it; and whether the server has turned out to have none.
    plain: Option<Arc<(Opts, AtomicBool)>>,
    place: Arc<str>,
    limit: Duration,
    texts: Arc<Texts>,
}

/// Texts with `?` for `$n`, by the text with `$n`.
#[derive(Default)]
struct Texts(RwLock<HashMap<Cow<'static, str>, Arc<Text>>>);

struct Text {
    sql: String,
    order: Vec<usize>,
}

impl Connector {
    /// # Errors
    /// `FailedPrecondition` if the root certificates can't be read.
    pub(super) fn new(server: &Server, settings: &DatabaseSettings) -> Result<Self> {
        let builder = OptsBuilder::default()
            .user(Some(&server.user))
            .pass(server.password.as_ref())
            .db_name(server.database.as_ref())
            .prefer_socket(false)
            .client_found_rows(true)
            .stmt_cache_size(settings.statement_cache)
            .init(vec![SESSION]);
        let builder = match &server.host {
            Host::Tcp { name, port } => builder.ip_or_hostname(name).tcp_port(*port),
            Host::Unix(path) => builder.socket(Some(path.to_string_lossy())),
        };
        let builder = match &server.application_name {
            Some(name) => builder.connect_attribute("program_name", name),
            None => builder,
        };
        let plain = Opts::from(builder.clone());
        let tls = match &server.host {
            Host::Tcp { .. } => tls_options(&server.tls)?,
            Host::Unix(_) => None,
        };
        let prefer = tls.is_some() && server.tls.mode == TlsMode::Prefer;
        Ok(Self {
            options: builder.ssl_opts(tls).into(),
            plain: prefer.then(|| Arc::new((plain, AtomicBool::new(false)))),
            place: format!("{server:?}").into(),
            limit: settings.connect_timeout,
            texts: Arc::default(),
        })
    }

    async fn open(&self) -> mysql_async::Result<Conn> {
        let Some((plain, server_has_none)) = self.plain.as_deref() else {
            return Conn::new(self.options.clone()).await;
        };
        if server_has_none.load(Ordering::Relaxed) {
            return Conn::new(plain.clone()).await;
        }
        match Conn::new(self.options.clone()).await {
            Err(error) if tls_failed(&error) => {
                tracing::debug!(target: "mainstay::sql", server = %self.place, %error, "no TLS with MySQL");
                // Kept in mind, because the server counts every connection that is given up here.
                server_has_none.store(true, Ordering::Relaxed);
                Conn::new(plain.clone()).await
            }
            opened => opened,
        }
    }

    pub(super) async fn connect(&self) -> Result<Link> {
        let connection = match tokio::time::timeout(self.limit, self.open()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(explain(error, &self.place)),
            Err(_) => {
                return Err(Error::unavailable("the database can't be reached")
                    .context(format!("connecting to {}: no answer within {:?}", self.place, self.limit)));
            }
        };
        let texts = self.texts.clone();
        Ok(Link { connection, texts, busy: false, broken: false, last_used: Instant::now() })
    }
}

/// How the driver is to speak TLS; `None` if not at all.
fn tls_options(trust: &TlsTrust) -> Result<Option<SslOpts>> {
    // The driver uses the provider of the process. An error says that there is one already: that one is used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = SslOpts::default();
    match trust.mode {
        TlsMode::Disable => Ok(None),
        TlsMode::Prefer | TlsMode::Require => Ok(Some(options.with_danger_accept_invalid_certs(true))),
        TlsMode::VerifyCa | TlsMode::VerifyFull => {
            // The driver fails on the first root it can't use; of the system's some may be so.
            let usable = |root: &CertificateDer<'_>| RootCertStore::empty().add(root.clone()).is_ok();
            let roots = tls::roots(trust.root.as_deref())?;
            let roots = roots.iter().filter(|root| usable(root)).map(|root| root.to_vec().into()).collect();
            // Without the roots that come with the driver: trust is the operator's.
            Ok(Some(options.with_root_certs(roots).with_disable_built_in_roots(true)))
        }
    }
}

impl Connection for Link {
    fn is_reusable(&self) -> bool {
        !self.busy && !self.broken && !self.connection.is_disconnected()
    }
}

impl Link {
    /// The number that `KILL QUERY` wants.
    pub(super) fn id(&self) -> u32 {
        self.connection.id()
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.last_used.elapsed() < FRESH
    }

    /// Never to be used again.
    pub(super) fn spoil(&mut self) {
        self.broken = true;
    }

    /// Whether the server has a transaction open here, by its last answer that was no error.
    pub(super) fn in_transaction(&self) -> bool {
        let last = self.connection.last_ok_packet();
        last.is_some_and(|ok| ok.status_flags().contains(StatusFlags::SERVER_STATUS_IN_TRANS))
    }

    pub(super) async fn run(&mut self, call: &Call) -> Result<Answer> {
        let mut rows = Vec::new();
        let want = call.want;
        let mut keep = |row| {
            if want == Want::All || (want == Want::First && rows.is_empty()) {
                rows.push(row);
            }
            std::future::ready(true)
        };
        let affected = self.each(call, &mut keep).await?;
        Ok(Answer { rows, affected })
    }

    /// Runs one statement and gives its rows to `each`, for as long as that says `true`; the rest is read and thrown
    /// away. How many rows were changed.
    pub(super) async fn each<F: Future<Output = bool>>(
        &mut self,
        call: &Call,
        each: &mut impl FnMut(Row) -> F,
    ) -> Result<u64> {
        let text = self.texts.rewritten(call);
        let params = params(&call.values, &text.order)?;
        let empty = params.is_empty();
        self.busy = true;
        let params = if empty { Params::Empty } else { Params::Positional(params) };
        let outcome = match self.connection.exec_iter(text.sql.as_str(), params).await {
            Ok(result) => drain(result, each).await,
            Err(MysqlError::Server(error)) if error.code == UNSUPPORTED_PREPARED && empty => {
                match self.connection.query_iter(text.sql.as_str()).await {
                    Ok(result) => drain(result, each).await,
                    Err(error) => Outcome::Refused(error),
                }
            }
            Err(error) => Outcome::Refused(error),
        };
        match outcome {
            Outcome::Done(changed) => {
                self.settled(None);
                changed
            }
            Outcome::Refused(error) => {
                self.settled(Some(&error));
                Err(error_of(error))
            }
        }
    }

    /// Runs text as it stands, one statement or many.
    pub(super) async fn script(&mut self, sql: &str) -> Result<()> {
        check(self.text(sql).await)
    }

    /// As [`Link::script`], with the driver's own error.
    pub(super) async fn text(&mut self, sql: &str) -> mysql_async::Result<()> {
        self.busy = true;
        let result = self.connection.query_drop(sql).await;
        self.settled(result.as_ref().err());
        result
    }

    pub(super) async fn ping(&mut self) -> Result<()> {
        self.busy = true;
        let result = self.connection.ping().await;
        self.settled(result.as_ref().err());
        check(result)
    }

    fn settled(&mut self, error: Option<&MysqlError>) {
        self.busy = false;
        self.broken |= error.is_some_and(|error| !leaves_usable(error));
        self.last_used = Instant::now();
    }
}

enum Outcome {
    /// The protocol is at rest; a row may still have held what no [`Value`] can.
    Done(Result<u64>),
    Refused(MysqlError),
}

/// Reads an answer to its end, whatever becomes of its rows.
async fn drain<P: Protocol + Unpin, F: Future<Output = bool>>(
    mut result: QueryResult<'_, '_, P>,
    each: &mut impl FnMut(Row) -> F,
) -> Outcome {
    let (mut wanted, mut unreadable) = (true, None);
    match result.stream::<mysql_async::Row>().await {
        Ok(None) => {}
        Ok(Some(mut rows)) => {
            let columns = rows.columns();
            let names: Arc<[Box<str>]> = columns.iter().map(|column| column.name_str().into()).collect();
            while let Some(row) = rows.next().await {
                // Rows that are in the buffer already come without a wait: others, a kill above all, get their turn.
                tokio::task::coop::consume_budget().await;
                match row {
                    Ok(row) if wanted => match values_of(row, &columns) {
                        Ok(values) => wanted = each(Row::new(names.clone(), values)).await,
                        Err(error) => (wanted, unreadable) = (false, Some(error)),
                    },
                    Ok(_) => {}
                    Err(error) => return Outcome::Refused(error),
                }
            }
        }
        Err(error) => return Outcome::Refused(error),
    }
    let affected = result.affected_rows();
    match result.drop_result().await {
        Ok(()) => Outcome::Done(unreadable.map_or(Ok(affected), Err)),
        Err(error) => Outcome::Refused(error),
    }
}

fn values_of(row: mysql_async::Row, columns: &[Column]) -> Result<Vec<Value>> {
    row.unwrap().into_iter().zip(columns).map(|(cell, column)| value_of(cell, column)).collect()
}

impl Texts {
    fn rewritten(&self, call: &Call) -> Arc<Text> {
        let sql = &call.sql;
        if let Some(text) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(sql) {
            return text.clone();
        }
        let (rewritten, order) = rewrite_placeholders(sql);
        let text = Arc::new(Text { sql: rewritten, order });
        let mut texts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Texts that are built at run time may never come again: they may not push the others out.
        if texts.len() < KNOWN_TEXTS {
            texts.insert(sql.clone(), text.clone());
        }
        text
    }
}
