//! Signals become calls of a [`Stopper`]: SIGTERM and SIGINT ask for an ordered stop, a second one for an end at once.

use std::io::IsTerminal;

use mainstay_core::{Result, ResultExt, Stopper};
use tokio::signal::unix::{SignalKind, signal};

/// Listens from now until the runtime ends.
pub(crate) fn stop_on_signals(stopper: Stopper) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    tokio::spawn(async move {
        let mut first = true;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {
                    if first && std::io::stdout().is_terminal() {
                        tracing::info!("draining, press again to stop");
                    }
                }
            }
            first = false;
            stopper.stop();
        }
    });
    Ok(())
}
