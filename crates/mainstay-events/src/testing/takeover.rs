//! Services that end, in order or not, and those that go on with their work.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::Result;
use mainstay_sql::testing::Scene;
use tokio::sync::Notify;

use super::scene::*;
use crate::EventsSettings;

const STOP: Duration = Duration::from_secs(20);

pub(super) async fn a_killed_service_loses_nothing_and_doubles_nothing(
    scene: Scene,
    settings: EventsSettings,
) -> Result<()> {
    prepare(&scene).await?;
    let publisher = Service::start(&scene, settings.clone(), |_| Ok(())).await?;
    for round in 0..4_i64 {
        let service = Service::start(&scene, settings.clone(), |events| events.consume(Probe::new())).await?;
        publish(&scene.ctx, &publisher.db, (round * 25..round * 25 + 25).map(|number| Step::new("a", number))).await?;
        // In the middle of it.
        applied_count(&scene, "probe", usize::try_from(round * 25 + 1).unwrap()).await?;
        service.kill().await;
    }
    let service = Service::start(&scene, settings, |events| events.consume(Probe::new())).await?;
    assert_in_order(&applied_count(&scene, "probe", 100).await?, &["a"], 100);
    quiet(&scene, &service.events).await?;
    assert_in_order(&applied(&scene, "probe").await?, &["a"], 100);
    service.stop(STOP).await;
    publisher.stop(STOP).await;
    Ok(())
}

/// A probe whose first run waits to be let go.
fn gated() -> (Probe, Arc<Notify>, Arc<Notify>) {
    let (entered, open) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (enter, gate) = (entered.clone(), open.clone());
    let probe = Probe::doing(move |_, step, _| {
        let gate = (step.number == 0).then(|| (enter.clone(), gate.clone()));
        async move {
            if let Some((enter, gate)) = gate {
                enter.notify_one();
                gate.notified().await;
            }
            Ok(())
        }
    });
    (probe, entered, open)
}

pub(super) async fn a_stop_finishes_what_is_in_hand_and_gives_the_rest_away(
    scene: Scene,
    settings: EventsSettings,
) -> Result<()> {
    prepare(&scene).await?;
    // A lease that nobody waits for: what goes on after the stop was given away.
    let settings = EventsSettings { lease: Duration::from_secs(60), batch: 1, ..settings };
    let (probe, entered, open) = gated();
    let first = Service::start(&scene, settings.clone(), |events| events.consume(probe)).await?;
    publish(&scene.ctx, &first.db, (0..5).map(|number| Step::new("a", number))).await?;
    entered.notified().await;
    let mut stopping = Box::pin(first.stop(STOP));
    assert!(futures_util::poll!(&mut stopping).is_pending()); // it has begun
    open.notify_one();
    assert!(stopping.await.is_empty(), "nothing was cut");
    assert_eq!(applied(&scene, "probe").await?, [("a".to_owned(), 0)], "what was in hand was finished, and no more");
    let second = Service::start(&scene, settings, |events| events.consume(Probe::new())).await?;
    assert_in_order(&applied_count(&scene, "probe", 5).await?, &["a"], 5);
    second.stop(STOP).await;
    Ok(())
}

pub(super) async fn a_stop_that_may_not_wait_names_what_it_cut(scene: Scene, settings: EventsSettings) -> Result<()> {
    prepare(&scene).await?;
    let (probe, entered, _never) = gated();
    let first = Service::start(&scene, settings.clone(), |events| events.consume(probe)).await?;
    publish(&scene.ctx, &first.db, (0..5).map(|number| Step::new("a", number))).await?;
    entered.notified().await;
    let cut = first.stop(Duration::from_millis(200)).await;
    assert!(cut.len() == 1 && cut[0].starts_with("group probe, partition "), "{cut:?}");
    assert!(applied(&scene, "probe").await?.is_empty(), "what was cut was undone");
    let second = Service::start(&scene, settings, |events| events.consume(Probe::new())).await?;
    assert_in_order(&applied_count(&scene, "probe", 5).await?, &["a"], 5);
    second.stop(STOP).await;
    Ok(())
}
