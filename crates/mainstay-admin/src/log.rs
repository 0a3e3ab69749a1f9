//! `/log/filter`: what is logged, and its change while the service runs.

use axum::extract::State;
use mainstay_core::{Code, Error, Result};

use crate::Shared;

/// Longer than any filter that was written by hand.
const LONGEST: usize = 4096;

pub(crate) async fn show(State(admin): Shared) -> String {
    let filter = admin.logs.filter();
    format!("{}\n", filter.as_deref().unwrap_or("(the process has a logger that isn't Mainstay's)"))
}

pub(crate) async fn change(State(admin): Shared, filter: String) -> Result<String> {
    let filter = filter.trim();
    if filter.is_empty() || filter.len() > LONGEST {
        let message = format!("send a filter of 1 to {LONGEST} bytes, as `info` or `info,mainstay::sql=debug`");
        return Err(Error::new(Code::InvalidArgument, message));
    }
    let changed = admin.logs.set_filter(filter);
    let outcome = changed.as_ref().map_or_else(|error| error.code().name(), |_| "OK");
    // A warning, so that it's there also where no more than warnings were or will be logged.
    tracing::warn!(target: "mainstay::audit", action = "log.filter", filter, outcome, "the admin port was told to change");
    let before = changed?;
    Ok(format!("{filter}\n(before: {before})\n"))
}
