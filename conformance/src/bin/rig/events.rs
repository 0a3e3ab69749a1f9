//! The two events: what producers publish, and what the handler of that publishes.

use mainstay::prelude::*;
use serde::{Deserialize, Serialize};

/// Published by a producer.
#[derive(Clone, Debug, Deserialize, Event, Serialize)]
#[event(type = "rig.step", key = "key")]
pub(crate) struct Step {
    pub(crate) key: String,
    pub(crate) kseq: i64,
    pub(crate) event_id: Uuid,
    pub(crate) temper: i64,
}

/// Published by the handler of some steps: an effect of its transaction like any other.
#[derive(Clone, Debug, Deserialize, Event, Serialize)]
#[event(type = "rig.echo", key = "key")]
pub(crate) struct Echo {
    pub(crate) key: String,
    pub(crate) kseq: i64,
    pub(crate) event_id: Uuid,
}

const SENT: &str = "INSERT INTO sent (event_id, event_type, event_key, kseq, temper) VALUES ($1, $2, $3, $4, $5)";

impl Step {
    /// Publishes it and writes that down, both in `tx`.
    pub(crate) async fn send(self, ctx: &Context, tx: &Tx) -> Result<()> {
        let sent = tx.query(SENT).bind(self.event_id).bind("rig.step").bind(self.key.as_str()).bind(self.kseq);
        sent.bind(self.temper).execute(ctx).await?;
        tx.publish(self).map(drop)
    }
}

impl Echo {
    /// As [`Step::send`]. An echo of a step that came late comes late too, so that it is marked like the step.
    pub(crate) async fn send(self, ctx: &Context, tx: &Tx, temper: i64) -> Result<()> {
        let sent = tx.query(SENT).bind(self.event_id).bind("rig.echo").bind(self.key.as_str()).bind(self.kseq);
        sent.bind(temper).execute(ctx).await?;
        tx.publish(self).map(drop)
    }
}
