//! A broker that is a server of its own: what is particular about it. The suite says what is not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mainstay_core::{Code, Component, Context, Result};
use mainstay_events::testing::*;
use mainstay_events::{Consumer, Event, Events, EventsSettings, Publish};
use mainstay_sql::Tx;
use mainstay_sql::testing::Scene;
use mainstay_telemetry::Metrics;
use tokio::sync::Semaphore;

const STOP: Duration = Duration::from_secs(20);

pub(crate) async fn what_the_broker_refuses_becomes_a_dead_letter(scene: Scene) -> Result<()> {
    prepare(&scene).await?;
    let setup = Setup::through(TestBroker::new(), quick());
    let service = Service::start(&scene, setup, |events| events.consume(Probe::new())).await?;
    let (ctx, events) = (&scene.ctx, &service.events);
    let steps = (0..5).flat_map(|number| [Step::new("a", number), Step::new("refused", number)]);
    publish(ctx, &service.db, steps).await?;
    assert_in_order(&applied_count(&scene, "probe", 5).await?, &["a"], 5);
    let refused = async |count: usize| {
        eventually(ctx, async || {
            let letters = events.dead_letters(ctx, Some("(relay)"), 0, 10).await?;
            Ok((letters.len() == count).then_some(letters))
        })
        .await
    };
    let letters = refused(5).await?;
    for letter in &letters {
        assert_eq!((letter.reason.as_str(), letter.event_key.as_deref()), ("refused", Some("refused")));
        assert!(letter.error.contains("takes no such key"), "{letter:?}");
    }
    // It is sent again, once, and refused again.
    assert!(events.redrive(ctx, letters[0].id).await?);
    assert!(!events.redrive(ctx, letters[0].id).await?);
    let again = refused(5).await?;
    assert!(again.iter().any(|letter| letter.event_id == letters[0].event_id && letter.id != letters[0].id));
    for letter in again {
        assert!(events.discard(ctx, letter.id).await?);
    }
    quiet(&scene, events).await?;
    service.stop(STOP).await;
    Ok(())
}

pub(crate) async fn a_broker_that_is_down_delays_and_loses_nothing(scene: Scene) -> Result<()> {
    prepare(&scene).await?;
    let broker = TestBroker::new();
    let down = |down| broker.mood().down.store(down, Ordering::SeqCst);
    down(true);
    let setup = Setup::through(broker.clone(), quick());
    let service = Service::start(&scene, setup, |events| events.consume(Probe::new())).await?;
    let step = async |number| publish(&scene.ctx, &service.db, ["a", "b"].map(|key| Step::new(key, number))).await;
    for number in 0..10 {
        step(number).await?;
    }
    assert_eq!(service.events.outbox(&scene.ctx).await?.depth, 20, "it waits where it was published");
    down(false);
    applied_count(&scene, "probe", 20).await?;
    for number in 10..40 {
        down(number % 4 == 0);
        step(number).await?;
    }
    down(false);
    assert_in_order(&applied_count(&scene, "probe", 80).await?, &["a", "b"], 40);
    quiet(&scene, &service.events).await?;
    service.stop(STOP).await;
    Ok(())
}

/// An event on a topic that the broker would lose.
#[derive(serde::Deserialize, serde::Serialize)]
struct Forgettable;

impl Event for Forgettable {
    const TYPE: &'static str = "test.memory";
}

struct Forget;

impl Consumer for Forget {
    type Event = Forgettable;
    const GROUP: &'static str = "forget";

    async fn handle(&self, _: &Context, _: &Tx, _: Forgettable) -> Result<()> {
        Ok(())
    }
}

pub(crate) async fn a_topic_that_would_lose_events_is_refused_at_the_start(scene: Scene) -> Result<()> {
    let events = Events::new(&scene.db, quick(), "test", &Metrics::new())?.through(TestBroker::new())?;
    events.consume(Forget)?;
    let refused = events.start(&scene.ctx).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let text = refused.report().to_string();
    assert!(text.contains("opening the topic `test.memory`") && text.contains("make it durable"), "{text}");
    Ok(())
}

/// An event that a bug of the adapter meets.
#[derive(serde::Deserialize, serde::Serialize)]
struct Unlucky(String);

impl Event for Unlucky {
    const TYPE: &'static str = "test.unlucky";

    fn key(&self) -> Option<String> {
        Some(self.0.clone())
    }
}

struct Lucky(tokio::sync::mpsc::UnboundedSender<String>);

impl Consumer for Lucky {
    type Event = Unlucky;
    const GROUP: &'static str = "lucky";

    async fn handle(&self, _: &Context, _: &Tx, Unlucky(key): Unlucky) -> Result<()> {
        let _ = self.0.send(key);
        Ok(())
    }
}

pub(crate) async fn an_adapter_that_panics_holds_up_the_topic_and_nothing_else(scene: Scene) -> Result<()> {
    prepare(&scene).await?;
    let broker = TestBroker::new();
    let panics = |panics| broker.mood().panics.store(panics, Ordering::SeqCst);
    let (lucky, mut keys) = tokio::sync::mpsc::unbounded_channel();
    let service = Service::start(&scene, Setup::through(broker.clone(), quick()), |events| {
        events.consume(Lucky(lucky))?;
        events.consume(Probe::new())
    })
    .await?;
    let ctx = &scene.ctx;
    for (round, key) in ["unsendable", "unreadable"].into_iter().enumerate() {
        panics(true);
        service.db.transaction(ctx, |tx| async move { tx.publish(Unlucky(key.to_owned())) }).await?;
        let steps = (0..20).map(|number| Step::new("a", 20 * i64::try_from(round).unwrap() + number));
        publish(ctx, &service.db, steps).await?;
        assert_in_order(&applied_count(&scene, "probe", 20 * (round + 1)).await?, &["a"], 20 * (round as i64 + 1));
        assert!(keys.try_recv().is_err(), "{key} came through");
        panics(false);
        assert_eq!(ctx.run(keys.recv()).await?.as_deref(), Some(key));
    }
    quiet(&scene, &service.events).await?;
    service.stop(STOP).await;
    Ok(())
}

pub(crate) async fn what_strangers_send_is_applied_or_kept_with_the_reason(scene: Scene) -> Result<()> {
    prepare(&scene).await?;
    // The second one's streams end before the places that were reached in the first one's.
    for (round, broker) in [TestBroker::new(), TestBroker::new().queue()].into_iter().enumerate() {
        scene.db.query("DELETE FROM applied").execute(&scene.ctx).await?;
        let setup = Setup::through(broker.clone(), quick());
        let service = Service::start(&scene, setup, |events| events.consume(Probe::new())).await?;
        let (no_uuid, no_event) = (format!("not a UUID {round}"), format!("no event {round}"));
        let (ctx, events) = (&scene.ctx, &service.events);
        let id = uuid::Uuid::new_v4().to_string();
        let attributes = [("specversion", "1.0"), ("id", &id), ("source", "/legacy"), ("type", "test.step")];
        let send = async |attributes: &[(&str, &str)], payload: &str| {
            broker.inject(ctx, "test.step", attributes, payload.as_bytes()).await
        };
        send(&attributes, r#"{"key":"a","number":0}"#).await?;
        send(&attributes, r#"{"key":"a","number":0}"#).await?; // a stranger's second try
        send(&attributes[1..], &no_event).await?;
        let other = [attributes[0], ("id", no_uuid.as_str()), attributes[2], attributes[3]];
        send(&other, r#"{"key":"a","number":1}"#).await?;
        let mut applied = applied_count(&scene, "probe", 2).await?;
        applied.sort();
        assert_in_order(&applied, &["a"], 2);
        let letter =
            eventually(ctx, async || Ok(events.dead_letters(ctx, Some("(intake)"), 0, 10).await?.pop())).await?;
        assert_eq!(letter.reason, "undecodable");
        assert!(letter.error.contains("`specversion` is missing"), "{letter:?}");
        let (_, shown) = events.dead_letter(ctx, letter.id).await?;
        assert_eq!(shown["data"], no_event);
        let refused = events.redrive(ctx, letter.id).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(events.discard(ctx, letter.id).await?);
        service.stop(STOP).await;
    }
    Ok(())
}

pub(crate) async fn what_groups_cannot_take_yet_stays_with_the_broker(scene: Scene) -> Result<()> {
    prepare(&scene).await?;
    let open = Arc::new(Semaphore::new(0));
    let gate = open.clone();
    let probe = Probe::doing(move |_, _, _| {
        let gate = gate.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            Ok(())
        }
    });
    let settings = EventsSettings { max_backlog: 10, partitions: 1, batch: 1, ..quick() };
    let broker = TestBroker::new();
    let publisher = Service::start(&scene, Setup::through(broker.clone(), settings.clone()), |_| Ok(())).await?;
    publish(&scene.ctx, &publisher.db, (0..100).map(|number| Step::new("a", number))).await?;
    eventually(&scene.ctx, async || Ok((publisher.events.outbox(&scene.ctx).await?.depth == 0).then_some(()))).await?;
    let service = Service::start(&scene, Setup::through(broker, settings), |events| events.consume(probe)).await?;
    for step in 0..100 {
        open.add_permits(1);
        applied_count(&scene, "probe", step + 1).await?;
        let lag = service.events.lag(&scene.ctx).await?[0].lag;
        assert!(lag < 20, "{lag} after {step}"); // less than the limit before a batch, which is no larger
    }
    assert_in_order(&applied(&scene, "probe").await?, &["a"], 100);
    service.stop(STOP).await;
    publisher.stop(STOP).await;
    Ok(())
}

pub(crate) async fn the_inbox_forgets(scene: Scene) -> Result<()> {
    prepare(&scene).await?;
    let settings = EventsSettings { retention: Duration::ZERO, inbox_retention: Duration::from_millis(200), ..quick() };
    let setup = Setup::through(TestBroker::new(), settings);
    let service = Service::start(&scene, setup, |events| events.consume(Probe::new())).await?;
    publish(&scene.ctx, &service.db, (0..300).map(|number| Step::new((number % 30).to_string(), number))).await?;
    applied_count(&scene, "probe", 300).await?;
    for table in ["SELECT count(*) FROM mainstay_inbox", "SELECT count(*) FROM mainstay_event_log"] {
        eventually(&scene.ctx, async || Ok((scene.db.query(table).one::<i64>(&scene.ctx).await? == 0).then_some(())))
            .await?;
    }
    quiet(&scene, &service.events).await?;
    service.stop(STOP).await;
    Ok(())
}
