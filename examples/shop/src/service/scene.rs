//! What the tests of the services share: a database that takes events, and what was published in it.

use mainstay::events::EventsSettings;
use mainstay::prelude::*;
use mainstay::telemetry::Metrics;

pub(super) async fn database() -> Db {
    let db = Db::memory();
    let events = Events::new(&db, EventsSettings::default(), "shop", &Metrics::new()).unwrap();
    events.start(&Context::background()).await.unwrap();
    db
}

/// The types of the events that were published, in order.
pub(super) async fn published(db: &Db) -> Vec<String> {
    db.read("SELECT event_type FROM mainstay_outbox ORDER BY id").all(&Context::background()).await.unwrap()
}
