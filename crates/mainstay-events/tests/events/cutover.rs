//! The way of events is changed while they are published and applied, by services that are configured differently.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_core::{Code, Context, Result};
use mainstay_events::broker::Broker;
use mainstay_events::testing::*;
use mainstay_events::{Events, EventsSettings};
use mainstay_sql::testing::Scene;
use mainstay_sql::{DatabaseSettings, Db};
use mainstay_telemetry::Metrics;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const STOP: Duration = Duration::from_secs(20);
/// Many, as a key has one event at a time on its way to a broker; and no more in the outbox than it can take soon.
const KEYS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
const DEPTH: i64 = 36;

fn embedded() -> Setup {
    quick().into()
}

fn through(broker: &TestBroker) -> Setup {
    Setup::through(broker.clone(), quick())
}

/// One failure in twenty, so that keys wait while their way changes.
fn moody() -> Probe {
    Probe::doing(|_, _, _| async {
        match uuid::Uuid::new_v4().as_u128().is_multiple_of(20) {
            true => Err(mainstay_core::Error::unavailable("not in the mood")),
            false => Ok(()),
        }
    })
}

async fn service(scene: &Scene, setup: Setup) -> Result<Service> {
    let settings = EventsSettings { max_attempts: 100, ..setup.settings.clone() };
    Service::start(scene, Setup { settings, ..setup }, |events| events.consume(moody())).await
}

/// Publishes the steps of all keys, one after another, until it is told to stop; returns how many each key has.
fn load(scene: &Scene, service: &Service) -> (CancellationToken, JoinHandle<Result<i64>>) {
    let (stop, ctx, db, events) =
        (CancellationToken::new(), scene.ctx.clone(), service.db.clone(), service.events.clone());
    let stopped = stop.clone();
    let publishing = tokio::spawn(async move {
        let mut number = 0;
        while !stopped.is_cancelled() {
            publish(&ctx, &db, KEYS.map(|key| Step::new(key, number))).await?;
            number += 1;
            while events.outbox(&ctx).await?.depth >= DEPTH && !stopped.is_cancelled() {
                ctx.run(tokio::time::sleep(Duration::from_millis(10))).await?;
            }
        }
        Ok(number)
    });
    (stop, publishing)
}

/// What the command does: declares the same events and starts nothing.
struct Command {
    events: Events,
    said: Arc<Mutex<Vec<String>>>,
}

impl Command {
    async fn new(scene: &Scene, setup: Setup) -> Result<Self> {
        let metrics = Metrics::new();
        let db = Db::new(&DatabaseSettings { ..scene.settings.clone() }, &metrics)?;
        db.connect(&scene.ctx).await?;
        let mut events = Events::new(&db, setup.settings, "test", &metrics)?;
        if let Some(broker) = setup.broker {
            events = events.through(broker)?;
        }
        events.consume(Probe::new())?;
        Ok(Self { events, said: Arc::default() })
    }

    async fn run(&self, ctx: &Context, from: Option<&TestBroker>) -> Result<()> {
        let from = from.map(|broker| Arc::new(broker.clone()) as Arc<dyn Broker>);
        self.events.cut_over(ctx, from, |said| self.said.lock().unwrap().push(said.to_owned())).await
    }

    fn has_said(&self, text: &str) -> bool {
        self.said.lock().unwrap().iter().any(|said| said.contains(text))
    }
}

async fn route(scene: &Scene, service: &Service) -> Result<(String, Option<String>)> {
    Ok(service.events.route(&scene.ctx).await?.unwrap())
}

/// Waits until a service knows whether it is its turn.
async fn knows(scene: &Scene, service: &Service, its_turn: bool) -> Result<()> {
    eventually(&scene.ctx, async || Ok((service.events.check_route().is_ok() == its_turn).then_some(()))).await
}

async fn progress(scene: &Scene) -> Result<()> {
    let before = applied(scene, "probe").await?.len();
    applied_count(scene, "probe", before + 2 * KEYS.len()).await.map(drop)
}

async fn all_once_and_in_order(scene: &Scene, published: i64) -> Result<()> {
    let applied = applied_count(scene, "probe", KEYS.len() * usize::try_from(published).unwrap()).await?;
    assert_in_order(&applied, &KEYS, published);
    Ok(())
}

pub(crate) async fn events_change_their_way_under_load_and_come_back(scene: Scene) -> Result<()> {
    prepare(&scene).await?;
    let broker = TestBroker::new();
    let old = service(&scene, embedded()).await?;
    let (stop, publishing) = load(&scene, &old);
    progress(&scene).await?;
    // A new one, which changes nothing by itself.
    let new = service(&scene, through(&broker)).await?;
    progress(&scene).await?;
    assert_eq!(new.events.check_route().unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(route(&scene, &new).await?, ("embedded".to_owned(), None));

    let command = Command::new(&scene, through(&broker)).await?;
    command.run(&scene.ctx, None).await?;
    assert_eq!(route(&scene, &new).await?, ("test".to_owned(), None));
    assert!(command.has_said("configured for embedded are 1"));
    progress(&scene).await?;
    knows(&scene, &new, true).await?;
    knows(&scene, &old, false).await?;
    // What went there has been taken in from there.
    eventually(&scene.ctx, async || {
        let taken_in: i64 = scene.db.query("SELECT count(*) FROM mainstay_inbox").one(&scene.ctx).await?;
        Ok((taken_in > 24).then_some(()))
    })
    .await?;
    command.run(&scene.ctx, None).await?; // once more does nothing

    let back = Command::new(&scene, embedded()).await?;
    let refused = back.run(&scene.ctx, None).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("--from"), "{refused:?}");
    back.run(&scene.ctx, Some(&broker)).await?;
    assert_eq!(route(&scene, &new).await?, ("embedded".to_owned(), None));
    progress(&scene).await?;
    // And once more the other way, with what is there from the first time.
    command.run(&scene.ctx, None).await?;
    progress(&scene).await?;
    knows(&scene, &old, false).await?;
    stop.cancel();
    let published = publishing.await.unwrap()?;
    all_once_and_in_order(&scene, published).await?;
    quiet(&scene, &new.events).await?;
    assert!(old.stop(STOP).await.is_empty());
    assert!(new.stop(STOP).await.is_empty());
    Ok(())
}

pub(crate) async fn a_cut_over_that_is_killed_is_begun_again_or_taken_back(scene: Scene) -> Result<()> {
    prepare(&scene).await?;
    let broker = TestBroker::new();
    let down = |down| broker.mood().down.store(down, Ordering::SeqCst);
    let old = service(&scene, through(&broker)).await?;
    let new = service(&scene, embedded()).await?;
    let (stop, publishing) = load(&scene, &old);
    progress(&scene).await?;
    let killed = async || -> Result<()> {
        down(true);
        let command = Command::new(&scene, embedded()).await?;
        tokio::select! {
            ended = command.run(&scene.ctx, Some(&broker)) => panic!("it ended: {ended:?}"),
            closed = eventually(&scene.ctx, async || Ok(route(&scene, &new).await?.1)) => closed.map(drop),
        }
    };
    killed().await?;
    assert_eq!(route(&scene, &new).await?, ("test".to_owned(), Some("embedded".to_owned())));
    // Taken back by whoever is configured for the old way.
    down(false);
    Command::new(&scene, through(&broker)).await?.run(&scene.ctx, None).await?;
    assert_eq!(route(&scene, &new).await?, ("test".to_owned(), None));
    progress(&scene).await?;
    // Begun again.
    killed().await?;
    down(false);
    Command::new(&scene, embedded()).await?.run(&scene.ctx, Some(&broker)).await?;
    progress(&scene).await?;
    // Given up, by a limit: what was closed is open again.
    Command::new(&scene, through(&broker)).await?.run(&scene.ctx, None).await?;
    down(true);
    let command = Command::new(&scene, embedded()).await?;
    let limit = scene.ctx.with_timeout(Duration::from_millis(300));
    let error = command.run(&limit, Some(&broker)).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
    assert!(command.has_said("given up"));
    assert_eq!(route(&scene, &new).await?, ("test".to_owned(), None));
    down(false);
    progress(&scene).await?;
    stop.cancel();
    let published = publishing.await.unwrap()?;
    all_once_and_in_order(&scene, published).await?;
    old.stop(STOP).await;
    new.stop(STOP).await;
    Ok(())
}

/// Where events were stored by a broker and their rows couldn't be deleted any more, they are applied once all the same:
/// whether they come back before their rows are moved, or after that.
pub(crate) async fn what_left_too_late_is_known_when_it_comes_back(scene: Scene) -> Result<()> {
    prepare(&scene).await?;
    let broker = TestBroker::new();
    let first = service(&scene, through(&broker)).await?;
    let ctx = &scene.ctx;
    publish(ctx, &first.db, [Step::new("a", 0)]).await?;
    applied_count(&scene, "probe", 1).await?;
    first.stop(STOP).await;
    // As a process leaves it that was suspended between the broker's answer and its own DELETE.
    for (number, comes_first) in [(1, true), (2, false)] {
        let publisher = service(&scene, through(&broker)).await?;
        let hold = "UPDATE mainstay_event_route SET next_route = 'embedded' WHERE id = 1";
        scene.db.query(hold).execute(ctx).await?;
        publish(ctx, &publisher.db, [Step::new("a", number)]).await?;
        let id: uuid::Uuid = scene.db.query("SELECT event_id FROM mainstay_outbox").one(ctx).await?;
        let id = id.to_string();
        let copy = || {
            let (broker, id) = (broker.clone(), id.clone());
            async move {
                let attributes =
                    [("specversion", "1.0"), ("id", id.as_str()), ("source", "test"), ("type", "test.step")];
                let attributes = [&attributes[..], &[("partitionkey", "a")]].concat();
                broker
                    .inject(ctx, "test.step", &attributes, format!(r#"{{"key":"a","number":{number}}}"#).as_bytes())
                    .await
            }
        };
        if comes_first {
            copy().await?;
            applied_count(&scene, "probe", usize::try_from(number).unwrap() + 1).await?;
        }
        let heir = service(&scene, embedded()).await?;
        Command::new(&scene, embedded()).await?.run(ctx, Some(&broker)).await?;
        applied_count(&scene, "probe", usize::try_from(number).unwrap() + 1).await?;
        if !comes_first {
            copy().await?;
        }
        // Behind the copy, through the same stream.
        Command::new(&scene, through(&broker)).await?.run(ctx, None).await?;
        assert_in_order(&applied(&scene, "probe").await?, &["a"], number + 1);
        heir.stop(STOP).await;
        publisher.stop(STOP).await;
    }
    Ok(())
}

pub(crate) async fn the_first_route_is_what_is_there(scene: Scene) -> Result<()> {
    prepare(&scene).await?;
    let (broker, ctx) = (TestBroker::new(), &scene.ctx);
    let forget = async || scene.db.query("DELETE FROM mainstay_event_route").execute(ctx).await;
    let first = service(&scene, embedded()).await?;
    assert_eq!(route(&scene, &first).await?.0, "embedded");
    first.stop(STOP).await;
    // Tables without the row, from before there was one, where nothing has happened yet.
    forget().await?;
    let fresh = service(&scene, through(&broker)).await?;
    assert_eq!(route(&scene, &fresh).await?.0, "test");
    fresh.stop(STOP).await;
    // Where events have gone the embedded way.
    forget().await?;
    let old = service(&scene, embedded()).await?;
    publish(ctx, &old.db, [Step::new("a", 0)]).await?;
    applied_count(&scene, "probe", 1).await?;
    forget().await?;
    scene.db.query("DELETE FROM mainstay_event_intakes").execute(ctx).await?;
    let waits = service(&scene, through(&broker)).await?;
    assert_eq!(route(&scene, &waits).await?.0, "embedded");
    Command::new(&scene, through(&broker)).await?.run(ctx, None).await?;
    waits.stop(STOP).await;
    old.stop(STOP).await;
    // Where they have come from a broker.
    forget().await?;
    let goes_on = service(&scene, through(&broker)).await?;
    assert_eq!(route(&scene, &goes_on).await?.0, "test");
    goes_on.stop(STOP).await;
    // What is at a broker would be left behind; nothing is by the embedded way, once nobody goes it any more.
    let alone = service(&scene, embedded()).await?;
    assert_eq!(route(&scene, &alone).await?.0, "test");
    scene.db.query("UPDATE mainstay_event_route SET route = 'embedded'").execute(ctx).await?;
    alone.stop(STOP).await;
    let alone = service(&scene, through(&broker)).await?;
    assert_eq!(route(&scene, &alone).await?.0, "test");
    alone.stop(STOP).await;
    Ok(())
}

pub(crate) async fn a_cut_over_waits_for_those_who_would_not_look(scene: Scene) -> Result<()> {
    prepare(&scene).await?;
    let (broker, ctx) = (TestBroker::new(), &scene.ctx);
    let command = Command::new(&scene, through(&broker)).await?;
    let missing = async |text: &str| {
        let error = command.run(&ctx.with_timeout(Duration::from_secs(2)), None).await.unwrap_err();
        assert!(error.message().contains(text), "{error:?}");
    };
    let old = service(&scene, embedded()).await?;
    missing("no process runs that is configured for test").await;
    let new = service(&scene, through(&broker)).await?;
    // A process of before there was a route.
    let older = "INSERT INTO mainstay_event_members (name, owner, seen_at) SELECT $1, $2, seen_at + 3600000 \
                 FROM mainstay_event_members WHERE name = '(route) embedded'";
    scene.db.query(older).bind("probe").bind(uuid::Uuid::new_v4()).execute(ctx).await?;
    missing("1 of an older version").await;
    assert_eq!(route(&scene, &new).await?.0, "embedded");
    scene
        .db
        .query(
            "DELETE FROM mainstay_event_members WHERE seen_at > (SELECT * FROM (SELECT max(seen_at) - 1 FROM \
                    mainstay_event_members) m)",
        )
        .execute(ctx)
        .await?;
    command.run(ctx, None).await?;
    let elsewhere = Command::new(&scene, Setup::through(TestBroker::new(), quick())).await?;
    elsewhere.run(ctx, None).await?; // of the same name: nothing to do
    old.stop(STOP).await;
    new.stop(STOP).await;
    Ok(())
}

pub(crate) async fn from_broker_to_broker_the_way_is_by_the_embedded_one(scene: Scene) -> Result<()> {
    prepare(&scene).await?;
    let (one, other, ctx) = (TestBroker::new(), TestBroker::new().named("other"), &scene.ctx);
    let first = service(&scene, through(&one)).await?;
    publish(ctx, &first.db, (0..20).map(|number| Step::new("a", number))).await?;
    applied_count(&scene, "probe", 20).await?;
    let direct = Command::new(&scene, through(&other)).await?.run(ctx, Some(&one)).await.unwrap_err();
    assert!(direct.message().contains("go to the embedded one first"), "{direct:?}");
    let between = service(&scene, embedded()).await?;
    Command::new(&scene, embedded()).await?.run(ctx, Some(&one)).await?;
    first.stop(STOP).await;
    publish(ctx, &between.db, (20..40).map(|number| Step::new("a", number))).await?;
    // There, others have published before: the place in the first broker's stream says nothing of this one's.
    for number in 0..40 {
        let id = uuid::Uuid::new_v4().to_string();
        let attributes = [("specversion", "1.0"), ("id", id.as_str()), ("source", "other"), ("type", "test.step")];
        let attributes = [&attributes[..], &[("partitionkey", "b")]].concat();
        other.inject(ctx, "test.step", &attributes, format!(r#"{{"key":"b","number":{number}}}"#).as_bytes()).await?;
    }
    let last = service(&scene, through(&other)).await?;
    Command::new(&scene, through(&other)).await?.run(ctx, None).await?;
    assert_eq!(route(&scene, &last).await?.0, "other");
    assert_in_order(&applied_count(&scene, "probe", 80).await?, &["a", "b"], 40);
    between.stop(STOP).await;
    last.stop(STOP).await;
    Ok(())
}
