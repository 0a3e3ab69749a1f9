//! [`Outbox`]: writes what a transaction published, with the transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use jiff::Timestamp;
use mainstay_core::{BoxFuture, Context, Error, Result};
use mainstay_sql::{CommitHook, Committed, Deferred, Dialect, Sql, Tx, Value, truncate_to_micros, values};
use mainstay_telemetry::trace::{self, Span, SpanKind};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::consumer::is_name;
use crate::envelope::Meta;
use crate::failpoint::failpoint;
use crate::hash::hash;
use crate::message::Message;
use crate::metrics::EventMetrics;
use crate::settings::EventsSettings;
use crate::{Event, PublishOptions};

/// The longest key, in bytes: what every database can index.
const MAX_KEY: usize = 255;

/// Rows of one INSERT: seven values each, far below what any database binds at once.
const ROWS_AT_ONCE: usize = 500;

/// How many locks the keys share where a table holds them; see the migration for MySQL.
const KEY_LOCKS: u64 = 512;

/// What the advisory locks of PostgreSQL are told apart from those of the service by: "mainstay" as a number.
const LOCK_SPACE: u64 = 0x6d61_696e_7374_6179;

/// The commit hook of a database with events.
pub(crate) struct Outbox {
    settings: EventsSettings,
    source: String,
    /// 0 until the tables were looked at.
    partitions: AtomicU32,
    /// Told of each commit that may have written something.
    pub(crate) wake: Arc<Notify>,
    metrics: EventMetrics,
}

/// An event that waits for the end of its transaction.
pub(crate) struct Pending {
    pub(crate) message: Message,
    part: i32,
    /// Ends when the event is written, or undone.
    _span: Option<Span>,
}

impl Outbox {
    pub(crate) fn new(settings: EventsSettings, source: String, metrics: EventMetrics) -> Self {
        Self { settings, source, partitions: AtomicU32::new(0), wake: Arc::new(Notify::new()), metrics }
    }

    /// The service, as its events name it.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    pub(crate) fn open(&self, partitions: u32) {
        self.partitions.store(partitions, Ordering::Release);
    }

    /// Everything about `event` that is known before the transaction ends.
    pub(crate) fn pending<E: Event>(&self, ctx: &Context, event: &E, options: PublishOptions) -> Result<Pending> {
        let partitions = self.partitions.load(Ordering::Acquire);
        if partitions == 0 {
            return Err(Error::unavailable("the service is starting, try again")
                .context("an event was published before `Events` had started"));
        }
        if !is_name(E::TYPE) || !is_name(E::TOPIC) {
            return Err(Error::internal(format!(
                "the event type `{}` or its topic `{}` is malformed",
                E::TYPE,
                E::TOPIC
            )));
        }
        let named = |error: Error| error.context(format!("publishing `{}`", E::TYPE));
        let max_payload = usize::try_from(self.settings.max_payload.as_u64()).unwrap_or(usize::MAX);
        let max_headers = usize::try_from(self.settings.max_headers.as_u64()).unwrap_or(usize::MAX);
        options.check(max_headers).map_err(named)?;
        let payload = serde_json::to_vec(event)
            .map_err(|error| named(Error::internal("the event has no JSON").with_source(error)))?;
        if payload.len() > max_payload {
            return Err(named(Error::invalid_argument(format!(
                "the event has {} bytes, at most {max_payload} are allowed (events.max_payload): publish a reference to \
                 what is large",
                payload.len()
            ))));
        }
        let key = event.key();
        if let Some(key) = &key
            && (key.is_empty() || key.len() > MAX_KEY || key.contains('\0'))
        {
            return Err(named(Error::invalid_argument(format!(
                "the event's key has {} bytes, 1 to {MAX_KEY} without NUL are allowed",
                key.len()
            ))));
        }
        let id = options.id.unwrap_or_else(Uuid::now_v7);
        // A consumer's transaction is older than the event in hand, and has no trace; the handler's context has.
        let here = Context::current(|here| here.filter(|_| ctx.trace().is_none()).cloned());
        let ctx = here.as_ref().unwrap_or(ctx);
        let mut span = trace::span(ctx, SpanKind::Producer, || format!("send {}", E::TOPIC).into());
        if let Some(span) = &mut span {
            span.set("messaging.system", "mainstay");
            span.set("messaging.operation.type", "send");
            span.set("messaging.destination.name", E::TOPIC);
            span.set("messaging.message.id", id.to_string());
            span.set("mainstay.event.type", E::TYPE);
        }
        let trace = trace::context(&span, ctx).trace();
        let meta = Meta {
            source: self.source.clone(),
            time: Some(truncate_to_micros(Timestamp::now())),
            version: E::VERSION,
            traceparent: trace.map(mainstay_core::Trace::traceparent),
            tracestate: trace.and_then(|trace| trace.state.as_deref()).map(str::to_owned),
            baggage: trace.and_then(|trace| trace.baggage.as_deref()).map(str::to_owned),
            request_id: ctx.request_id().map(ToString::to_string),
            headers: options.headers,
        };
        let message = Message { id, event_type: E::TYPE.to_owned(), topic: E::TOPIC.to_owned(), key, meta, payload };
        Ok(Pending { part: message.part(partitions), message, _span: span })
    }

    /// What was in the outbox before, and is published again.
    pub(crate) fn again(&self, message: Message) -> Result<Pending> {
        match self.partitions.load(Ordering::Acquire) {
            0 => Err(Error::unavailable("the service is starting, try again")),
            partitions => Ok(Pending { part: message.part(partitions), message, _span: None }),
        }
    }

    async fn flush(&self, ctx: &Context, tx: &Tx, items: Vec<Deferred>) -> Result<()> {
        let mut pending = Vec::with_capacity(items.len());
        for item in items {
            pending.push(*item.downcast::<Pending>().map_err(|_| Error::internal("deferred by someone else"))?);
        }
        failpoint("before-flush");
        lock_keys(ctx, tx, &pending).await?;
        for pending in pending.chunks(ROWS_AT_ONCE) {
            let rows = pending.iter().map(row).collect::<Result<Vec<_>>>()?;
            let insert =
                Sql::new("INSERT INTO mainstay_outbox (part, event_id, event_type, topic, event_key, meta, payload)");
            tx.query(insert.push_values(rows)).execute(ctx).await?;
        }
        self.metrics.published.inc_by(pending.len() as u64);
        failpoint("after-flush");
        failpoint("before-commit");
        Ok(())
    }
}

impl CommitHook for Outbox {
    fn before_commit<'a>(&'a self, ctx: &'a Context, tx: &'a Tx, items: Vec<Deferred>) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.flush(ctx, tx, items))
    }

    fn after_commit(&self, committed: Committed) {
        failpoint("after-commit");
        if committed == Committed::Unknown {
            self.metrics.unknown_commits.inc();
        }
        self.wake.notify_one();
    }
}

/// Locks the keys to the end of the transaction, in one order for all, so that ids rise in the order of commits: who
/// writes an event of a key later has waited for the commit before. One writer at a time is what SQLite has anyway.
async fn lock_keys(ctx: &Context, tx: &Tx, pending: &[Pending]) -> Result<()> {
    let keys = pending.iter().filter_map(|pending| pending.message.key.as_deref());
    let hashes = keys.map(|key| hash(key.as_bytes()));
    match tx.dialect() {
        Dialect::Sqlite => Ok(()),
        Dialect::Postgres => {
            let mut locks: Vec<i64> = hashes.map(|hash| (hash ^ LOCK_SPACE).cast_signed()).collect();
            locks.sort_unstable();
            locks.dedup();
            if locks.is_empty() {
                return Ok(());
            }
            let locks = Value::Array(locks.into_iter().map(Value::Int).collect());
            let lock = "SELECT count(pg_advisory_xact_lock(key)) FROM unnest($1::bigint[]) AS key";
            tx.query(lock).bind(locks).execute(ctx).await.map(drop)
        }
        Dialect::Mysql => {
            let mut locks: Vec<i64> = hashes.map(|hash| (hash % KEY_LOCKS).cast_signed()).collect();
            locks.sort_unstable();
            locks.dedup();
            if locks.is_empty() {
                return Ok(());
            }
            let lock = Sql::new("SELECT bucket FROM mainstay_event_key_locks WHERE").push_in("bucket", locks);
            tx.query(lock.push(" ORDER BY bucket FOR UPDATE")).execute(ctx).await.map(drop)
        }
    }
}

fn row(pending: &Pending) -> Result<Vec<Value>> {
    let Pending { message, part, .. } = pending;
    let meta = serde_json::to_value(&message.meta).map_err(Error::from_any)?;
    Ok(values![
        i64::from(*part),
        message.id,
        message.event_type.as_str(),
        message.topic.as_str(),
        message.key.clone(),
        meta,
        message.payload.clone()
    ])
}
