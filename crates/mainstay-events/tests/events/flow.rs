//! From the transaction that publishes to every group.

use mainstay_core::{Context, Result};
use mainstay_events::Consumer;
use mainstay_sql::Tx;
use mainstay_sql::testing::Scene;

use crate::service::*;

struct Again;

impl Consumer for Again {
    type Event = Step;
    const GROUP: &'static str = "again";

    async fn handle(&self, ctx: &Context, tx: &Tx, step: Step) -> Result<()> {
        record(ctx, tx, Self::GROUP, &step).await
    }
}

pub(crate) async fn an_event_reaches_every_group_once(scene: Scene) -> Result<()> {
    prepare(&scene).await?;
    let service = Service::start(&scene, quick(), |events| {
        events.consume(Record)?;
        events.consume(Again)
    })
    .await?;
    for number in 0..10 {
        publish(&scene.ctx, &service.db, [Step::new("a", number), Step::new("b", number)]).await?;
    }
    for group in ["record", "again"] {
        let applied = applied_count(&scene, group, 20).await?;
        for key in ["a", "b"] {
            let numbers: Vec<i64> = applied.iter().filter(|(k, _)| k == key).map(|(_, number)| *number).collect();
            assert_eq!(numbers, (0..10).collect::<Vec<_>>(), "{group} {key}");
        }
    }
    quiet(&scene, &service.events).await?;
    assert!(service.stop(&scene.ctx).await.is_empty());
    Ok(())
}
