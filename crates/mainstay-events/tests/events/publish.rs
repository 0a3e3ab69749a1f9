//! What is refused when it is published.

use mainstay_core::{ByteSize, Code, Result};
use mainstay_events::testing::{Step, quick};
use mainstay_events::{Event, Events, EventsSettings, Publish, PublishOptions};
use mainstay_sql::testing::Scene;
use mainstay_telemetry::Metrics;
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Event, Serialize)]
#[event(type = "test.large")]
struct Large {
    text: String,
}

pub(crate) async fn what_cannot_be_published_is_told_before_anything_is_written(scene: Scene) -> Result<()> {
    let (ctx, db) = (&scene.ctx, &scene.db);
    let publish = async |event: Step| {
        db.transaction(ctx, |tx| {
            let event = event.clone();
            async move { tx.publish(event) }
        })
        .await
    };
    let error = publish(Step::new("a", 0)).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    assert!(error.report().to_string().contains("app.events(&db)"), "{error:?}");

    let settings = EventsSettings { max_payload: ByteSize::kib(1), max_headers: ByteSize::bytes(20), ..quick() };
    let events = Events::new(db, settings, "test", &Metrics::new())?;
    assert_eq!(publish(Step::new("a", 0)).await.unwrap_err().code(), Code::Unavailable, "it has not started");

    mainstay_core::Component::start(&events, ctx).await?;
    publish(Step::new("a", 0)).await?;
    for (key, words) in [(String::new(), "key"), ("k".repeat(256), "256 bytes"), ("a\0b".to_owned(), "NUL")] {
        let error = publish(Step::new(key, 0)).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains(words), "{error:?}");
    }
    let large =
        db.transaction(ctx, |tx| async move { tx.publish(Large { text: "x".repeat(2_000) }) }).await.unwrap_err();
    assert!(large.message().contains("events.max_payload"), "{large:?}");
    assert!(large.report().to_string().contains("publishing `test.large`"), "{large:?}");
    for (name, value) in [("ce-id", "1"), ("tenant", "a value of more than twenty bytes")] {
        let options = PublishOptions::new().header(name, value);
        let refused = db.transaction(ctx, |tx| {
            let options = options.clone();
            async move { tx.publish_with(Step::new("a", 0), options) }
        });
        assert_eq!(refused.await.unwrap_err().code(), Code::InvalidArgument, "{name}");
    }
    assert_eq!(events.outbox(ctx).await?.depth, 1, "only what was good");
    Ok(())
}

pub(crate) async fn a_database_has_its_events_once(scene: Scene) -> Result<()> {
    let _first = Events::new(&scene.db, quick(), "test", &Metrics::new())?;
    let error = Events::new(&scene.db, quick(), "test", &Metrics::new()).unwrap_err();
    assert!(error.report().to_string().contains("clone the first"), "{error:?}");
    Ok(())
}
