//! The events of one key are applied in the order of their commits.

use std::time::Duration;

use mainstay_core::Result;
use mainstay_sql::testing::Scene;
use mainstay_sql::{Db, sql};

use super::scene::*;
use crate::Publish;

const STOP: Duration = Duration::from_secs(20);
const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

async fn counters(scene: &Scene) -> Result<()> {
    prepare(scene).await?;
    let table = "CREATE TABLE counters (name VARCHAR(10) PRIMARY KEY, number BIGINT NOT NULL)";
    scene.db.query(table).execute(&scene.ctx).await?;
    for key in KEYS {
        scene.db.query("INSERT INTO counters VALUES ($1, 0)").bind(key).execute(&scene.ctx).await?;
    }
    Ok(())
}

/// Publishes the next step of `key`: its number is the order of the commits, for the row is locked until the commit. The
/// event is handed over before the row is locked, so that only the end of the transaction can put it in its place.
async fn step(scene: &Scene, db: &Db, key: &'static str) -> Result<()> {
    let ctx = &scene.ctx;
    db.transaction(ctx, |tx| async move {
        // Another key's event in the same transaction, so that transactions cross.
        let other = if key == "a" { "z" } else { "y" };
        tx.publish(Step::new(other, 0))?;
        let number = sql! {
            sqlite: "SELECT number FROM counters WHERE name = $1",
            _: "SELECT number FROM counters WHERE name = $1 FOR UPDATE",
        };
        let number: i64 = tx.query(number).bind(key).one(ctx).await?;
        tx.publish(Step::new(key, number))?;
        let next = "UPDATE counters SET number = number + 1 WHERE name = $1";
        tx.query(next).bind(key).execute(ctx).await.map(drop)
    })
    .await
}

/// Steps of the keys under test, without those that only cross.
fn relevant(applied: Vec<(String, i64)>) -> Vec<(String, i64)> {
    applied.into_iter().filter(|(key, _)| KEYS.contains(&key.as_str())).collect()
}

pub(super) async fn a_key_is_in_order_over_transactions_that_race(scene: Scene, setup: Setup) -> Result<()> {
    counters(&scene).await?;
    let service = Service::start(&scene, setup, |events| events.consume(Probe::new())).await?;
    // Eight at a time, each over all keys three times.
    let publishers = (0..8_usize).map(|first| {
        let (scene, db) = (&scene, &service.db);
        async move {
            for round in 0..18 {
                step(scene, db, KEYS[(first + round) % KEYS.len()]).await?;
            }
            Ok::<_, mainstay_core::Error>(())
        }
    });
    futures_util::future::try_join_all(publishers).await?;
    let applied = relevant(applied_count(&scene, "probe", 288).await?);
    assert_in_order(&applied, &KEYS, 24);
    quiet(&scene, &service.events).await?;
    service.stop(STOP).await;
    Ok(())
}

pub(super) async fn a_key_is_in_order_over_services_that_come_and_go(scene: Scene, setup: Setup) -> Result<()> {
    counters(&scene).await?;
    let start = || Service::start(&scene, setup.clone(), |events| events.consume(Probe::new()));
    let publisher = start().await?;
    let mut others = Vec::new();
    for round in 0..6 {
        // Up to three, and down again.
        if round < 3 {
            others.push(start().await?);
        } else if let Some(service) = others.pop() {
            assert!(service.stop(STOP).await.is_empty());
        }
        let publishers = KEYS.map(|key| {
            let (scene, db) = (&scene, &publisher.db);
            async move {
                for _ in 0..5 {
                    step(scene, db, key).await?;
                }
                Ok::<_, mainstay_core::Error>(())
            }
        });
        futures_util::future::try_join_all(publishers).await?;
    }
    let applied = relevant(applied_count(&scene, "probe", 360).await?);
    assert_in_order(&applied, &KEYS, 30);
    quiet(&scene, &publisher.events).await?;
    publisher.stop(STOP).await;
    Ok(())
}
