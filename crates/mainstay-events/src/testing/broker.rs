//! [`TestBroker`]: a broker in a SQLite database, as moody as brokers are.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mainstay_core::{BoxFuture, Context, Error, Result};
use mainstay_sql::{DatabaseSettings, Db, FromRow, Sql, values};
use mainstay_telemetry::Metrics;
use serde_json::Value as Json;
use tokio::sync::OnceCell;

use crate::broker::{Broker, Delivery, Outcome, Outgoing, Resume, Stream, Subscription, Traits};
use crate::{Malformed, Message};

/// How often a reader looks for messages.
const LOOK: Duration = Duration::from_millis(10);

/// A broker whose streams are in a SQLite database: in memory, or in a file that processes share and that survives them.
///
/// It stores batches in the worst order that it may, and in its usual [`Mood`] it loses one in eight of: messages on their
/// way to it, its confirmations, its readers' connections, and what it was told to settle.
#[derive(Clone)]
pub struct TestBroker {
    db: Db,
    ready: Arc<OnceCell<()>>,
    places: bool,
    name: &'static str,
    mood: Arc<Mood>,
}

/// What goes wrong; it can be changed at any time.
#[derive(Debug)]
pub struct Mood {
    /// Whether something does at random.
    pub moody: AtomicBool,
    /// Whether nothing can be reached.
    pub down: AtomicBool,
    /// Whether it panics when it is to send the key `unsendable`, or to deliver the key `unreadable`.
    pub panics: AtomicBool,
    random: AtomicU64,
}

#[derive(FromRow)]
struct Stored {
    place: i64,
    #[row(json)]
    attributes: BTreeMap<String, String>,
    #[row(json)]
    headers: BTreeMap<String, String>,
    payload: Vec<u8>,
}

impl TestBroker {
    /// In memory, gone with its last clone; its streams have places.
    pub fn new() -> Self {
        Self::over(Db::memory())
    }

    /// In the file at `path`, which processes can share.
    ///
    /// # Errors
    /// A path that is no UTF-8.
    pub fn at(path: &Path) -> Result<Self> {
        let path = path.to_str().ok_or_else(|| Error::invalid_argument("the path is no UTF-8"))?;
        let settings = DatabaseSettings::from_url(format!("sqlite:{path}"));
        let broker = Self::over(Db::new(&settings, &Metrics::new())?);
        // Each process has its own bad luck.
        broker.mood.random.store(uuid::Uuid::new_v4().as_u64_pair().1, Ordering::SeqCst);
        Ok(broker)
    }

    fn over(db: Db) -> Self {
        let mood = Mood {
            moody: true.into(),
            down: false.into(),
            panics: false.into(),
            random: AtomicU64::new(0x9e37_79b9_7f4a_7c15),
        };
        Self { db, ready: Arc::default(), places: true, name: "test", mood: Arc::new(mood) }
    }

    /// As a queue, that remembers what was settled, and not as a log.
    #[must_use]
    pub fn queue(mut self) -> Self {
        self.places = false;
        self
    }

    /// By another name than `test`, as a broker of another kind has.
    #[must_use]
    pub fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// What goes wrong with it.
    pub fn mood(&self) -> &Mood {
        &self.mood
    }

    /// Stores a message as a stranger could send it.
    ///
    /// # Errors
    /// The database's.
    pub async fn inject(&self, ctx: &Context, topic: &str, attributes: &[(&str, &str)], payload: &[u8]) -> Result<()> {
        self.prepare(ctx).await?;
        let attributes: Json =
            attributes.iter().map(|(name, value)| ((*name).to_owned(), Json::from(*value))).collect();
        let row = values![topic, 0, attributes, Json::Object(serde_json::Map::new()), payload.to_vec()];
        insert(ctx, &self.db, row).await
    }

    async fn prepare(&self, ctx: &Context) -> Result<()> {
        if self.mood.down.load(Ordering::SeqCst) {
            return Err(Error::unavailable("the broker is down"));
        }
        let prepared = self.ready.get_or_try_init(async || {
            self.db.connect(ctx).await?;
            for table in [
                "CREATE TABLE IF NOT EXISTS messages (place INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, \
                 stream INTEGER NOT NULL, attributes TEXT NOT NULL, headers TEXT NOT NULL, payload BLOB NOT NULL)",
                "CREATE INDEX IF NOT EXISTS by_stream ON messages (topic, stream, place)",
                "CREATE TABLE IF NOT EXISTS topics (topic TEXT PRIMARY KEY, streams INTEGER NOT NULL)",
                "CREATE TABLE IF NOT EXISTS settled (service TEXT NOT NULL, topic TEXT NOT NULL, stream INTEGER NOT NULL, \
                 place INTEGER NOT NULL, PRIMARY KEY (service, topic, stream))",
            ] {
                self.db.query(table).execute(ctx).await?;
            }
            Ok(())
        });
        prepared.await.map(drop)
    }

    /// Where a new reader of a stream begins.
    async fn begin(&self, ctx: &Context, stream: &Stream, from: Resume) -> Result<i64> {
        let (topic, number) = (stream.topic.as_str(), i64::from(stream.number));
        let end = "SELECT coalesce(max(place), 0) FROM messages WHERE topic = $1 AND stream = $2";
        let end: i64 = self.db.read(end).bind(topic).bind(number).one(ctx).await?;
        let begin = match from {
            Resume::Oldest => 0,
            Resume::Newest => end,
            Resume::After(place) if place > end => 0,
            Resume::After(place) => place,
        };
        if self.places {
            return Ok(begin);
        }
        let settled =
            "INSERT INTO settled (service, topic, stream, place) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
        self.db.query(settled).bind(&stream.service).bind(topic).bind(number).bind(begin).execute(ctx).await?;
        let settled = "SELECT place FROM settled WHERE service = $1 AND topic = $2 AND stream = $3";
        self.db.query(settled).bind(&stream.service).bind(topic).bind(number).one(ctx).await
    }
}

impl Default for TestBroker {
    fn default() -> Self {
        Self::new()
    }
}

impl Mood {
    /// One time in eight.
    fn strikes(&self) -> bool {
        self.moody.load(Ordering::SeqCst) && self.random().is_multiple_of(8)
    }

    fn meet(&self, key: &str, bad: &str) {
        assert!(key != bad || !self.panics.load(Ordering::SeqCst), "a bug of the adapter");
    }

    fn random(&self) -> u64 {
        let mut random = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed); // SplitMix64
        random = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        random = (random ^ (random >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        random ^ (random >> 31)
    }
}

impl Broker for TestBroker {
    fn name(&self) -> &'static str {
        self.name
    }

    fn traits(&self) -> Traits {
        Traits { places: self.places, ordered_batches: false, publish_timeout: Duration::from_secs(5) }
    }

    fn open<'a>(&'a self, ctx: &'a Context, topic: &'a str, streams: u32) -> BoxFuture<'a, Result<u32>> {
        Box::pin(async move {
            self.prepare(ctx).await?;
            match topic {
                "test.memory" => Err(Error::failed_precondition("the topic is in memory only: make it durable")),
                _ => {
                    let made = "INSERT INTO topics (topic, streams) VALUES ($1, $2) ON CONFLICT DO NOTHING";
                    self.db.query(made).bind(topic).bind(i64::from(streams)).execute(ctx).await?;
                    let found: i64 =
                        self.db.read("SELECT streams FROM topics WHERE topic = $1").bind(topic).one(ctx).await?;
                    Ok(u32::try_from(found).unwrap_or(streams))
                }
            }
        })
    }

    fn publish<'a>(&'a self, ctx: &'a Context, messages: &'a [Outgoing]) -> BoxFuture<'a, Vec<Outcome>> {
        Box::pin(async move {
            let mut outcomes = Vec::new();
            let mut rows = Vec::new();
            for Outgoing { stream, message } in messages {
                let key = message.key.as_deref().unwrap_or_default();
                self.mood.meet(key, "unsendable");
                let unknown = |what| Outcome::Unknown(Error::unavailable(what));
                outcomes.push(if key.starts_with("refused") {
                    Outcome::Refused(Error::invalid_argument("the broker takes no such key"))
                } else if self.mood.strikes() {
                    unknown("the message was lost on its way")
                } else {
                    let attributes: Json = message.attributes().into_iter().collect();
                    let headers = serde_json::to_value(&message.meta.headers).unwrap();
                    let (topic, payload) = (message.topic.as_str(), message.payload.clone());
                    rows.push(values![topic, i64::from(*stream), attributes, headers, payload]);
                    if self.mood.strikes() { unknown("the confirmation was lost") } else { Outcome::Stored }
                });
            }
            let stored = async {
                self.prepare(ctx).await?;
                let rows = &rows;
                let store = self.db.transaction(ctx, |tx| async move {
                    for row in rows.iter().rev() {
                        insert(ctx, &tx, row.clone()).await?;
                    }
                    Ok(())
                });
                store.await
            };
            match stored.await {
                Ok(()) => outcomes,
                Err(_) => outcomes.iter().map(|_| Outcome::Unknown(Error::unavailable("the broker is down"))).collect(),
            }
        })
    }

    fn subscribe<'a>(
        &'a self,
        ctx: &'a Context,
        stream: &'a Stream,
        from: Resume,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>>> {
        Box::pin(async move {
            self.prepare(ctx).await?;
            let begin = self.begin(ctx, stream, from).await?;
            let (broker, ctx, stream) = (self.clone(), Context::background(), stream.clone());
            Ok(Box::new(Reader { broker, ctx, stream, begin, at: begin }) as Box<dyn Subscription>)
        })
    }
}

/// A subscription.
struct Reader {
    broker: TestBroker,
    ctx: Context,
    stream: Stream,
    begin: i64,
    at: i64,
}

impl Subscription for Reader {
    fn place(&self) -> i64 {
        self.begin
    }

    fn fetch(&mut self, most: usize) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        Box::pin(async move {
            let most = 1 + usize::try_from(self.broker.mood.random()).unwrap_or_default() % most;
            loop {
                self.broker.prepare(&self.ctx).await?;
                let next = "SELECT place, attributes, headers, payload FROM messages \
                            WHERE topic = $1 AND stream = $2 AND place > $3 ORDER BY place LIMIT $4";
                let next = self.broker.db.read(next).bind(&self.stream.topic).bind(i64::from(self.stream.number));
                let next = next.bind(self.at).bind(i64::try_from(most).unwrap_or(i64::MAX));
                let next: Vec<Stored> = next.all(&self.ctx).await?;
                if next.is_empty() {
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                if self.broker.mood.strikes() {
                    return Err(Error::unavailable("the reader's connection was lost"));
                }
                for key in next.iter().filter_map(|stored| stored.attributes.get("partitionkey")) {
                    self.broker.mood.meet(key, "unreadable");
                }
                self.at = next.last().map_or(self.at, |last| last.place);
                return Ok(next.into_iter().map(|stored| stored.delivery(&self.stream.topic)).collect());
            }
        })
    }

    fn settle(&mut self, place: i64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.broker.prepare(&self.ctx).await?;
            if self.broker.places {
                return Ok(());
            }
            if self.broker.mood.strikes() {
                return Err(Error::unavailable("what was settled was lost"));
            }
            let Stream { service, topic, number } = &self.stream;
            let settle = "UPDATE settled SET place = max(place, $4) WHERE service = $1 AND topic = $2 AND stream = $3";
            let settle = self.broker.db.query(settle).bind(service).bind(topic).bind(i64::from(*number)).bind(place);
            settle.execute(&self.ctx).await.map(drop)
        })
    }
}

impl Stored {
    fn delivery(self, topic: &str) -> Delivery {
        let attributes = self.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let message: Result<Message, Malformed> =
            Message::from_attributes(topic, attributes, self.headers, self.payload);
        Delivery { place: self.place, message }
    }
}

async fn insert(ctx: &Context, db: &Db, row: Vec<mainstay_sql::Value>) -> Result<()> {
    let insert = Sql::new("INSERT INTO messages (topic, stream, attributes, headers, payload)");
    db.query(insert.push_values([row])).execute(ctx).await.map(drop)
}
