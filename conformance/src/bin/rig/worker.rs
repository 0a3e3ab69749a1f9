//! The handlers: what they apply stands in the ledger, and what they can't apply they fail at as they are told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use conformance::chaos::fleet::SLOW;
use conformance::chaos::history::Temper;
use mainstay::prelude::*;

use crate::events::{Echo, Step};
use crate::settings::{Mutation, Settings};

/// One step in so many has an echo.
const ECHO_EVERY: i64 = 4;
/// The mutations happen to steps whose number ends like this.
const MUTATED: (i64, i64) = (20, 10);

const APPLIED: &str = "INSERT INTO applied (grp, event_id, event_key, kseq, worker) VALUES ($1, $2, $3, $4, $5)";

/// Applies steps.
pub(crate) struct Apply {
    name: String,
    slow_for: Duration,
    mended: bool,
    mutation: Mutation,
    /// Steps that wait for the next of their key, in a handler that is broken that way.
    held: Arc<Mutex<HashMap<String, Step>>>,
}

impl Apply {
    pub(crate) fn new(settings: &Settings) -> Self {
        let Settings { name, mended, mutation, slow_for, .. } = settings.clone();
        Self { name, slow_for: Duration::from_millis(slow_for), mended, mutation, held: Arc::default() }
    }

    async fn apply(&self, ctx: &Context, tx: &Tx, step: &Step) -> Result<()> {
        let applied = tx.query(APPLIED).bind("apply").bind(step.event_id).bind(step.key.as_str()).bind(step.kseq);
        applied.bind(self.name.as_str()).execute(ctx).await.map(drop)
    }

    /// Applies as a handler does that is broken on purpose.
    async fn mutate(&self, ctx: &Context, tx: &Tx, step: &Step) -> Result<()> {
        let chosen = step.kseq % MUTATED.0 == MUTATED.1;
        match self.mutation {
            Mutation::Skip if chosen => return Ok(()),
            Mutation::Twice if chosen => self.apply(ctx, tx, step).await?,
            Mutation::Invent if chosen => {
                self.apply(ctx, tx, &Step { event_id: Uuid::new_v4(), ..step.clone() }).await?;
            }
            Mutation::Swap if chosen => {
                self.held().insert(step.key.clone(), step.clone());
                return Ok(());
            }
            _ => {}
        }
        self.apply(ctx, tx, step).await?;
        let held = self.held().remove(&step.key);
        match held {
            Some(held) => self.apply(ctx, tx, &held).await,
            None => Ok(()),
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<String, Step>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Consumer for Apply {
    type Event = Step;
    const GROUP: &'static str = "apply";

    async fn handle(&self, ctx: &Context, tx: &Tx, step: Step) -> Result<()> {
        match Temper::from_code(step.temper) {
            _ if self.mended => {}
            Temper::Tame => {}
            Temper::Moody if Uuid::new_v4().as_u128().is_multiple_of(2) => {}
            Temper::Moody => return Err(Error::unavailable("not in the mood")),
            Temper::Failing => return Err(Error::internal("this step can't be applied")),
            Temper::Panicking => panic!("this step is worse than an error"),
            Temper::Hanging => std::future::pending().await,
            Temper::Killing => std::process::abort(),
            Temper::Slow => {
                tracing::info!("{SLOW}");
                tokio::time::sleep(self.slow_for).await;
            }
        }
        self.mutate(ctx, tx, &step).await?;
        if step.kseq % ECHO_EVERY == 0 {
            let echo = Echo { key: format!("echo-{}", step.key), kseq: step.kseq, event_id: Uuid::new_v4() };
            echo.send(ctx, tx, step.temper).await?;
        }
        Ok(())
    }
}

/// Applies the echoes of steps.
pub(crate) struct Echoes {
    name: String,
}

impl Echoes {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self { name: settings.name.clone() }
    }
}

impl Consumer for Echoes {
    type Event = Echo;
    const GROUP: &'static str = "echoes";

    async fn handle(&self, ctx: &Context, tx: &Tx, echo: Echo) -> Result<()> {
        let applied = tx.query(APPLIED).bind(Self::GROUP).bind(echo.event_id).bind(echo.key.as_str()).bind(echo.kseq);
        applied.bind(self.name.as_str()).execute(ctx).await.map(drop)
    }
}
