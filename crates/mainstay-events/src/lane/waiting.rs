//! What a [`Lane`] does about events that wait for another try.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use mainstay_core::{Context, Error, Result};
use mainstay_sql::Tx;
use tokio::sync::{RwLockReadGuard, RwLockWriteGuard};
use tokio::time::Instant;

use super::blame::{Failed, split_after_a_conflict, trouble};
use super::{FRAME, Lane, final_reason, text};
use crate::clock::millis;
use crate::dead::{Burial, Reason, bury};
use crate::failpoint::failpoint;
use crate::lease::options;
use crate::log;
use crate::metrics::GroupLabels;
use crate::retry::{self, Waiting};

/// What else may be in hand in this process while something is run.
#[expect(dead_code, reason = "held, and not looked at")]
enum Company<'a> {
    None(RwLockWriteGuard<'a, ()>),
    Others(RwLockReadGuard<'a, ()>),
}

impl Lane {
    /// Tries what is due again; `true` if there may be more.
    pub(super) async fn try_waiting(&mut self, ctx: &Context) -> Result<bool> {
        let place = (self.group.name, self.part);
        self.engine.blameless.take_back(ctx, &self.engine.db, |of| of == place).await?;
        let batch = self.pace.size();
        let mut due = retry::due(ctx, &self.engine.db, self.group.name, self.part, batch).await?;
        // What was run before may be what ends the process, or what fails: it is run alone.
        match due.iter().position(|waiting| waiting.attempt > 0) {
            Some(0) => due.truncate(1),
            Some(others) => due.truncate(others),
            None => {}
        }
        let Some(first) = due.first() else { return Ok(false) };
        if first.attempt >= i64::from(self.engine.settings.max_attempts) {
            // Counted, and never seen to fail: it took its process with it.
            let error = first.error.clone();
            let error = error.unwrap_or_else(|| "the process ended each time while the event was in hand".to_owned());
            let first = first.clone();
            self.tell(&first.record, first.attempt, Some(Reason::Crash), &error);
            self.bury_waiting(ctx, &first, Reason::Crash, &error, first.attempt).await?;
            return Ok(true);
        }
        let first_run = first.attempt == 0;
        // Before the count: while one that ends its process has that to itself, those that wait here aren't in hand.
        let engine = self.engine.clone();
        let company = if first.may_have_ended_a_process() {
            Company::None(engine.company.write().await)
        } else {
            Company::Others(engine.company.read().await)
        };
        let pause = millis(self.engine.settings.pause(u32::try_from(first.attempt).unwrap_or(u32::MAX)));
        retry::count_run(ctx, &self.engine.db, &due, pause).await?;
        due.iter_mut().for_each(|waiting| waiting.attempt += 1);
        // In company: the other ones that are due, and those that wait behind them.
        let followers =
            if first_run { usize::try_from(batch).unwrap_or(usize::MAX).saturating_sub(due.len()) } else { 0 };
        let done = self.apply_waiting(ctx, &due, followers).await;
        drop(company);
        match done {
            Err(Failed::InCompany) => {
                for (index, waiting) in due.iter().enumerate() {
                    let done = self.apply_one_waiting(ctx, waiting).await;
                    if !matches!(done, Ok(ControlFlow::Continue(()))) {
                        self.engine.blameless.add(place, &due[index + 1..]);
                        return done.map(|_| true);
                    }
                }
            }
            Err(Failed::Handler(error)) => {
                if let Some(waiting) = due.pop() {
                    self.wait_again(ctx, &waiting, &error).await?;
                }
            }
            Err(Failed::Database(error)) => {
                self.engine.blameless.add(place, &due);
                return Err(error);
            }
            Err(Failed::Taken | Failed::Unknown | Failed::Contended) => self.engine.blameless.add(place, &due),
            Ok(()) => {}
        }
        Ok(true)
    }

    /// After a run together failed: a run alone, which is not counted again.
    async fn apply_one_waiting(&mut self, ctx: &Context, waiting: &Waiting) -> Result<ControlFlow<()>> {
        let engine = self.engine.clone();
        let company = engine.company.read().await;
        let done = self.apply_waiting(ctx, std::slice::from_ref(waiting), 0).await;
        drop(company);
        match done {
            Ok(()) => Ok(ControlFlow::Continue(())),
            Err(Failed::Taken | Failed::Unknown | Failed::Contended | Failed::InCompany) => {
                self.engine.blameless.add((self.group.name, self.part), [waiting]);
                Ok(ControlFlow::Break(()))
            }
            Err(Failed::Database(error)) => {
                self.engine.blameless.add((self.group.name, self.part), [waiting]);
                Err(error)
            }
            Err(Failed::Handler(error)) => {
                self.wait_again(ctx, waiting, &error).await?;
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    /// The effects of waiting events, whose company is settled, and their end, in one transaction; with up to `followers`
    /// of those that wait behind them, as otherwise a key to which events come faster than two commits each would never
    /// catch up.
    async fn apply_waiting(&mut self, ctx: &Context, waiting: &[Waiting], followers: usize) -> Result<(), Failed> {
        let (in_handler, runs, begun) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
        let (this, in_handler, runs, begun) = (&*self, &in_handler, &runs, &begun);
        let limit = this.limit(waiting.iter().map(|waiting| &waiting.record));
        let limited = ctx.with_timeout(limit + FRAME);
        let limited = &limited;
        let labels = GroupLabels::of(self.group.name);
        let done = this.engine.db.transaction_with(limited, options(), |tx| async move {
            let began = Instant::now();
            in_handler.store(false, Ordering::Relaxed);
            begun.store(0, Ordering::Relaxed);
            split_after_a_conflict(runs, waiting.len() + followers)?;
            log::hold(limited, &tx, this.group.name, this.part).await?;
            let (mut applied, mut duplicates, mut room) = (0, 0, followers);
            for waiting in waiting {
                if !retry::take(limited, &tx, waiting).await? {
                    duplicates += 1;
                    continue;
                }
                begun.fetch_add(1, Ordering::Relaxed);
                this.run_waiting(limited, &tx, waiting, in_handler).await?;
                applied += 1;
                let Some(key) = &waiting.record.key else { continue };
                for next in retry::followers(limited, &tx, this.group.name, key, room).await? {
                    // Where handlers are slow, a transaction of many would meet its limit.
                    if began.elapsed() > limit / 4 || next.attempt > 0 || !retry::take(limited, &tx, &next).await? {
                        break;
                    }
                    begun.fetch_add(1, Ordering::Relaxed);
                    this.run_waiting(limited, &tx, &Waiting { attempt: 1, ..next }, in_handler).await?;
                    (applied, room) = (applied + 1, room - 1);
                }
                retry::promote(limited, &tx, this.group.name, key).await?;
            }
            failpoint("before-applied");
            Ok((applied, duplicates))
        });
        let done = done.await;
        failpoint("after-applied");
        match done {
            Ok((applied, duplicates)) => {
                self.engine.metrics.applied.get_or_create(&labels).inc_by(applied);
                self.engine.metrics.duplicates.get_or_create(&labels).inc_by(duplicates);
                self.blame.went_well();
                self.pace.went_well();
                Ok(())
            }
            Err(error) => match self.judge(ctx, error, in_handler.load(Ordering::Relaxed)) {
                Failed::Handler(_) if waiting.len() > 1 || begun.load(Ordering::Relaxed) > 1 => Err(Failed::InCompany),
                failed => Err(failed),
            },
        }
    }

    async fn run_waiting(&self, ctx: &Context, tx: &Tx, waiting: &Waiting, in_handler: &AtomicBool) -> Result<()> {
        in_handler.store(true, Ordering::Relaxed);
        let attempt = u32::try_from(waiting.attempt).unwrap_or(u32::MAX);
        self.handle(ctx, tx, &waiting.record, attempt).await?;
        in_handler.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Another failure: `waiting.attempt` runs were begun.
    async fn wait_again(&mut self, ctx: &Context, waiting: &Waiting, error: &Error) -> Result<()> {
        let text = text(error);
        let exhausted = waiting.attempt >= i64::from(self.engine.settings.max_attempts);
        let reason = final_reason(error).or(exhausted.then_some(Reason::Attempts));
        self.tell(&waiting.record, waiting.attempt, reason, &text);
        if let Some(reason) = reason {
            return self.bury_waiting(ctx, waiting, reason, &text, waiting.attempt).await;
        }
        let attempt = u32::try_from(waiting.attempt).unwrap_or(u32::MAX);
        let pause = millis(self.engine.settings.pause(attempt));
        let (group, part, text) = (self.group.name, self.part, &text);
        let done = self.frame(ctx, |tx| async move {
            log::hold(ctx, &tx, group, part).await?;
            retry::failed(ctx, &tx, waiting, text, pause).await
        });
        let done = done.await;
        if done.as_ref().is_err_and(|error| trouble(error).is_some()) {
            // A run of which nobody can read how it ended would look like one that ended its process.
            self.engine.blameless.add((group, part), [waiting]);
        }
        done.or_else(|error| self.moved_or(error))
    }

    async fn bury_waiting(
        &mut self,
        ctx: &Context,
        waiting: &Waiting,
        reason: Reason,
        error: &str,
        attempts: i64,
    ) -> Result<()> {
        let (group, part) = (self.group.name, self.part);
        let done = self.frame(ctx, |tx| async move {
            log::hold(ctx, &tx, group, part).await?;
            if retry::take(ctx, &tx, waiting).await? {
                if let Some(key) = &waiting.record.key {
                    retry::promote(ctx, &tx, group, key).await?;
                }
                let (record, first_failed_at) = (&waiting.record, waiting.first_failed_at);
                let burial = Burial { group, part, record, reason, error, attempts, first_failed_at };
                bury(ctx, &tx, burial).await?;
            }
            Ok(())
        });
        done.await.or_else(|error| self.moved_or(error))
    }
}
