//! The pulse of a process's events: looks where the log and the outbox stand, moves what waits, wakes who waits for it.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{Context, Result};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::lease::RELAY;
use crate::{log, retry, schema};

/// How often, in looks, what nobody waits for is looked at: paused groups, free partitions.
const RARELY: u32 = 5;

/// The longest pause while the database can't be reached.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Goes on until `stop`; then moves what is left in the outbox of our partitions, until `ctx` is done.
pub(crate) async fn pulse(engine: Arc<Engine>, ctx: Context, stop: CancellationToken) {
    let poll = engine.settings.poll_interval;
    let mut pause = poll;
    let (mut looks, mut looked) = (0_u32, None::<Instant>);
    while !stop.is_cancelled() {
        let moved = match beat(&engine, &ctx).await {
            Ok(moved) => moved,
            Err(_) if ctx.is_done() => return,
            Err(error) => {
                tracing::warn!(target: "mainstay::events", error = %error.report(), "events can't be moved now");
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = sleep(pause) => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
        };
        pause = poll;
        if looked.is_none_or(|looked| looked.elapsed() >= poll) {
            looked = Some(Instant::now());
            looks = looks.wrapping_add(1);
            // What failed is looked at again with the next beat.
            let _ = look(&engine, &ctx, looks % RARELY == 1).await;
        }
        if moved == 0 {
            tokio::select! {
                () = stop.cancelled() => {}
                _ = ctx.done() => return,
                () = engine.outbox.wake.notified() => {}
                () = sleep(poll) => {}
            }
        }
    }
    while !ctx.is_done() && matches!(beat(&engine, &ctx).await, Ok(moved) if moved > 0) {}
}

/// One look, and one transaction of the relay if something waits.
async fn beat(engine: &Engine, ctx: &Context) -> Result<u64> {
    let ours = engine.leases.held(RELAY);
    let mut waiting = Vec::new();
    for head in log::heads(ctx, &engine.db).await? {
        engine.board.advance(head.part, head.next_off);
        if head.has_waiting() && ours.contains(&head.part) {
            waiting.push(head.part);
        }
    }
    if waiting.is_empty() {
        return Ok(0);
    }
    let (moved, ends) = log::move_waiting(ctx, &engine.db, &waiting).await?;
    for (part, end) in ends {
        engine.board.advance(part, end);
    }
    engine.metrics.moved.inc_by(moved);
    Ok(moved)
}

async fn look(engine: &Engine, ctx: &Context, rarely: bool) -> Result<()> {
    for group in engine.group_names() {
        for part in retry::due_parts(ctx, &engine.db, group).await? {
            if let Some(lane) = engine.board.due(group, part) {
                lane.notify_one();
            }
        }
    }
    if rarely {
        engine.board.pause(schema::paused(ctx, &engine.db).await?.into_iter().collect());
        if engine.leases.any_free(ctx).await? {
            engine.look.notify_one();
        }
    }
    Ok(())
}
