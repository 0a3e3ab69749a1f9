//! What becomes of events whose handlers fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay_core::{Error, Result};
use mainstay_sql::testing::Scene;

use super::scene::*;
use crate::Permanent;

const STOP: Duration = Duration::from_secs(20);

pub(super) async fn a_failed_event_is_tried_again_and_only_its_key_waits(scene: Scene, setup: Setup) -> Result<()> {
    prepare(&scene).await?;
    let open = Arc::new(AtomicBool::new(false));
    let gate = open.clone();
    let probe = Probe::doing(move |_, step, _| {
        let refused = step.key == "a" && step.number == 1 && !gate.load(Ordering::SeqCst);
        async move { if refused { Err(Error::unavailable("not yet")) } else { Ok(()) } }
    });
    let setup = setup.with(|settings| settings.max_attempts = 1_000);
    let service = Service::start(&scene, setup, |events| events.consume(probe)).await?;
    for number in 0..4 {
        publish(&scene.ctx, &service.db, ["a", "b", "c"].map(|key| Step::new(key, number))).await?;
    }
    // All of the other keys, and what came before the failure.
    applied_count(&scene, "probe", 9).await?;
    let waiting = eventually(&scene.ctx, async || {
        let lag = service.events.lag(&scene.ctx).await?;
        Ok(lag.iter().any(|group| group.lag == 0 && group.retries == 3).then_some(()))
    });
    waiting.await?; // the failed one and the two behind it
    open.store(true, Ordering::SeqCst);
    assert_in_order(&applied_count(&scene, "probe", 12).await?, &["a", "b", "c"], 4);
    quiet(&scene, &service.events).await?;
    assert!(service.events.dead_letters(&scene.ctx, None, 0, 10).await?.is_empty());
    service.stop(STOP).await;
    Ok(())
}

/// A step whose key says how it fails.
fn faulty() -> Probe {
    Probe::doing(|_, step, _| {
        let key = step.key.clone();
        async move {
            match key.as_str() {
                "error" => Err(Error::failed_precondition("it is never possible")),
                "panic" => panic!("a bug"),
                "slow" => std::future::pending().await,
                "permanent" => Err(Error::invalid_argument("it makes no sense").with_source(Permanent)),
                _ => Ok(()),
            }
        }
    })
}

pub(super) async fn what_always_fails_becomes_a_dead_letter_with_its_reason(scene: Scene, setup: Setup) -> Result<()> {
    prepare(&scene).await?;
    let setup = setup.with(|settings| {
        settings.max_attempts = 3;
        settings.handler_timeout = Duration::from_millis(300);
    });
    let service = Service::start(&scene, setup, |events| events.consume(faulty())).await?;
    let (ctx, events) = (&scene.ctx, &service.events);
    for key in ["error", "panic", "slow", "permanent", "good"] {
        publish(ctx, &service.db, [Step::new(key, 0), Step::new("good", 1)]).await?;
    }
    let letters = eventually(ctx, async || {
        let letters = events.dead_letters(ctx, Some("probe"), 0, 10).await?;
        Ok((letters.len() == 4).then_some(letters))
    })
    .await?;
    let letter = |key: &str| letters.iter().find(|letter| letter.event_key.as_deref() == Some(key)).unwrap();
    for (key, reason, attempts, words) in [
        ("error", "attempts", 3, "it is never possible"),
        ("panic", "attempts", 3, "a bug"),
        ("slow", "attempts", 3, "deadline"),
        ("permanent", "permanent", 1, "it makes no sense"),
    ] {
        let letter = letter(key);
        assert_eq!((letter.reason.as_str(), letter.attempts), (reason, attempts), "{letter:?}");
        assert!(letter.error.contains(words), "{letter:?}");
    }
    quiet(&scene, events).await?;
    assert_eq!(applied(&scene, "probe").await?.len(), 6, "everyone else went on");
    let (_, event) = events.dead_letter(ctx, letter("error").id).await?;
    assert_eq!((event["type"].as_str(), event["data"]["key"].as_str()), (Some("test.step"), Some("error")));
    assert!(events.discard(ctx, letter("error").id).await?);
    assert!(!events.discard(ctx, letter("error").id).await?);
    service.stop(STOP).await;
    Ok(())
}

pub(super) async fn a_dead_letter_that_is_redriven_is_applied_once(scene: Scene, setup: Setup) -> Result<()> {
    prepare(&scene).await?;
    let repaired = Arc::new(AtomicBool::new(false));
    let state = repaired.clone();
    let probe = Probe::doing(move |_, _, _| {
        let repaired = state.load(Ordering::SeqCst);
        async move { if repaired { Ok(()) } else { Err(Error::internal("a bug").with_source(Permanent)) } }
    });
    let service = Service::start(&scene, setup, |events| events.consume(probe)).await?;
    let (ctx, events) = (&scene.ctx, &service.events);
    publish(ctx, &service.db, (0..20).map(|number| Step::new("a", number))).await?;
    let letters = eventually(ctx, async || {
        let letters = events.dead_letters(ctx, None, 0, 100).await?;
        Ok((letters.len() == 20).then_some(letters))
    })
    .await?;
    repaired.store(true, Ordering::SeqCst);
    // Each by three hands at once: one of them does it.
    for letter in &letters {
        let thrice = [events.redrive(ctx, letter.id), events.redrive(ctx, letter.id), events.redrive(ctx, letter.id)];
        let done = futures_util::future::try_join_all(thrice).await?;
        assert_eq!(done.iter().filter(|done| **done).count(), 1, "{done:?}");
    }
    assert_in_order(&applied_count(&scene, "probe", 20).await?, &["a"], 20);
    quiet(&scene, events).await?;
    assert_in_order(&applied(&scene, "probe").await?, &["a"], 20);
    assert!(events.dead_letters(ctx, None, 0, 100).await?.is_empty());
    service.stop(STOP).await;
    Ok(())
}

pub(super) async fn a_failure_in_a_batch_undoes_only_itself(scene: Scene, setup: Setup) -> Result<()> {
    prepare(&scene).await?;
    let setup = setup.with(|settings| settings.max_attempts = 2);
    let first = Service::start(&scene, setup.clone(), |_| Ok(())).await?;
    // A backlog, so that transactions are shared.
    let keys = |number: i64| if number % 10 == 3 { format!("error{number}") } else { format!("good{number}") };
    publish(&scene.ctx, &first.db, (0..100).map(|number| Step::new(keys(number), number))).await?;
    first.stop(STOP).await;
    let probe = Probe::doing(|_, step, _| {
        let fails = step.key.starts_with("error");
        async move { if fails { Err(Error::internal("no")) } else { Ok(()) } }
    });
    let service = Service::start(&scene, setup, |events| events.consume(probe)).await?;
    applied_count(&scene, "probe", 90).await?;
    quiet(&scene, &service.events).await?;
    assert_eq!(applied(&scene, "probe").await?.len(), 90);
    assert_eq!(service.events.dead_letters(&scene.ctx, None, 0, 100).await?.len(), 10);
    service.stop(STOP).await;
    Ok(())
}
