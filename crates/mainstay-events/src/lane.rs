//! [`Lane`]: applies the events of one partition, for one group, one transaction after another.
//!
//! Every transaction first takes the group's place in the partition, by moving or locking its row: whoever else thinks
//! that the partition is theirs waits there, and then finds that it has moved. So an event takes effect once, whatever
//! leases and clocks say.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use mainstay_core::{Context, Error, Result};
use mainstay_sql::{CommitUnknown, Tx};
use mainstay_telemetry::InHand;
use mainstay_telemetry::trace::{self, Span, SpanKind, Tracer};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::clock::millis;
use crate::consumer::{Group, Permanent, Undecodable};
use crate::dead::{Burial, Reason, bury};
use crate::engine::Engine;
use crate::failpoint::failpoint;
use crate::lease::options;
use crate::log::{self, Entry};
use crate::message::Message;
use crate::metrics::GroupLabels;
use crate::pace::Pace;
use crate::retry::{self, Why};

mod blame;
mod waiting;

use blame::{Blame, Failed, PlaceTaken, place, split_after_a_conflict};

/// What a transaction may take beside its handlers: to begin, to take its place, to commit.
const FRAME: Duration = Duration::from_secs(5);

/// Pauses while the database can't be reached.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// The longest error that is kept: enough to read, and less than any column holds.
const LONGEST_ERROR: usize = 4_000;

pub(crate) struct Lane {
    engine: Arc<Engine>,
    group: Arc<Group>,
    pace: Arc<Pace>,
    part: i32,
    /// The next offset; `None` until it was read, and when someone else may have moved it.
    cursor: Option<i64>,
    /// How many events from the cursor on may have been in hand when their process fell silent.
    suspects: u32,
    /// Events below are applied one at a time, because one of them failed.
    alone_until: i64,
    blame: Blame,
}

impl Lane {
    /// `unclean`: whoever had the partition before didn't give it back, and may have fallen with an event in hand.
    pub(crate) fn new(engine: Arc<Engine>, group: (Arc<Group>, Arc<Pace>), part: i32, unclean: bool) -> Self {
        let (group, pace) = group;
        let suspects = if unclean { engine.settings.batch } else { 0 };
        Self { engine, group, pace, part, cursor: None, suspects, alone_until: 0, blame: Blame::default() }
    }

    /// Works until `stop`, finishing the transaction in hand, or until `ctx` is done, undoing it.
    pub(crate) async fn run(mut self, ctx: Context, stop: CancellationToken) {
        let (Some(mut head), Some(due)) =
            (self.engine.board.head(self.part), self.engine.board.due(self.group.name, self.part).cloned())
        else {
            return;
        };
        let place = || format!("partition {}", self.part).into();
        let _in_hand = InHand::of(&ctx).map(|all| all.begin("lanes", (self.group.name, place()), &ctx));
        due.notify_one(); // what is due was not looked at yet
        let mut pause = SHORTEST_PAUSE;
        loop {
            let may_be_due = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ctx.done() => return,
                due = self.work(&mut head, &due) => due,
            };
            if self.engine.board.is_paused(self.group.name) {
                // Whoever resumes the group says so here. The look that is due then is remembered by what it forgets.
                self.cursor = None;
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = due.notified() => continue,
                }
            }
            let engine = self.engine.clone();
            let permit = tokio::select! {
                () = stop.cancelled() => return,
                permit = engine.permits.acquire() => permit,
            };
            let Ok(_permit) = permit else { return };
            if !self.engine.leases.holds((self.group.name, self.part)) {
                // Not renewed in time; it will be renewed or lost, and then this lane is stopped.
                drop(_permit);
                due.notify_one();
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(SHORTEST_PAUSE) => continue,
                }
            }
            match self.round(&ctx, may_be_due).await {
                Ok(more) => {
                    pause = SHORTEST_PAUSE;
                    if more {
                        due.notify_one();
                    }
                }
                Err(_) if ctx.is_done() => return,
                Err(error) => {
                    drop(_permit);
                    self.cursor = None;
                    due.notify_one();
                    let (group, part) = (self.group.name, self.part);
                    tracing::warn!(
                        target: "mainstay::events",
                        group, part, error = %error.report(), again_in = ?pause,
                        "events can't be applied now"
                    );
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = sleep(pause) => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Waits for something to do; `true` if something that waited may be due.
    async fn work(&self, head: &mut watch::Receiver<i64>, due: &Notify) -> bool {
        let Some(cursor) = self.cursor else { return true };
        tokio::select! {
            biased;
            () = due.notified() => true,
            _ = head.wait_for(|head| *head > cursor) => false,
        }
    }

    /// One transaction's worth of work of each kind; `true` if there may be more that is due.
    async fn round(&mut self, ctx: &Context, may_be_due: bool) -> Result<bool> {
        let more = if may_be_due { self.try_waiting(ctx).await? } else { false };
        let db = &self.engine.db;
        let cursor = match self.cursor {
            Some(cursor) => cursor,
            None => log::cursor(ctx, db, self.group.name, self.part).await?,
        };
        self.cursor = Some(cursor);
        let limit = if cursor < self.alone_until { 1 } else { self.pace.size() };
        let entries = log::read(ctx, db, self.part, cursor, limit).await?;
        if entries.is_empty() {
            self.suspects = 0; // nothing was in hand
            return Ok(more);
        }
        if self.suspects > 0 {
            self.set_aside(ctx, cursor, &entries).await?;
            return Ok(true);
        }
        self.apply_entries(ctx, cursor, &entries).await?;
        Ok(more)
    }

    /// Events that may have ended their process are not run before that is counted: they go where each run is.
    async fn set_aside(&mut self, ctx: &Context, from: i64, entries: &[Entry]) -> Result<()> {
        let limit = usize::try_from(self.suspects).unwrap_or(usize::MAX);
        let entries = entries.get(..entries.len().min(limit)).unwrap_or(entries);
        let to = entries.last().map_or(from, |last| last.off + 1);
        let (group, part) = (&self.group, self.part);
        let done = self.frame(ctx, |tx| async move {
            place(log::advance(ctx, &tx, group.name, part, from, to).await?)?;
            let mut parked: HashSet<String> =
                retry::parked_keys(ctx, &tx, group.name, part).await?.into_iter().collect();
            for entry in entries.iter().filter(|entry| group.handler(&entry.record.event_type).is_some()) {
                let head = entry.record.key.as_ref().is_none_or(|key| parked.insert(key.clone()));
                let why = if head { Why::Suspect } else { Why::Behind };
                retry::add(ctx, &tx, group.name, part, &entry.record, why, head).await?;
            }
            Ok(())
        });
        match done.await {
            Ok(()) => {
                self.cursor = Some(to);
                self.suspects -= u32::try_from(entries.len()).unwrap_or(u32::MAX).min(self.suspects);
                Ok(())
            }
            Err(error) => self.moved_or(error),
        }
    }

    async fn apply_entries(&mut self, ctx: &Context, from: i64, entries: &[Entry]) -> Result<()> {
        let to = entries.last().map_or(from, |last| last.off + 1);
        match self.apply(ctx, from, to, entries).await {
            Ok(applied) => {
                self.engine.metrics.applied.get_or_create(&GroupLabels::of(self.group.name)).inc_by(applied);
                self.cursor = Some(to);
                self.blame.went_well();
                self.pace.went_well();
                Ok(())
            }
            Err(Failed::Contended | Failed::InCompany) => Ok(()),
            Err(Failed::Taken | Failed::Unknown) => {
                self.cursor = None;
                Ok(())
            }
            Err(Failed::Database(error)) => Err(error),
            Err(Failed::Handler(error)) => match entries {
                [entry] => self.give_up_for_now(ctx, from, to, entry, &error).await,
                _ => {
                    // One of them failed: each gets a transaction of its own, so that only that one is undone.
                    self.alone_until = to;
                    Ok(())
                }
            },
        }
    }

    /// The events' effects and the group's new place, in one transaction.
    async fn apply(&mut self, ctx: &Context, from: i64, to: i64, entries: &[Entry]) -> Result<u64, Failed> {
        let (in_handler, runs) = (AtomicBool::new(false), AtomicU32::new(0));
        let engine = self.engine.clone();
        let (this, in_handler, runs) = (&*self, &in_handler, &runs);
        let _in_company = engine.company.read().await;
        let limited = ctx.with_timeout(this.limit(entries.iter().map(|entry| &entry.record)) + FRAME);
        let limited = &limited;
        let done = this.engine.db.transaction_with(limited, options(), |tx| async move {
            in_handler.store(false, Ordering::Relaxed);
            split_after_a_conflict(runs, entries.len())?;
            let (group, part) = (&this.group, this.part);
            place(log::advance(limited, &tx, group.name, part, from, to).await?)?;
            let parked: HashSet<String> =
                retry::parked_keys(limited, &tx, group.name, part).await?.into_iter().collect();
            let mut applied = 0;
            for Entry { record, .. } in entries {
                if group.handler(&record.event_type).is_none() {
                    continue;
                }
                if record.key.as_ref().is_some_and(|key| parked.contains(key)) {
                    retry::add(limited, &tx, group.name, part, record, Why::Behind, false).await?;
                    continue;
                }
                in_handler.store(true, Ordering::Relaxed);
                this.handle(limited, &tx, record, 1).await?;
                in_handler.store(false, Ordering::Relaxed);
                applied += 1;
            }
            failpoint("before-applied");
            Ok(applied)
        });
        let done = done.await;
        failpoint("after-applied");
        match done {
            Ok(applied) => Ok(applied),
            Err(error) => Err(self.judge(ctx, error, in_handler.load(Ordering::Relaxed))),
        }
    }

    /// Runs the handler of `record` within its time.
    async fn handle(&self, ctx: &Context, tx: &Tx, record: &Message, attempt: u32) -> Result<()> {
        let Some(handler) = self.group.handler(&record.event_type) else { return Ok(()) };
        failpoint("before-handler");
        let began = Instant::now();
        let timeout = handler.timeout().unwrap_or(self.engine.settings.handler_timeout);
        let ctx = record.context(&ctx.with_timeout(timeout), attempt);
        let mut span = self.span(&ctx, record, attempt);
        let ctx = trace::context(&span, &ctx).clone();
        let _in_hand =
            InHand::of(&ctx).map(|all| all.begin("events", (self.group.name, record.event_type.as_str().into()), &ctx));
        let handled = ctx.run(ctx.scope(handler.handle(&ctx, tx, &record.payload))).await.flatten();
        if let Some(span) = &mut span {
            span.outcome(&handled);
        }
        self.engine.metrics.handled(&ctx, self.group.name, began.elapsed());
        failpoint("after-handler");
        handled
    }

    /// The span of one run, in the trace of the publisher and linked to what it published.
    fn span(&self, ctx: &Context, record: &Message, attempt: u32) -> Option<Span> {
        let published = record.meta.trace();
        let name = || format!("process {}", record.topic).into();
        let mut span = Tracer::of(ctx)?.begin(ctx, published.as_ref(), SpanKind::Consumer, name)?;
        if let Some(published) = &published {
            span.link(published);
        }
        span.set("messaging.system", "mainstay");
        span.set("messaging.operation.type", "process");
        span.set("messaging.destination.name", record.topic.clone());
        span.set("messaging.consumer.group.name", self.group.name);
        span.set("messaging.message.id", record.id.to_string());
        span.set("mainstay.event.type", record.event_type.clone());
        span.set("mainstay.event.attempt", i64::from(attempt));
        Some(span)
    }

    /// The first failure of an event: it is undone, and waits for another try outside the log.
    async fn give_up_for_now(&mut self, ctx: &Context, from: i64, to: i64, entry: &Entry, error: &Error) -> Result<()> {
        let (text, group, part, record) = (text(error), &self.group, self.part, &entry.record);
        let reason = final_reason(error).or((self.engine.settings.max_attempts <= 1).then_some(Reason::Attempts));
        self.tell(record, 1, reason, &text);
        let (text, pause) = (&text, millis(self.engine.settings.pause(1)));
        let done = self.frame(ctx, |tx| async move {
            place(log::advance(ctx, &tx, group.name, part, from, to).await?)?;
            if let Some(reason) = reason {
                let (group, first_failed_at) = (group.name, None);
                let burial = Burial { group, part, record, reason, error: text, attempts: 1, first_failed_at };
                return bury(ctx, &tx, burial).await;
            }
            let head = match &record.key {
                Some(key) => !retry::is_parked(ctx, &tx, group.name, key).await?,
                None => true,
            };
            let why = Why::Failed { error: text, pause };
            retry::add(ctx, &tx, group.name, part, record, why, head).await
        });
        match done.await {
            Ok(()) => {
                self.cursor = Some(to);
                Ok(())
            }
            Err(error) => self.moved_or(error),
        }
    }

    /// A transaction of our own, without handlers.
    async fn frame<F, Fut>(&self, ctx: &Context, work: F) -> Result<()>
    where
        F: FnMut(Tx) -> Fut,
        Fut: Future<Output = Result<()>>,
    {
        self.engine.db.transaction_with(&ctx.with_timeout(FRAME), options(), work).await
    }

    /// The time that the handlers of `records` have together.
    fn limit<'a>(&self, records: impl Iterator<Item = &'a Message>) -> Duration {
        let default = self.engine.settings.handler_timeout;
        let timeouts = records.filter_map(|record| self.group.handler(&record.event_type)?.timeout());
        timeouts.fold(default, Duration::max)
    }

    /// Whose fault an error was.
    fn judge(&mut self, ctx: &Context, error: Error, in_handler: bool) -> Failed {
        // A service that may wait no longer undoes what it has in hand: that is nobody's failure.
        let failed = self.blame.judge(error, in_handler && !ctx.is_done());
        let (metrics, labels) = (&self.engine.metrics, GroupLabels::of(self.group.name));
        match &failed {
            Failed::Handler(_) => drop(metrics.failed.get_or_create(&labels).inc()),
            Failed::Taken => drop(metrics.duplicates.get_or_create(&labels).inc()),
            Failed::Unknown => drop(metrics.unknown_commits.inc()),
            Failed::Contended => self.pace.conflicted(),
            Failed::InCompany | Failed::Database(_) => {}
        }
        failed
    }

    fn moved_or(&mut self, error: Error) -> Result<()> {
        if error.is::<PlaceTaken>() || error.is::<CommitUnknown>() {
            self.cursor = None;
            return Ok(());
        }
        Err(error)
    }

    fn tell(&self, record: &Message, attempt: i64, reason: Option<Reason>, error: &str) {
        let (group, event, id) = (self.group.name, record.event_type.as_str(), record.id);
        match reason {
            Some(reason) => {
                let reason = reason.as_str();
                tracing::error!(target: "mainstay::events", group, event, %id, attempt, reason, error, "event given up");
            }
            None => tracing::warn!(target: "mainstay::events", group, event, %id, attempt, error, "event failed"),
        }
    }
}

/// Why another try would be in vain.
fn final_reason(error: &Error) -> Option<Reason> {
    if error.is::<Undecodable>() {
        return Some(Reason::Undecodable);
    }
    error.is::<Permanent>().then_some(Reason::Permanent)
}

fn text(error: &Error) -> String {
    error.report().to_string().chars().take(LONGEST_ERROR).collect()
}
