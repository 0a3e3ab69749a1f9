//! The broker and the way to it: gone, back again, silent.

use std::time::Duration;

use mainstay::prelude::*;
use tokio::time::Instant;

use super::{Fault, Plan, everywhere, usual};
use crate::chaos::cell::Cell;
use crate::chaos::fleet::{Role, TOOK};
use crate::chaos::proxy::Proxy;

/// 6: the broker goes and comes back.
pub(super) const RESTARTED: Fault = Fault {
    number: "6",
    name: "broker_restarted",
    title: "broker restarted, in order and by a crash",
    on: everywhere,
    plan: usual,
    inflict: |cell| Box::pin(restart(cell)),
};

/// 7: packets to it are swallowed, and nobody is told; or connections are, for good.
pub(super) const SILENT: Fault = Fault {
    number: "7",
    name: "broker_silent",
    title: "network to the broker silent, slow, reset in the middle of answers, and silent for good to connections that are open",
    on: everywhere,
    // So few that nothing waits but for the broker, where it is measured for how long.
    plan: |_, form| Plan { broker_proxied: true, rate: form.rate.min(200), ..Plan::new(form) },
    inflict: |cell| Box::pin(silence(cell)),
};

/// 6, for longer than anything waits for it.
pub(super) const AWAY: Fault = Fault {
    number: "6",
    name: "broker_away",
    title: "broker gone for ten minutes under load",
    on: everywhere,
    plan: |_, form| Plan { rate: form.rate.min(200), ..Plan::new(form) },
    inflict: |cell| Box::pin(away(cell)),
};

async fn restart(cell: &mut Cell) -> Result<()> {
    let times = cell.form.of(2, 12);
    while cell.goes_on(times).await {
        cell.breathe(300..1_000).await;
        let crash = cell.random.chance(50);
        let pause = cell.random.millis(0..1_500);
        let Some(broker) = &mut cell.broker else { break };
        broker.stop(crash).await;
        tokio::time::sleep(pause).await;
        broker.start_again().await?;
        cell.inflicted();
        // A RabbitMQ of 3.10 that ended while it recovered its streams has left them down for good.
        let before = taken_in(cell).await;
        cell.until("streams are read again", move |cell| Box::pin(async move { taken_in(cell).await > before })).await;
    }
    Ok(())
}

/// How far all streams have been read together; 0 if the database doesn't answer.
async fn taken_in(cell: &Cell) -> i64 {
    let ctx = Context::background().with_timeout(Duration::from_secs(5));
    let places = cell.db.query("SELECT place FROM mainstay_event_intakes").all::<i64>(&ctx).await;
    places.unwrap_or_default().iter().sum()
}

/// One producer while the broker is there, and another while it isn't: each tells how long its transactions took.
async fn away(cell: &mut Cell) -> Result<()> {
    let pause = Duration::from_secs(cell.form.of(5, 600));
    tokio::time::sleep(pause.min(Duration::from_secs(60))).await;
    cell.dismiss(Role::Producer).await;
    if let Some(broker) = &mut cell.broker {
        broker.stop(true).await;
    }
    cell.populate().await;
    tokio::time::sleep(pause).await;
    cell.dismiss(Role::Producer).await;
    if let Some(broker) = &mut cell.broker {
        broker.start_again().await?;
    }
    cell.notes.extend(cell.fleet.lines(TOOK));
    cell.notes.extend(cell.depths().await.map(|depths| format!("when it came back: {depths:?}")));
    cell.populate().await;
    cell.inflicted();
    Ok(())
}

async fn silence(cell: &mut Cell) -> Result<()> {
    let times = cell.form.of(5, 30);
    while cell.goes_on(times).await {
        cell.breathe(200..600).await;
        let (kind, pause) = (cell.injected % 5, cell.random.millis(500..2_000));
        let limit = cell.random.within(200..20_000);
        let Some(way) = &cell.way else { break };
        match kind {
            0 => way.freeze(),
            1 => way.set(|weather| weather.reset_after = Some(limit)),
            2 => way.set(|weather| weather.delay = pause / 40),
            3 => way.set(|weather| weather.silent = true),
            _ => way.cut(),
        }
        if kind == 0 {
            // Found by those who wait for an answer, and replaced by themselves.
            let (sent, began) = (cell.sent().await, Instant::now());
            cell.until("connections that have fallen silent are replaced", move |cell| {
                Box::pin(async move { cell.applied().await > sent })
            })
            .await;
            let took = began.elapsed();
            cell.until("connections that have fallen silent are closed", |cell| {
                Box::pin(async { cell.way.as_ref().map_or(0, Proxy::frozen) == 0 })
            })
            .await;
            let closed = began.elapsed();
            cell.notes
                .push(format!("silent connections were replaced after {took:.1?}, and closed after {closed:.1?}"));
        } else {
            tokio::time::sleep(pause).await;
        }
        if let Some(way) = &cell.way {
            way.heal();
        }
        cell.inflicted();
    }
    Ok(())
}
