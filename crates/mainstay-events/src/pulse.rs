//! The pulse of a process's events: looks where the log and the outbox stand, moves what waits, wakes who waits for it.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{Context, Result};
use mainstay_telemetry::trace::{self, SpanKind, Tracer};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::lease::RELAY;
use crate::relay::Relay;
use crate::route::Turn;
use crate::{log, retry, route, schema};

/// How often, in looks, what nobody waits for is looked at: paused groups, free partitions.
const RARELY: u32 = 5;

/// The longest pause while the database can't be reached.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Goes on until `stop`; then moves what is left in the outbox of our partitions, until `ctx` is done.
pub(crate) async fn pulse(engine: Arc<Engine>, ctx: Context, stop: CancellationToken) {
    let poll = engine.settings.poll_interval;
    let mut pause = poll;
    let (mut looks, mut looked) = (0_u32, None::<Instant>);
    let mut relay = engine.broker.clone().map(Relay::new);
    while !stop.is_cancelled() {
        let moved = match beat(&engine, &ctx, relay.as_mut()).await {
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
    // What is published meanwhile is for those who stay: who is asked to end doesn't go on for as long as somebody publishes.
    let Ok(Some(last)) = log::last_waiting(&ctx, &engine.db).await else { return };
    while !ctx.is_done() && matches!(beat(&engine, &ctx, relay.as_mut()).await, Ok(moved) if moved > 0) {
        let ours = engine.leases.held(RELAY);
        if !matches!(log::first_waiting(&ctx, &engine.db, ours).await, Ok(Some(first)) if first <= last) {
            return;
        }
    }
}

/// One look, and a piece of work of the relay if something waits; returns how many events have left the outbox.
async fn beat(engine: &Engine, ctx: &Context, relay: Option<&mut Relay>) -> Result<u64> {
    let ours = engine.leases.held(RELAY);
    let (mut waiting, mut turn) = (Vec::new(), engine.standing.turn());
    for head in log::heads(ctx, &engine.db, &engine.standing.ours).await? {
        engine.board.advance(head.part, head.next_off);
        turn = head.turn();
        if head.has_waiting() && ours.contains(&head.part) {
            waiting.push(head.part);
        }
    }
    if engine.standing.note(turn) {
        // Whose turn it is has the leases of the relay.
        engine.look.notify_one();
        engine.metrics.held.set(i64::from(turn != Turn::Ours));
        if let Some(route) = route::read(ctx, &engine.db).await? {
            engine.standing.tell(&route);
        }
    }
    if waiting.is_empty() || turn != Turn::Ours {
        return Ok(0);
    }
    let span = Tracer::of(ctx).and_then(|tracer| tracer.begin(ctx, None, SpanKind::Internal, || "relay events".into()));
    let ctx = trace::context(&span, ctx);
    if let Some(relay) = relay {
        let sent = relay.send_waiting(engine, ctx, &waiting).await?;
        engine.metrics.moved.inc_by(sent);
        return Ok(sent);
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
        if engine.leases.any_free(ctx, engine.standing.takes_part()).await? {
            engine.look.notify_one();
        }
    }
    Ok(())
}
