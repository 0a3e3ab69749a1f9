//! From the transaction that publishes to every group.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_core::{Code, Context, Error, Result, Trace};
use mainstay_sql::Tx;
use mainstay_sql::testing::Scene;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::scene::*;
use crate::{Consumer, Envelope, Event, Publish, PublishOptions, Start};

const STOP: Duration = Duration::from_secs(20);

/// A second group.
struct Other;

impl Consumer for Other {
    type Event = Step;
    const GROUP: &'static str = "other";

    async fn handle(&self, ctx: &Context, tx: &Tx, step: Step) -> Result<()> {
        write_down(ctx, tx, Self::GROUP, &step).await
    }
}

pub(super) async fn an_event_reaches_every_group_once(scene: Scene, setup: Setup) -> Result<()> {
    prepare(&scene).await?;
    let service = Service::start(&scene, setup, |events| {
        events.consume(Probe::new())?;
        events.consume(Other)
    })
    .await?;
    for number in 0..10 {
        publish(&scene.ctx, &service.db, [Step::new("a", number), Step::new("b", number)]).await?;
    }
    for group in ["probe", "other"] {
        assert_in_order(&applied_count(&scene, group, 20).await?, &["a", "b"], 10);
    }
    quiet(&scene, &service.events).await?;
    assert!(service.stop(STOP).await.is_empty());
    Ok(())
}

pub(super) async fn what_is_rolled_back_was_never_published(scene: Scene, setup: Setup) -> Result<()> {
    prepare(&scene).await?;
    let service = Service::start(&scene, setup, |events| events.consume(Probe::new())).await?;
    let (ctx, db) = (&scene.ctx, &service.db);
    let failed: Result<()> = db
        .transaction(ctx, |tx| async move {
            tx.publish(Step::new("a", -1))?;
            Err(Error::aborted("the closure fails"))
        })
        .await;
    assert_eq!(failed.unwrap_err().code(), Code::Aborted);
    // A savepoint that is undone takes its events with it; one that is kept keeps them, in their place.
    db.transaction(ctx, |tx| async move {
        tx.publish(Step::new("a", 0))?;
        let undone: Result<()> = tx
            .transaction(ctx, |inner| async move {
                inner.publish(Step::new("a", -2))?;
                Err(Error::aborted("the savepoint fails"))
            })
            .await;
        assert!(undone.is_err());
        tx.transaction(ctx, |inner| async move { inner.publish(Step::new("a", 1)).map(drop) }).await?;
        tx.publish(Step::new("a", 2)).map(drop)
    })
    .await?;
    assert_in_order(&applied_count(&scene, "probe", 3).await?, &["a"], 3);
    quiet(&scene, &service.events).await?;
    assert_in_order(&applied(&scene, "probe").await?, &["a"], 3);
    service.stop(STOP).await;
    Ok(())
}

/// What [`Relay`] publishes.
#[derive(Deserialize, Serialize)]
struct Echo {
    number: i64,
}

impl Event for Echo {
    const TYPE: &'static str = "test.echo";
}

/// Publishes an echo of each step, and fails once after it has.
struct Relay(Arc<Mutex<BTreeMap<i64, u32>>>);

impl Consumer for Relay {
    type Event = Step;
    const GROUP: &'static str = "relay";

    async fn handle(&self, _: &Context, tx: &Tx, step: Step) -> Result<()> {
        tx.publish(Echo { number: step.number })?;
        let mut runs = self.0.lock().unwrap();
        let run = runs.entry(step.number).or_default();
        *run += 1;
        if *run == 1 { Err(Error::unavailable("the first run fails")) } else { Ok(()) }
    }
}

struct Hear;

impl Consumer for Hear {
    type Event = Echo;
    const GROUP: &'static str = "hear";

    async fn handle(&self, ctx: &Context, tx: &Tx, echo: Echo) -> Result<()> {
        write_down(ctx, tx, Self::GROUP, &Step::new("echo", echo.number)).await
    }
}

pub(super) async fn events_of_a_handler_are_published_with_its_effect(scene: Scene, setup: Setup) -> Result<()> {
    prepare(&scene).await?;
    let service = Service::start(&scene, setup, |events| {
        events.consume(Relay(Arc::default()))?;
        events.consume(Hear)
    })
    .await?;
    publish(&scene.ctx, &service.db, (0..5).map(|number| Step::new(number.to_string(), number))).await?;
    applied_count(&scene, "hear", 5).await?;
    quiet(&scene, &service.events).await?;
    let mut heard: Vec<i64> = applied(&scene, "hear").await?.into_iter().map(|(_, number)| number).collect();
    heard.sort_unstable();
    assert_eq!(heard, [0, 1, 2, 3, 4], "what the failed runs published was undone with them");
    service.stop(STOP).await;
    Ok(())
}

pub(super) async fn an_event_arrives_with_all_that_was_said_about_it(scene: Scene, setup: Setup) -> Result<()> {
    prepare(&scene).await?;
    type Seen = Vec<(Envelope, Option<Trace>)>;
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let seeing = seen.clone();
    let probe = Probe::doing(move |ctx, _, envelope| {
        seeing.lock().unwrap().push((envelope.clone(), ctx.trace().cloned()));
        async { Ok(()) }
    });
    let service = Service::start(&scene, setup, |events| events.consume(probe)).await?;
    let trace = Trace { state: Some("vendor=1".into()), baggage: Some("tenant=7".into()), ..Trace::generate() };
    let ctx = scene.ctx.with_trace(trace.clone());
    let id = Uuid::now_v7();
    let published = service.db.transaction(&ctx, |tx| async move {
        let options = PublishOptions::new().id(id).header("tenant", "seven");
        tx.publish_with(Step::new("ключ", 0), options)
    });
    assert_eq!(published.await?, id);
    applied_count(&scene, "probe", 1).await?;
    let (envelope, handled_in) = seen.lock().unwrap().pop().unwrap();
    assert_eq!((envelope.id, envelope.event_type.as_str(), envelope.attempt), (id, "test.step", 1));
    assert_eq!((envelope.key.as_deref(), envelope.meta.source.as_str()), (Some("ключ"), "test"));
    assert_eq!(envelope.meta.headers["tenant"], "seven");
    let handled_in = handled_in.unwrap();
    assert_eq!(handled_in.trace_id, trace.trace_id);
    assert_ne!(handled_in.span_id, trace.span_id);
    assert_eq!((handled_in.state, handled_in.baggage), (trace.state, trace.baggage));
    service.stop(STOP).await;
    Ok(())
}

struct Late;

impl Consumer for Late {
    type Event = Step;
    const GROUP: &'static str = "late";
    const START: Start = Start::Latest;

    async fn handle(&self, ctx: &Context, tx: &Tx, step: Step) -> Result<()> {
        write_down(ctx, tx, Self::GROUP, &step).await
    }
}

pub(super) async fn a_new_group_begins_where_it_says(scene: Scene, setup: Setup) -> Result<()> {
    prepare(&scene).await?;
    let service = Service::start(&scene, setup.clone(), |events| events.consume(Probe::new())).await?;
    publish(&scene.ctx, &service.db, (0..3).map(|number| Step::new("a", number))).await?;
    applied_count(&scene, "probe", 3).await?;
    quiet(&scene, &service.events).await?;
    service.stop(STOP).await;

    let service = Service::start(&scene, setup, |events| {
        events.consume(Other)?;
        events.consume(Late)
    })
    .await?;
    publish(&scene.ctx, &service.db, [Step::new("a", 3)]).await?;
    assert_in_order(&applied_count(&scene, "other", 4).await?, &["a"], 4);
    assert_eq!(applied_count(&scene, "late", 1).await?, [("a".to_owned(), 3)]);
    service.stop(STOP).await;
    Ok(())
}

pub(super) async fn a_paused_group_waits(scene: Scene, setup: Setup) -> Result<()> {
    prepare(&scene).await?;
    let service = Service::start(&scene, setup, |events| {
        events.consume(Probe::new())?;
        events.consume(Other)
    })
    .await?;
    let (ctx, events) = (&scene.ctx, &service.events);
    assert_eq!(events.pause(ctx, "nobody").await.unwrap_err().code(), Code::NotFound);
    events.pause(ctx, "probe").await?;
    // Told within a few looks: until then a step may slip through, so they are published until one stays.
    let mut published = 0;
    eventually(ctx, async || {
        publish(ctx, &service.db, [Step::new("a", published)]).await?;
        published += 1;
        applied_count(&scene, "other", usize::try_from(published).unwrap()).await?;
        let behind = events.lag(ctx).await?.into_iter().find(|group| group.group == "probe").unwrap();
        assert!(behind.paused);
        Ok((behind.lag >= 2).then_some(()))
    })
    .await?;
    events.resume(ctx, "probe").await?;
    assert_in_order(&applied_count(&scene, "probe", usize::try_from(published).unwrap()).await?, &["a"], published);
    service.stop(STOP).await;
    Ok(())
}

pub(super) async fn a_paused_group_waits_in_processes_that_start(scene: Scene, setup: Setup) -> Result<()> {
    prepare(&scene).await?;
    let start = || {
        Service::start(&scene, setup.clone(), |events| {
            events.consume(Probe::new())?;
            events.consume(Other)
        })
    };
    let service = start().await?;
    service.events.pause(&scene.ctx, "probe").await?;
    service.stop(STOP).await;
    for number in 0..4 {
        let service = start().await?;
        publish(&scene.ctx, &service.db, [Step::new("a", number)]).await?;
        applied_count(&scene, "other", usize::try_from(number + 1).unwrap()).await?;
        service.stop(STOP).await;
        assert!(applied(&scene, "probe").await?.is_empty());
    }
    let service = start().await?;
    service.events.resume(&scene.ctx, "probe").await?;
    assert_in_order(&applied_count(&scene, "probe", 4).await?, &["a"], 4);
    service.stop(STOP).await;
    Ok(())
}
