//! Services that end, in order or not, and those that go on with their work.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::Result;
use mainstay_sql::testing::Scene;
use tokio::sync::Notify;

use super::scene::*;

const STOP: Duration = Duration::from_secs(20);

pub(super) async fn a_killed_service_loses_nothing_and_doubles_nothing(scene: Scene, setup: Setup) -> Result<()> {
    prepare(&scene).await?;
    let publisher = Service::start(&scene, setup.clone(), |_| Ok(())).await?;
    for round in 0..4_i64 {
        let service = Service::start(&scene, setup.clone(), |events| events.consume(Probe::new())).await?;
        publish(&scene.ctx, &publisher.db, (round * 25..round * 25 + 25).map(|number| Step::new("a", number))).await?;
        // In the middle of it.
        applied_count(&scene, "probe", usize::try_from(round * 25 + 1).unwrap()).await?;
        service.kill().await;
    }
    let service = Service::start(&scene, setup, |events| events.consume(Probe::new())).await?;
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

pub(super) async fn a_stop_finishes_what_is_in_hand_and_gives_the_rest_away(scene: Scene, setup: Setup) -> Result<()> {
    prepare(&scene).await?;
    // A lease that nobody waits for: what goes on after the stop was given away.
    let setup = setup.with(|settings| {
        settings.lease = Duration::from_secs(60);
        settings.batch = 1;
    });
    let (probe, entered, open) = gated();
    let first = Service::start(&scene, setup.clone(), |events| events.consume(probe)).await?;
    publish(&scene.ctx, &first.db, (0..5).map(|number| Step::new("a", number))).await?;
    entered.notified().await;
    let mut stopping = Box::pin(first.stop(STOP));
    assert!(futures_util::poll!(&mut stopping).is_pending()); // it has begun
    open.notify_one();
    assert!(stopping.await.is_empty(), "nothing was cut");
    assert_eq!(applied(&scene, "probe").await?, [("a".to_owned(), 0)], "what was in hand was finished, and no more");
    let second = Service::start(&scene, setup, |events| events.consume(Probe::new())).await?;
    assert_in_order(&applied_count(&scene, "probe", 5).await?, &["a"], 5);
    second.stop(STOP).await;
    Ok(())
}

pub(super) async fn a_stop_that_may_not_wait_names_what_it_cut(scene: Scene, setup: Setup) -> Result<()> {
    prepare(&scene).await?;
    let (probe, entered, _never) = gated();
    let first = Service::start(&scene, setup.clone(), |events| events.consume(probe)).await?;
    publish(&scene.ctx, &first.db, (0..5).map(|number| Step::new("a", number))).await?;
    entered.notified().await;
    let cut = first.stop(Duration::from_millis(200)).await;
    // On SQLite the handler has the one writer, for which what comes from a broker has to wait.
    let expected = |name: &String| name.starts_with("group probe, partition ") || name.starts_with("intake, ");
    assert!(cut.iter().any(|name| name.starts_with("group probe")) && cut.iter().all(expected), "{cut:?}");
    assert!(applied(&scene, "probe").await?.is_empty(), "what was cut was undone");
    let second = Service::start(&scene, setup, |events| events.consume(Probe::new())).await?;
    assert_in_order(&applied_count(&scene, "probe", 5).await?, &["a"], 5);
    second.stop(STOP).await;
    Ok(())
}
