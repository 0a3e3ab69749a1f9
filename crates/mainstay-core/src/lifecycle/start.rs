//! Starting one component, again and again while what it needs is not there yet.

use std::time::Duration;

use super::RETRIED;
use crate::{Component, Context, Error, Result};

/// The pauses between tries double from the first to the last of these.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(2);

pub(super) async fn with_retry(component: &dyn Component, ctx: &Context) -> Result<()> {
    let name = component.name();
    let mut pause = FIRST_PAUSE;
    let mut last: Option<Error> = None;
    loop {
        let error = match ctx.run(component.start(ctx)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if ctx.is_done() => return Err(last.unwrap_or(error).context(gave_up(name))),
            Ok(Err(error)) => error,
            Err(cause) => return Err(last.unwrap_or(cause).context(gave_up(name))),
        };
        if !RETRIED.contains(&error.code()) {
            return Err(error.context(format!("starting {name}")));
        }
        if ctx.remaining().is_some_and(|remaining| remaining <= pause) {
            return Err(error.context(gave_up(name)));
        }
        tracing::warn!(component = name, error = %error.report(), ?pause, "start failed, trying again");
        last = Some(error);
        let _ = ctx.run(tokio::time::sleep(pause)).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

fn gave_up(name: &str) -> String {
    format!("starting {name}: gave up when the start budget was used up")
}
