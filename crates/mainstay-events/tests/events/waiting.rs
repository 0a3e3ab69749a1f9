//! What waits behind a failed event of its key.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay_core::{Error, Result};
use mainstay_events::testing::*;
use mainstay_events::{EventsSettings, Permanent};
use mainstay_sql::Dialect;
use mainstay_sql::testing::Scene;

const STOP: Duration = Duration::from_secs(20);

pub(crate) async fn a_key_that_waited_catches_up_in_shared_transactions(scene: Scene) -> Result<()> {
    prepare(&scene).await?;
    let repaired = Arc::new(AtomicBool::new(false));
    let state = repaired.clone();
    let probe = Probe::doing(move |_, step, envelope| {
        let error = match (step.key.as_str(), step.number) {
            ("a", 0) if !state.load(Ordering::SeqCst) => Some(Error::unavailable("not yet")),
            ("a", 50) if envelope.attempt == 1 => Some(Error::unavailable("at first not")),
            ("a", 70) => Some(Error::internal("never").with_source(Permanent)),
            _ => None,
        };
        async move { error.map_or(Ok(()), Err) }
    });
    let settings = EventsSettings { max_attempts: 1_000, ..quick() };
    let service = Service::start(&scene, settings, |events| events.consume(probe)).await?;
    let (ctx, events) = (&scene.ctx, &service.events);
    // Transactions are as large as the ones before have gone well.
    publish(ctx, &service.db, (0..300).map(|number| Step::new("warm", number))).await?;
    applied_count(&scene, "probe", 300).await?;
    publish(ctx, &service.db, (0..200).map(|number| Step::new("a", number))).await?;
    eventually(ctx, async || {
        Ok(events.lag(ctx).await?.iter().any(|group| group.retries == 200 && group.lag == 0).then_some(()))
    })
    .await?;
    repaired.store(true, Ordering::SeqCst);
    let applied = applied_count(&scene, "probe", 499).await?;
    let numbers: Vec<i64> = applied.into_iter().filter(|(key, _)| key == "a").map(|(_, number)| number).collect();
    assert_eq!(numbers, (0..200).filter(|number| *number != 70).collect::<Vec<_>>());
    quiet(&scene, events).await?;
    let letters = events.dead_letters(ctx, None, 0, 10).await?;
    assert!(matches!(&letters[..], [letter] if letter.reason == "permanent"), "{letters:?}");
    if scene.db.dialect() == Dialect::Postgres {
        let transactions = "SELECT xmin::text FROM applied WHERE event_key = $1";
        let transactions: Vec<String> = scene.db.query(transactions).bind("a").all(ctx).await?;
        let transactions = transactions.into_iter().collect::<HashSet<_>>().len();
        assert!(transactions < 100, "199 events in {transactions} transactions");
    }
    service.stop(STOP).await;
    Ok(())
}
