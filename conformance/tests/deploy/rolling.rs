//! Two shops on a PostgreSQL of their own behind nginx, which repeats nothing: what fails is seen.

use std::collections::BTreeSet;
use std::time::Duration;

use conformance::chaos::store::Store;
use conformance::load::Tally;
use conformance::process::{Place, Process};
use mainstay::prelude::*;
use mainstay::sql::Dialect;
use tokio::time::Instant;

use crate::nginx::Nginx;
use crate::{is_long, shop};

/// How long after PostgreSQL is back everything works again.
const RECOVERY: Duration = Duration::from_secs(5);

struct Scene {
    store: Store,
    places: [Place; 2],
    shops: [Process; 2],
    nginx: Nginx,
}

impl Scene {
    async fn open() -> Result<Self> {
        let store = Store::private(Dialect::Postgres).await?;
        let places = [Place::new(), Place::new()];
        let first = Process::ready(&mut shop::command(&places[0], store.url())).await;
        let second = Process::ready(&mut shop::command(&places[1], store.url())).await;
        let nginx = Nginx::before([places[0].http, places[1].http]).await?;
        shop::fill(nginx.addr).await;
        Ok(Self { store, places, shops: [first, second], nginx })
    }

    /// Replaces a shop by a new process, which takes its port over; the old one ends by itself.
    async fn replace(&mut self, index: usize) {
        let next = Process::ready(&mut shop::command(&self.places[index], self.store.url())).await;
        let old = std::mem::replace(&mut self.shops[index], next);
        let (status, log) = old.ended().await;
        assert_eq!(status.code(), Some(0), "{log}");
    }

    /// Ends everything; every order that was answered is there, and was dealt with.
    async fn close(self, tally: &Tally) -> Result<()> {
        let db = self.store.connect().await?;
        let ctx = Context::background();
        let customers = db.read("SELECT customer FROM orders").all::<(String,)>(&ctx).await?;
        let kept: BTreeSet<i64> = customers.iter().filter_map(|(customer,)| customer.parse().ok()).collect();
        let lost: Vec<_> = tally.stored.iter().filter(|id| !kept.contains(id)).collect();
        assert!(lost.is_empty(), "answered with 201 and not there: {lost:?}");
        assert_eq!(customers.len(), kept.len(), "an order was placed twice");
        // By events: a shop that had not recovered would leave them.
        while db.read("SELECT count(*) FROM orders WHERE status = 'pending'").one::<i64>(&ctx).await? > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let sold = "SELECT CAST(sum(1000000 - stock) AS BIGINT) FROM products";
        assert_eq!(db.read(sold).one::<i64>(&ctx).await?.unsigned_abs(), customers.len() as u64);
        db.close(&ctx).await;
        for shop in self.shops {
            shop.terminate();
            let (status, log) = shop.ended().await;
            assert_eq!(status.code(), Some(0), "{log}");
        }
        self.nginx.end().await;
        self.store.remove().await
    }
}

/// The shops are replaced one after the other, again and again, until enough requests were sent.
pub(crate) async fn restart() -> Result<()> {
    let wanted: u64 = if is_long() { 10_000 } else { 400 };
    let mut scene = Scene::open().await?;
    let load = shop::load(scene.nginx.addr, 1);
    shop::answers(&load, 100).await;
    let mut replaced = 0;
    while load.answered() < wanted || replaced < 2 {
        scene.replace(replaced % 2).await;
        replaced += 1;
        shop::answers(&load, 100).await;
    }
    let tally = load.end().await;
    say(&format!(
        "rolling restart behind nginx: {replaced} replacements, {} requests, {} of them orders, {} failed",
        tally.sent,
        tally.stored.len(),
        tally.failed()
    ));
    assert_eq!(tally.failed(), 0, "{:?} {:?} {:?}\n{}", tally.other, tally.lost, tally.refused, scene.nginx.log());

    // The same with a port that closes in between: were nothing seen of it, the count above would mean nothing.
    let load = shop::load(scene.nginx.addr, 1_000_000);
    shop::answers(&load, 100).await;
    scene.shops[0].terminate();
    while load.tally().failed() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    scene.shops[0].ends().await;
    scene.shops[0] = Process::ready(&mut shop::command(&scene.places[0], scene.store.url())).await;
    let mut all = load.end().await;
    all.stored.extend(tally.stored);
    scene.close(&all).await
}

/// Where no socket passes from process to process, as between containers: a shop is taken out of nginx before it stops.
///
/// nginx closes kept connections of clients when it reads its file again; what they send in that moment is lost between
/// them and nginx, and no shop can help it. So these clients keep none.
pub(crate) async fn taken_out() -> Result<()> {
    let mut scene = Scene::open().await?;
    let load = shop::load_of_passers_by(scene.nginx.addr);
    shop::answers(&load, 100).await;
    for round in 0..if is_long() { 6 } else { 2 } {
        let place = &scene.places[round % 2];
        scene.nginx.take(place.http, true).await?;
        let shop = &mut scene.shops[round % 2];
        shop.terminate();
        shop.ends().await;
        *shop = Process::ready(&mut shop::command(place, scene.store.url())).await;
        scene.nginx.take(place.http, false).await?;
        shop::answers(&load, 100).await;
    }
    let tally = load.end().await;
    say(&format!("taken out of nginx, stopped, started, put back: {} requests, {} failed", tally.sent, tally.failed()));
    assert_eq!(tally.failed(), 0, "{:?} {:?} {:?}\n{}", tally.other, tally.lost, tally.refused, scene.nginx.log());
    scene.close(&tally).await
}

/// PostgreSQL is stopped, stays away for a moment, and comes back.
pub(crate) async fn database() -> Result<()> {
    const AWAY: Duration = Duration::from_secs(2);
    let mut scene = Scene::open().await?;
    let load = shop::load(scene.nginx.addr, 1);
    shop::answers(&load, 400).await;
    let server = scene.store.server().ok_or_else(|| Error::internal("a private server"))?;
    let down = Instant::now();
    server.stop(false).await;
    tokio::time::sleep(AWAY).await;
    server.start_again().await?;
    let up = Instant::now();
    tokio::time::sleep_until(up + RECOVERY).await;
    let failed_then = load.tally().failed();
    shop::answers(&load, 400).await;
    let tally = load.end().await;

    let (first, last) = (tally.failures().min(), tally.failures().max());
    let (Some(first), Some(last)) = (first, last) else { panic!("nothing failed while PostgreSQL was away") };
    say(&format!(
        "PostgreSQL restarted: {} requests, {} failed, the last one {:?} after it was back",
        tally.sent,
        tally.failed(),
        last.saturating_duration_since(up)
    ));
    assert!(first >= down, "a request failed before PostgreSQL was stopped");
    assert_eq!(tally.failed(), failed_then, "requests failed later than {RECOVERY:?} after PostgreSQL was back");
    for shop in &mut scene.shops {
        assert!(shop.exited().is_none(), "{}", shop.log());
    }
    scene.close(&tally).await
}

#[expect(clippy::print_stdout, reason = "the figures that `just rolling-restart` is run for")]
fn say(text: &str) {
    println!("{text}");
}
