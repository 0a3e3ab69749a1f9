//! [`Cutover`]: has the events of a service that runs go another way, as the command `events cutover` does.
//!
//! What is behind both ways is the same log, in which an event is before all that leave the outbox after it. So a cut-over
//! waits for no consumer, and to the embedded way's end there is nothing but the end of its transactions, for which the
//! change of the route waits by itself. What a broker that is left has confirmed is another matter: nothing leaves the
//! outbox until that has come back. A mark behind it in each stream tells, as streams are delivered in order.
//!
//! It can be ended at any point and begun again: all that it knows is in the route and in the inbox.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mainstay_core::{Code, Context, Error, Result};
use mainstay_sql::{Db, Sql};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::broker::{Broker, Outcome, Outgoing};
use crate::clock::{clocked, millis};
use crate::envelope::Meta;
use crate::failpoint::failpoint;
use crate::intake::Topic;
use crate::lease::PRESENCE;
use crate::message::Message;
use crate::route::{self, EMBEDDED, Route};
use crate::schema;
use crate::settings::EventsSettings;

/// Between two looks, and between two sayings of what is waited for.
const LOOK: Duration = Duration::from_millis(100);
const SAY: Duration = Duration::from_secs(1);

/// How long it may take to put things back when a cut-over is given up.
const UNDO: Duration = Duration::from_secs(5);

/// The type of the event that is a mark. No group consumes it.
const MARK: &str = "mainstay.mark";

pub(crate) struct Cutover<'a, T> {
    pub(crate) ctx: &'a Context,
    pub(crate) db: &'a Db,
    pub(crate) settings: &'a EventsSettings,
    /// The service, as its events name it.
    pub(crate) source: &'a str,
    /// What its groups consume.
    pub(crate) topics: &'a [Topic],
    /// The way to go: the broker of the configuration; `None` is the embedded one.
    pub(crate) to: Option<Arc<dyn Broker>>,
    /// The broker to be left.
    pub(crate) from: Option<Arc<dyn Broker>>,
    /// Says how far it is.
    pub(crate) tell: T,
}

impl<T: FnMut(&str)> Cutover<'_, T> {
    /// Works until events go the way that they are to go, and what was published before has gone.
    pub(crate) async fn run(mut self) -> Result<()> {
        let to = self.to.as_ref().map_or(EMBEDDED, |broker| broker.name());
        loop {
            let Some(now) = route::read(self.ctx, self.db).await? else {
                return Err(Error::failed_precondition(
                    "no process has started with these events yet: they will go the way that the first one is configured for",
                ));
            };
            let Route { route, next_route } = &now;
            let done = if route == to {
                match next_route {
                    None => break,
                    Some(next) => {
                        (self.tell)(&format!("the cut-over from {to} to {next} is taken back"));
                        self.change(&now, &Route::to(to), None).await?
                    }
                }
            } else if route == EMBEDDED {
                self.enter_broker(&now, to).await?
            } else if to == EMBEDDED {
                self.leave_broker(&now).await?
            } else {
                return Err(Error::failed_precondition(format!(
                    "events go by {route}, and from one broker to another there is no direct way: go to the embedded one \
                     first"
                )));
            };
            if done {
                (self.tell)(&format!("events go by {to} from here on"));
            }
        }
        self.all_gone(to).await
    }

    /// One change of the row: whoever moves events the embedded way has ended when it is made.
    async fn enter_broker(&mut self, now: &Route, to: &str) -> Result<bool> {
        self.processes(&[to]).await?;
        let Some(broker) = self.to.clone() else { return Ok(false) };
        self.arrived(&*broker).await?;
        self.change(now, &Route::to(to), None).await
    }

    /// Nothing leaves the outbox any more; what had left it arrives; the embedded way is opened.
    async fn leave_broker(&mut self, now: &Route) -> Result<bool> {
        let left = now.route.as_str();
        let named = |why: &str| {
            Err(Error::failed_precondition(format!(
                "events go by {left}, and what is there is to be taken in first: {why} (--from)"
            )))
        };
        let from = match self.from.clone() {
            None => return named("say where that is"),
            Some(from) if from.name() != left => return named(&format!("this is {}", from.name())),
            Some(from) => from,
        };
        self.processes(&[EMBEDDED, left]).await?;
        let closed = Route { route: left.to_owned(), next_route: Some(EMBEDDED.to_owned()) };
        if now != &closed && !self.change(now, &closed, None).await? {
            return Ok(false);
        }
        (self.tell)(&format!("nothing leaves the outbox until all that {left} has is taken in"));
        let arrived = async {
            self.arrived(&*from).await?;
            self.change(&closed, &Route::to(EMBEDDED), Some(self.settings.inbox_retention)).await
        };
        match arrived.await {
            Ok(done) => Ok(done),
            Err(error) => {
                let ctx = &Context::background().with_timeout(UNDO);
                let back = route::change(ctx, self.db, &closed, &Route::to(left), None).await;
                let became = match back {
                    Ok(true) => "given up",
                    Ok(false) => "given up; somebody else goes on with it",
                    Err(_) => "given up, and nothing leaves the outbox before it is begun again or taken back",
                };
                (self.tell)(&format!("the cut-over from {left} to {EMBEDDED} is {became}"));
                Err(error)
            }
        }
    }

    async fn change(&self, from: &Route, to: &Route, noted: Option<Duration>) -> Result<bool> {
        failpoint("before-route");
        let changed = route::change(self.ctx, self.db, from, to, noted).await?;
        failpoint("after-route");
        Ok(changed)
    }

    /// Waits until a process for each of `routes` runs, and none of an older version, which would not look at the route.
    async fn processes(&mut self, routes: &[&str]) -> Result<()> {
        let (ctx, db, lease) = (self.ctx, self.db, self.settings.lease);
        until(ctx, &mut self.tell, async || {
            let there = processes(ctx, db, lease).await?;
            if let Some(old) = there.get(&None) {
                return Ok(Some(format!("{old} of an older version have to end, which know nothing of cut-overs")));
            }
            let missing = routes.iter().find(|route| !there.contains_key(&Some((**route).to_owned())));
            Ok(missing.map(|route| format!("no process runs that is configured for {route}")))
        })
        .await
    }

    /// Waits until all that `broker` has stored for this service so far is in the log.
    async fn arrived(&mut self, broker: &dyn Broker) -> Result<()> {
        let (ctx, db, topics, name) = (self.ctx, self.db, self.topics, broker.name());
        let partitions = schema::count_partitions(ctx, db).await?;
        let mut marks = Vec::new();
        until(ctx, &mut self.tell, async || {
            marks.clear();
            for topic in topics {
                let limited = ctx.with_timeout(broker.traits().publish_timeout);
                let streams = match limited.run(broker.open(&limited, topic.name, partitions)).await.flatten() {
                    Ok(streams) => streams,
                    Err(error) if matches!(error.code(), Code::Unavailable | Code::DeadlineExceeded) => {
                        return Ok(Some(format!("{name} can't be reached: {}", error.report())));
                    }
                    Err(error) => return Err(error.context(format!("opening the topic `{}`", topic.name))),
                };
                let read = "SELECT count(*) FROM mainstay_event_intakes \
                            WHERE topic = $1 AND stream < $2 AND coalesce(broker, $3) = $3";
                let read = db.query(read).bind(topic.name).bind(i64::from(streams)).bind(name);
                let read: i64 = read.one(ctx).await?;
                if read < i64::from(streams) {
                    let topic = topic.name;
                    return Ok(Some(format!("no process reads all of the topic `{topic}` of {name} yet")));
                }
                marks.extend((0..streams).map(|stream| mark(self.source, topic, stream)));
            }
            Ok(None)
        })
        .await?;
        let mut on_their_way: HashSet<Uuid> = marks.iter().map(|mark| mark.message.id).collect();
        until(ctx, &mut self.tell, async || {
            send(ctx, broker, &mut marks).await?;
            if !marks.is_empty() {
                return Ok(Some(format!("{name} doesn't take events now")));
            }
            if !on_their_way.is_empty() {
                let there = Sql::new("SELECT event_id FROM mainstay_inbox WHERE");
                let there = there.push_in("event_id", on_their_way.iter().copied());
                for mark in db.query(there).all::<Uuid>(ctx).await? {
                    on_their_way.remove(&mark);
                }
            }
            let streams = on_their_way.len();
            Ok((streams > 0).then(|| format!("not all that {name} has is taken in: {streams} streams to go")))
        })
        .await
    }

    /// Waits until what was published before has left the outbox, and says who takes no part in that.
    async fn all_gone(&mut self, to: &str) -> Result<()> {
        let (ctx, db) = (self.ctx, self.db);
        let last: Option<i64> = db.query("SELECT max(id) FROM mainstay_outbox").one(ctx).await?;
        until(ctx, &mut self.tell, async || {
            let left = "SELECT count(*) FROM (SELECT id FROM mainstay_outbox WHERE id <= $1 LIMIT 10000) counted";
            let left: i64 = db.query(left).bind(last.unwrap_or_default()).one(ctx).await?;
            Ok((left > 0)
                .then(|| format!("{left} events wait in the outbox for a process that is configured for {to}")))
        })
        .await?;
        let there = processes(ctx, db, self.settings.lease).await?;
        for (route, count) in there.into_iter().filter_map(|(route, count)| Some((route?, count))) {
            if route != to {
                (self.tell)(&format!(
                    "configured for {route} are {count}, which handle events and take none out of the outbox; they can end"
                ));
            }
        }
        (self.tell)(&format!("all that was published before has gone by {to}"));
        Ok(())
    }
}

/// Looks again and again, says what is missing, and gives up with that when `ctx` is done.
async fn until(
    ctx: &Context,
    tell: &mut impl FnMut(&str),
    mut missing: impl AsyncFnMut() -> Result<Option<String>>,
) -> Result<()> {
    let (mut said, mut last) = (None::<(Instant, String)>, None::<String>);
    loop {
        match missing().await {
            Ok(None) => return Ok(()),
            Ok(Some(what)) => {
                if said.as_ref().is_none_or(|(at, said)| *said != what && at.elapsed() >= SAY) {
                    tell(&format!("waiting: {what}"));
                    said = Some((Instant::now(), what.clone()));
                }
                last = Some(what);
            }
            Err(error) if !ctx.is_done() => return Err(error),
            Err(_) => {}
        }
        if ctx.run(sleep(LOOK)).await.is_err() {
            let what = last.as_deref().unwrap_or("the time was over before the first look had ended");
            return Err(Error::new(Code::DeadlineExceeded, format!("given up waiting: {what}")));
        }
    }
}

/// How many processes live, by their route; `None` is for those of an older version, which don't tell.
async fn processes(ctx: &Context, db: &Db, lease: Duration) -> Result<HashMap<Option<String>, usize>> {
    let live = clocked!["SELECT name, owner FROM mainstay_event_members WHERE seen_at > ", " - $1"];
    let mut routes: HashMap<Uuid, Option<String>> = HashMap::new();
    for (name, owner) in db.query(live).bind(millis(lease)).all::<(String, Uuid)>(ctx).await? {
        let route = routes.entry(owner).or_default();
        *route = name.strip_prefix(PRESENCE).map(str::to_owned).or(route.take());
    }
    let mut counts = HashMap::new();
    for route in routes.into_values() {
        *counts.entry(route).or_default() += 1;
    }
    Ok(counts)
}

/// What is sent to see it come back.
fn mark(source: &str, topic: &Topic, stream: u32) -> Outgoing {
    let meta = Meta { source: source.to_owned(), time: Some(Timestamp::now()), version: 1, ..Meta::default() };
    let (id, event_type, topic, payload) = (Uuid::now_v7(), MARK.to_owned(), topic.name.to_owned(), b"{}".to_vec());
    Outgoing { stream, message: Message { id, event_type, topic, key: None, meta, payload } }
}

/// Sends `marks`, and leaves those in it that have to be sent again.
async fn send(ctx: &Context, broker: &dyn Broker, marks: &mut Vec<Outgoing>) -> Result<()> {
    if marks.is_empty() {
        return Ok(());
    }
    let limited = ctx.with_timeout(broker.traits().publish_timeout);
    let Ok(outcomes) = limited.run(broker.publish(&limited, marks)).await else { return Ok(()) };
    let mut outcomes = outcomes.into_iter();
    let mut again = Vec::new();
    for mark in marks.drain(..) {
        match outcomes.next() {
            Some(Outcome::Stored) => {}
            Some(Outcome::Refused(error)) => return Err(error.context("sending a mark")),
            Some(Outcome::Unknown(_)) | None => again.push(mark),
        }
    }
    *marks = again;
    Ok(())
}
