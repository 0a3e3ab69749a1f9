//! What keeps the tables bounded, and what counts them: done by whoever has the relay's first partition.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{Context, Result};
use tokio::time::sleep;

use crate::engine::Engine;
use crate::lease::RELAY;
use crate::metrics::{GroupLabels, NameLabels};
use crate::relay::REFUSED;
use crate::{dead, intake, log, operate, route, schema};

/// Between two rounds.
const PERIOD: Duration = Duration::from_secs(5);

/// Cleans and counts until it is aborted; each of its statements may be.
pub(crate) async fn janitor(engine: Arc<Engine>, ctx: Context) {
    let period = PERIOD.min(engine.settings.lease).min(engine.settings.retention.max(Duration::from_millis(500)));
    while !ctx.is_done() {
        sleep(period).await;
        if let Err(error) = round(&engine, &ctx).await
            && !ctx.is_done()
        {
            tracing::debug!(target: "mainstay::events", error = %error.report(), "cleaning up after events");
        }
    }
}

async fn round(engine: &Engine, ctx: &Context) -> Result<()> {
    count(engine, ctx).await?;
    for group in engine.group_names() {
        schema::seen(ctx, &engine.db, group).await?;
    }
    if engine.leases.held(RELAY).contains(&0) {
        let settings = &engine.settings;
        let removed = log::remove_applied(ctx, &engine.db, settings.retention, settings.group_expiry).await?;
        tracing::trace!(target: "mainstay::events", removed, "removed applied events");
        intake::forget(ctx, &engine.db, settings.inbox_retention).await?;
        route::forget(ctx, &engine.db).await?;
        engine.leases.clean(ctx).await?;
    }
    // Where a lane of ours is at work, it does so itself.
    engine.blameless.take_back(ctx, &engine.db, |(group, part)| !engine.leases.holds((group, part))).await
}

async fn count(engine: &Engine, ctx: &Context) -> Result<()> {
    let metrics = &engine.metrics;
    let outbox = operate::outbox(ctx, &engine.db).await?;
    metrics.outbox_depth.set(outbox.depth);
    metrics.outbox_oldest.set(outbox.oldest_age.map_or(0, |age| i64::try_from(age.as_secs()).unwrap_or(i64::MAX)));
    for group in operate::lag(ctx, &engine.db).await? {
        let labels = GroupLabels::of(&group.group);
        metrics.lag.get_or_create(&labels).set(group.lag);
        metrics.retries.get_or_create(&labels).set(group.retries);
        metrics.dead.get_or_create(&labels).set(group.dead);
    }
    for name in [REFUSED, intake::INTAKE] {
        if engine.broker.is_some() {
            let dead = dead::count(ctx, &engine.db, name).await?;
            metrics.dead.get_or_create(&GroupLabels::of(name)).set(dead);
        }
    }
    for name in engine.lease_names() {
        let label = if name == RELAY { "relay" } else { name };
        let held = i64::try_from(engine.leases.held(name).len()).unwrap_or(i64::MAX);
        metrics.leases.get_or_create(&NameLabels { name: label.to_owned() }).set(held);
    }
    Ok(())
}
