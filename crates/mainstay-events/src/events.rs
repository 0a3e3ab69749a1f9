//! [`Events`]: the events of one database, declared, started and stopped with the service.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use mainstay_core::{BoxFuture, Canceler, Cause, Component, Context, Error, Result};
use mainstay_sql::Db;
use mainstay_sql::migrate::Migrator;
use mainstay_telemetry::Metrics;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, Guarded};
use crate::consumer::{Group, is_name};
use crate::cutover::Cutover;
use crate::dead::{self, DeadLetter};
use crate::engine::{Engine, topics};
use crate::failpoint::failpoint;
use crate::intake::{INTAKE, Intake};
use crate::janitor::janitor;
use crate::lane::Lane;
use crate::lease::{Changes, Place, RELAY};
use crate::metrics::EventMetrics;
use crate::operate::{self, Lag, OutboxState};
use crate::outbox::Outbox;
use crate::pulse::pulse;
use crate::route::{EMBEDDED, Route, Standing, Turn};
use crate::settings::EventsSettings;
use crate::steady::Steady;
use crate::{Consumer, Event, route, schema};

/// How long a stop that was cut waits for what it cut to be undone.
const UNDO: Duration = Duration::from_secs(1);

/// The events of one database: what [`Publish`](crate::Publish) writes with its transactions, moved and handed to
/// [`Consumer`]s.
///
/// It is a [`Component`]: its start makes the tables, its run does the work, its stop finishes what is in hand, gives the
/// partitions back and moves what is left in the outbox. A clone is a handle to the same.
#[derive(Clone)]
pub struct Events(Arc<Inner>);

struct Inner {
    db: Db,
    settings: EventsSettings,
    metrics: EventMetrics,
    outbox: Arc<Outbox>,
    groups: Mutex<Vec<Group>>,
    migrate: bool,
    broker: Option<Arc<dyn Broker>>,
    engine: OnceLock<Arc<Engine>>,
    draining: CancellationToken,
    cut: Mutex<Option<Canceler>>,
    ended: watch::Sender<bool>,
    busy: Mutex<Vec<String>>,
}

impl Events {
    /// The events of `db`, published in the name of `source`. Nothing is connected to yet.
    ///
    /// # Errors
    /// Settings that can't work; a database that has events already.
    pub fn new(db: &Db, settings: EventsSettings, source: impl Into<String>, metrics: &Metrics) -> Result<Self> {
        settings.validate()?;
        let metrics = EventMetrics::new(metrics);
        let outbox = Arc::new(Outbox::new(settings.clone(), source.into(), metrics.clone()));
        db.set_commit_hook(outbox.clone())
            .map_err(|error| error.context("declaring events: a database has them once; clone the first `Events`"))?;
        Ok(Self(Arc::new(Inner {
            db: db.clone(),
            settings,
            metrics,
            outbox,
            groups: Mutex::default(),
            migrate: true,
            broker: None,
            engine: OnceLock::new(),
            draining: CancellationToken::new(),
            cut: Mutex::default(),
            ended: watch::Sender::new(false),
            busy: Mutex::default(),
        })))
    }

    /// Has events go through `broker` instead of the embedded one. What waits in the outbox goes there, and what is in the
    /// log already is applied from there.
    ///
    /// # Errors
    /// [`Code::Internal`](mainstay_core::Code::Internal): the handle was cloned before.
    pub fn through(mut self, broker: impl Broker) -> Result<Self> {
        let inner = Arc::get_mut(&mut self.0)
            .ok_or_else(|| Error::internal("`Events::through` comes before the first clone"))?;
        inner.broker = Some(Arc::new(Guarded(broker)));
        Ok(self)
    }

    /// Leaves the tables to [`Events::migrator`]: a start makes and changes none.
    ///
    /// # Errors
    /// [`Code::Internal`](mainstay_core::Code::Internal): the handle was cloned before.
    pub fn without_migration(mut self) -> Result<Self> {
        let inner = Arc::get_mut(&mut self.0)
            .ok_or_else(|| Error::internal("`Events::without_migration` comes before the first clone"))?;
        inner.migrate = false;
        Ok(self)
    }

    /// Adds a consumer. Its group begins to work when the events run.
    ///
    /// # Errors
    /// [`Code::Internal`](mainstay_core::Code::Internal), a mistake in the program: a malformed name, two consumers of
    /// one group for one event, a consumer after the start.
    pub fn consume<C: Consumer>(&self, consumer: C) -> Result<()> {
        for (what, name) in [("group", C::GROUP), ("event type", C::Event::TYPE), ("topic", C::Event::TOPIC)] {
            if !is_name(name) {
                return Err(Error::internal(format!(
                    "the {what} `{name}` is malformed: expected lower-case words of letters, digits, `_` and `-` with dots \
                     between them, 100 characters at most"
                )));
            }
        }
        if self.0.engine.get().is_some() {
            return Err(Error::internal(format!("the consumer of `{}` came after the start", C::GROUP)));
        }
        let mut groups = lock(&self.0.groups);
        let group = match groups.iter_mut().find(|group| group.name == C::GROUP) {
            Some(group) => group,
            None => {
                groups.push(Group::new(C::GROUP, C::START));
                groups.last_mut().ok_or_else(|| Error::internal("a list that was pushed to is empty"))?
            }
        };
        group.add(consumer)
    }

    /// Changes the framework's own tables, as a start does.
    pub fn migrator(&self) -> Migrator {
        schema::migrator(&self.0.db)
    }

    /// How each group stands.
    ///
    /// # Errors
    /// Those of any statement; so with the others here.
    pub async fn lag(&self, ctx: &Context) -> Result<Vec<Lag>> {
        operate::lag(ctx, &self.0.db).await
    }

    /// What was published and not moved yet.
    ///
    /// # Errors
    /// See [`Events::lag`].
    pub async fn outbox(&self, ctx: &Context) -> Result<OutboxState> {
        operate::outbox(ctx, &self.0.db).await
    }

    /// Up to `limit` dead letters after the id `after`, oldest first, of one group or of all.
    ///
    /// # Errors
    /// See [`Events::lag`].
    pub async fn dead_letters(
        &self,
        ctx: &Context,
        group: Option<&str>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<DeadLetter>> {
        dead::list(ctx, &self.0.db, group, after, limit).await
    }

    /// A dead letter, and its event as a CloudEvent.
    ///
    /// # Errors
    /// [`Code::NotFound`](mainstay_core::Code::NotFound).
    pub async fn dead_letter(&self, ctx: &Context, id: i64) -> Result<(DeadLetter, serde_json::Value)> {
        dead::show(ctx, &self.0.db, id).await
    }

    /// Has a dead letter tried again, with all attempts ahead, behind what waits of its key. `false`: there is no such
    /// dead letter (any more), so that asking twice does it once.
    ///
    /// # Errors
    /// See [`Events::lag`].
    pub async fn redrive(&self, ctx: &Context, id: i64) -> Result<bool> {
        // A command redrives without a start.
        self.0.outbox.open(schema::count_partitions(ctx, &self.0.db).await?);
        dead::redrive(ctx, &self.0.db, &self.0.outbox, id).await
    }

    /// Deletes a dead letter for good. `false`: there is none.
    ///
    /// # Errors
    /// See [`Events::lag`].
    pub async fn discard(&self, ctx: &Context, id: i64) -> Result<bool> {
        dead::discard(ctx, &self.0.db, id).await
    }

    /// Stops handing events to a group, in every process, within a second or so; they wait.
    ///
    /// # Errors
    /// [`Code::NotFound`](mainstay_core::Code::NotFound): no process has run such a group.
    pub async fn pause(&self, ctx: &Context, group: &str) -> Result<()> {
        operate::pause(ctx, &self.0.db, group, true).await
    }

    /// Goes on with a group that was paused.
    ///
    /// # Errors
    /// As [`Events::pause`].
    pub async fn resume(&self, ctx: &Context, group: &str) -> Result<()> {
        operate::pause(ctx, &self.0.db, group, false).await
    }

    /// Has the events of the service, which runs meanwhile, go the way that this handle is configured for: through its
    /// broker, or the embedded way. `from` is the broker that is left, if one is. `tell` is told how far it is.
    ///
    /// Nothing is lost, doubled or overtaken, whichever way the processes of the service are configured for: until it is
    /// their turn, they take nothing out of the outbox. It returns when all that was published before has gone the new way.
    /// What ended in the middle, by `ctx` or by a kill, is begun again by another call, or taken back by one that is
    /// configured for the old way.
    ///
    /// # Errors
    /// [`Code::FailedPrecondition`](mainstay_core::Code::FailedPrecondition): there is no such way, with what to do.
    /// [`Code::DeadlineExceeded`](mainstay_core::Code::DeadlineExceeded): `ctx` ended, with what was waited for.
    pub async fn cut_over(
        &self,
        ctx: &Context,
        from: Option<Arc<dyn Broker>>,
        tell: impl FnMut(&str) + Send,
    ) -> Result<()> {
        let Inner { db, settings, outbox, groups, broker, .. } = &*self.0;
        let groups: Vec<Arc<Group>> = lock(groups).iter().cloned().map(Arc::new).collect();
        let topics = topics(&groups);
        let from = from.map(|from| Arc::new(Guarded(from)) as Arc<dyn Broker>);
        let cutover =
            Cutover { ctx, db, settings, source: outbox.source(), topics: &topics, to: broker.clone(), from, tell };
        cutover.run().await
    }

    /// The way that events go: `embedded`, or the name of a broker; and the one that a cut-over is on its way to. `None`:
    /// no process has started yet.
    ///
    /// # Errors
    /// See [`Events::lag`].
    pub async fn route(&self, ctx: &Context) -> Result<Option<(String, Option<String>)>> {
        Ok(route::read(ctx, &self.0.db).await?.map(|Route { route, next_route }| (route, next_route)))
    }

    /// Whether this process, once started, is configured for the way that events go.
    ///
    /// # Errors
    /// [`Code::FailedPrecondition`](mainstay_core::Code::FailedPrecondition): it isn't, and takes nothing out of the outbox.
    pub fn check_route(&self) -> Result<()> {
        self.0.engine.get().map_or(Ok(()), |engine| engine.standing.check())
    }

    async fn prepare(&self, ctx: &Context) -> Result<()> {
        let Inner { db, settings, metrics, outbox, groups, migrate, broker, engine, .. } = &*self.0;
        if let (None, Some(url)) = (broker, settings.external_broker()) {
            return Err(Error::failed_precondition(format!(
                "events.url is {url}, and nothing connects to it: give `Events::through` its broker"
            )));
        }
        if *migrate {
            self.migrator().up(ctx).await?;
        }
        let partitions = schema::partitions(ctx, db, settings.partitions).await?;
        let groups: Vec<Arc<Group>> = lock(groups).iter().cloned().map(Arc::new).collect();
        for group in &groups {
            schema::group(ctx, db, group, partitions).await?;
        }
        let ours = broker.as_ref().map_or(EMBEDDED, |broker| broker.name());
        let route = route::at_start(ctx, db, ours, settings.lease).await?;
        let standing = Arc::new(Standing::new(ours, &route));
        if standing.turn() != Turn::Ours {
            standing.tell(&route);
            metrics.held.set(1);
        }
        outbox.open(partitions);
        let (settings, metrics, broker) = (settings.clone(), metrics.clone(), broker.clone());
        let new = Engine::new(db.clone(), settings, metrics, outbox.clone(), groups, partitions, (broker, standing));
        new.check_topics(ctx).await?;
        // Before there are lanes: they would begin with what is held up.
        new.board.pause(schema::paused(ctx, db).await?.into_iter().collect());
        // A second start finds the first one's.
        let _ = engine.set(Arc::new(new));
        Ok(())
    }

    async fn work(&self, ctx: &Context) -> Result<()> {
        let engine = self.0.engine.get().ok_or_else(|| Error::internal("events ran before they had started"))?;
        let (ctx, cut) = ctx.with_cancel();
        *lock(&self.0.cut) = Some(cut);
        let stop_pulse = CancellationToken::new();
        let pulse = || tokio::spawn(pulse(engine.clone(), ctx.clone(), stop_pulse.clone()));
        let mut pulse = Steady::new("the relay", pulse);
        let mut janitor = Steady::new("the janitor", || tokio::spawn(janitor(engine.clone(), ctx.clone())));
        let mut lanes = Lanes::new(engine.clone(), ctx.clone(), self.0.draining.clone());
        let mut next = Instant::now();
        let mut trouble = false;
        loop {
            tokio::select! {
                biased;
                () = self.0.draining.cancelled() => break,
                ended = lanes.ended() => {
                    lanes.release(ended).await;
                    *lock(&self.0.busy) = lanes.names();
                }
                () = engine.look.notified() => next = Instant::now(),
                () = sleep_until(next) => {
                    next = Instant::now() + engine.leases.period();
                    pulse.look();
                    janitor.look();
                    match engine.leases.renew(&ctx.with_timeout(engine.settings.lease), engine.standing.takes_part()).await {
                        Ok(changes) => {
                            lanes.follow(changes).await;
                            // A stop may have to cut them while the next renewal waits for the database.
                            *lock(&self.0.busy) = lanes.names();
                            trouble = false;
                        }
                        Err(error) if !trouble => {
                            trouble = true;
                            let error = error.report().to_string();
                            tracing::warn!(target: "mainstay::events", error, "leases can't be renewed now");
                            next = Instant::now() + engine.leases.period() / 3;
                        }
                        Err(_) => next = Instant::now() + engine.leases.period() / 3,
                    }
                }
            }
        }
        failpoint("before-drain");
        if let Some(janitor) = janitor.into_task() {
            janitor.abort();
        }
        *lock(&self.0.busy) = lanes.names();
        while let Some(place) = lanes.next_ended().await {
            lock(&self.0.busy).retain(|name| *name != name_of(place));
        }
        stop_pulse.cancel();
        if let Some(pulse) = pulse.into_task() {
            let _ = pulse.await;
        }
        if let Err(error) = engine.blameless.take_back(&ctx, &engine.db, |_| true).await {
            tracing::debug!(target: "mainstay::events", error = %error.report(), "taking back what was counted");
        }
        if let Err(error) = engine.leases.leave(&ctx, &lanes.held()).await {
            tracing::debug!(target: "mainstay::events", error = %error.report(), "giving partitions back");
        }
        failpoint("after-drain");
        self.0.ended.send_replace(true);
        Ok(())
    }
}

impl Component for Events {
    fn name(&self) -> &str {
        "events"
    }

    fn start<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.prepare(ctx))
    }

    fn run<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.work(ctx))
    }

    fn stop<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async move {
            self.0.draining.cancel();
            let Some(cut) = lock(&self.0.cut).take() else { return Vec::new() }; // it never ran
            let mut ended = self.0.ended.subscribe();
            if ctx.run(ended.wait_for(|ended| *ended)).await.is_ok() {
                return Vec::new();
            }
            let busy = std::mem::take(&mut *lock(&self.0.busy));
            cut.cancel_because(Cause::ShuttingDown);
            let _ = timeout(UNDO, ended.wait_for(|ended| *ended)).await;
            if busy.is_empty() { vec!["moving the outbox".to_owned()] } else { busy }
        })
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("db", &self.0.db).field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

/// What works in this process: a lane for each group and partition that it holds, an intake for each of the broker's.
struct Lanes {
    engine: Arc<Engine>,
    ctx: Context,
    /// Stops all of them, at once.
    draining: CancellationToken,
    tasks: JoinSet<()>,
    running: HashMap<Id, (Place, CancellationToken)>,
    /// Whose partition is not ours any more: it is not released.
    lost: Vec<Place>,
}

impl Lanes {
    fn new(engine: Arc<Engine>, ctx: Context, draining: CancellationToken) -> Self {
        Self { engine, ctx, draining, tasks: JoinSet::new(), running: HashMap::new(), lost: Vec::new() }
    }

    /// Starts and stops lanes as the leases changed.
    async fn follow(&mut self, changes: Changes) {
        let Changes { gained, lost, surplus } = changes;
        for place in &surplus {
            self.stop(*place);
            if place.0 == RELAY {
                self.release(*place).await;
            }
        }
        for place in lost {
            self.stop(place);
            self.lost.push(place);
        }
        for (place, unclean) in gained {
            let (name, part) = place;
            self.lost.retain(|lost| *lost != place);
            if name == INTAKE
                && let Some(broker) = self.engine.broker.clone()
            {
                let stop = self.draining.child_token();
                let intake = Intake { engine: self.engine.clone(), broker, part };
                let id = self.tasks.spawn(intake.run(self.ctx.clone(), stop.clone())).id();
                self.running.insert(id, (place, stop));
            }
            if let Some((group, pace)) = self.engine.groups.iter().find(|(group, _)| group.name == name) {
                let stop = self.draining.child_token();
                let lane = Lane::new(self.engine.clone(), (group.clone(), pace.clone()), part, unclean);
                let id = self.tasks.spawn(lane.run(self.ctx.clone(), stop.clone())).id();
                self.running.insert(id, (place, stop));
            }
        }
    }

    /// The next lane that ended; never if there is none.
    async fn ended(&mut self) -> Place {
        match self.next_ended().await {
            Some(place) => place,
            None => std::future::pending().await,
        }
    }

    async fn next_ended(&mut self) -> Option<Place> {
        loop {
            let id = match self.tasks.join_next_with_id().await? {
                Ok((id, ())) => id,
                Err(error) => {
                    tracing::error!(target: "mainstay::events", %error, "a lane ended by a panic; it begins again");
                    error.id()
                }
            };
            if let Some((place, _)) = self.running.remove(&id) {
                return Some(place);
            }
        }
    }

    /// Gives back what was ours, unless a lane is at work there: it was lost and won again while this one ended.
    async fn release(&mut self, place: Place) {
        if self.running.values().any(|(running, _)| *running == place) {
            return;
        }
        if let Some(index) = self.lost.iter().position(|lost| *lost == place) {
            self.lost.swap_remove(index);
            return;
        }
        if let Err(error) = self.engine.leases.release(&self.ctx, place).await {
            tracing::debug!(target: "mainstay::events", error = %error.report(), "giving a partition back");
        }
    }

    fn stop(&self, place: Place) {
        self.running.values().filter(|(running, _)| *running == place).for_each(|(_, stop)| stop.cancel());
    }

    fn names(&self) -> Vec<String> {
        self.running.values().map(|(place, _)| name_of(*place)).collect()
    }

    /// Every partition that this process holds, for any name.
    fn held(&self) -> Vec<Place> {
        let names = self.engine.lease_names();
        names.flat_map(|name| self.engine.leases.held(name).into_iter().map(move |part| (name, part))).collect()
    }
}

fn name_of((group, part): Place) -> String {
    if group == INTAKE { format!("intake, partition {part}") } else { format!("group {group}, partition {part}") }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
