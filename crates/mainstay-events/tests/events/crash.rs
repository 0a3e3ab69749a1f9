//! Events that take their process with them, and processes that share the work.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::Result;
use mainstay_events::EventsSettings;
use mainstay_events::testing::{Probe, Service, Step, applied_count, eventually, prepare, publish, quick, quiet};
use mainstay_sql::testing::Scene;
use tokio::sync::mpsc;

const STOP: Duration = Duration::from_secs(20);

pub(crate) async fn an_event_that_ends_its_process_is_counted_and_given_up(scene: Scene) -> Result<()> {
    prepare(&scene).await?;
    let settings = EventsSettings { max_attempts: 3, lease: Duration::from_millis(400), ..quick() };
    let (entered, mut entries) = mpsc::unbounded_channel();
    let probe = Probe::doing(move |_, step, envelope| {
        let deadly = step.key == "deadly";
        if deadly {
            entered.send(envelope.attempt).unwrap();
        }
        // A process that is killed in the middle of a handler looks like this to everyone else.
        async move { if deadly { std::future::pending().await } else { Ok(()) } }
    });
    let publisher = Service::start(&scene, settings.clone(), |_| Ok(())).await?;
    publish(&scene.ctx, &publisher.db, [Step::new("deadly", 0), Step::new("deadly", 1), Step::new("good", 0)]).await?;
    let mut attempts = Vec::new();
    let letters = loop {
        let probe = probe.clone();
        let service = Service::start(&scene, settings.clone(), |events| events.consume(probe)).await?;
        let letters = eventually(&scene.ctx, async || {
            if let Ok(attempt) = entries.try_recv() {
                attempts.push(attempt);
                return Ok(Some(None));
            }
            let letters = service.events.dead_letters(&scene.ctx, None, 0, 10).await?;
            Ok((letters.len() == 2).then_some(Some(letters)))
        });
        match letters.await? {
            None => service.kill().await,
            Some(letters) => {
                quiet(&scene, &service.events).await?;
                service.stop(STOP).await;
                break letters;
            }
        }
    };
    // Once out of the log, uncounted; then three times under a count; and so for the second, which waited its turn.
    assert_eq!(attempts, [1, 1, 2, 3, 1, 2, 3]);
    for letter in letters {
        assert_eq!((letter.reason.as_str(), letter.attempts), ("crash", 3), "{letter:?}");
    }
    assert_eq!(applied_count(&scene, "probe", 1).await?, [("good".to_owned(), 0)]);
    publisher.stop(STOP).await;
    Ok(())
}

pub(crate) async fn who_waits_for_its_turn_alone_is_not_blamed(scene: Scene) -> Result<()> {
    prepare(&scene).await?;
    let lease = Duration::from_millis(400);
    let settings = EventsSettings { max_attempts: 3, partitions: 16, concurrency: 16, lease, ..quick() };
    let publisher = Service::start(&scene, settings.clone(), |_| Ok(())).await?;
    let innocents = ["a", "b", "c", "d", "e", "f"];
    let steps = innocents.into_iter().chain(["deadly"]).map(|key| Step::new(key, 0));
    publish(&scene.ctx, &publisher.db, steps).await?;
    eventually(&scene.ctx, async || Ok((publisher.events.outbox(&scene.ctx).await?.depth == 0).then_some(()))).await?;
    let lanes: i64 = scene.db.query("SELECT count(DISTINCT part) FROM mainstay_event_log").one(&scene.ctx).await?;

    let (entered, mut entries) = mpsc::unbounded_channel();
    // Twice all that can be in hand is in hand when the process ends: out of the log, and under the first count.
    for _ in 0..2 {
        let entered = entered.clone();
        let probe = Probe::doing(move |_, _, _| {
            entered.send(()).unwrap();
            std::future::pending()
        });
        let service = Service::start(&scene, settings.clone(), |events| events.consume(probe)).await?;
        for _ in 0..lanes {
            scene.ctx.run(entries.recv()).await?;
        }
        service.kill().await;
    }
    // Then only one of them ends it, again and again, and those behind it wait.
    let probe = Probe::doing(move |_, step, _| {
        let deadly = step.key == "deadly";
        if deadly {
            entered.send(()).unwrap();
        }
        async move { if deadly { std::future::pending().await } else { Ok(()) } }
    });
    for _ in 0..2 {
        let probe = probe.clone();
        let service = Service::start(&scene, settings.clone(), |events| events.consume(probe)).await?;
        scene.ctx.run(entries.recv()).await?;
        service.kill().await;
    }
    let service = Service::start(&scene, settings, |events| events.consume(probe)).await?;
    applied_count(&scene, "probe", innocents.len()).await?;
    quiet(&scene, &service.events).await?;
    let letters = service.events.dead_letters(&scene.ctx, None, 0, 10).await?;
    assert_eq!(
        letters.iter().map(|letter| (letter.reason.as_str(), letter.attempts)).collect::<Vec<_>>(),
        [("crash", 3)]
    );
    service.stop(STOP).await;
    publisher.stop(STOP).await;
    Ok(())
}

pub(crate) async fn partitions_are_shared_fairly(scene: Scene) -> Result<()> {
    prepare(&scene).await?;
    let start = || Service::start(&scene, quick(), |events| events.consume(Probe::new()));
    let owners = async |wanted: &[i64]| {
        let owners = "SELECT count(*) FROM mainstay_event_leases WHERE name = $1 AND owner IS NOT NULL \
                      GROUP BY owner ORDER BY 1";
        eventually(&scene.ctx, async || {
            let owners: Vec<i64> = scene.db.query(owners).bind("probe").all(&scene.ctx).await?;
            Ok((owners == wanted).then_some(()))
        })
        .await
    };
    let first = start().await?;
    owners(&[4]).await?;
    let second = start().await?;
    owners(&[2, 2]).await?;
    let third = start().await?;
    owners(&[1, 1, 2]).await?;
    let fourth = Arc::new(start().await?);
    owners(&[1, 1, 1, 1]).await?;
    third.kill().await;
    second.stop(STOP).await;
    owners(&[2, 2]).await?;
    first.stop(STOP).await;
    owners(&[4]).await?;
    Arc::into_inner(fourth).unwrap().stop(STOP).await;
    owners(&[]).await
}
