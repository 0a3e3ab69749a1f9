//! [`Lease`]: a connection that is cleaned before anyone else gets it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{Error, Result};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Decoded, PgConnection};
use crate::driver::{Answer, Call};
use crate::pool::Pooled;

/// Cancel requests at a time. The server starts a process for each.
const CONCURRENT_CANCELS: usize = 4;

/// Most statements end by themselves in this time, and a cancel costs the server more than they do.
const BEFORE_CANCEL: Duration = Duration::from_millis(2);

/// How long after a cancel the next one is sent; then doubled. A statement that is undone takes a while to end.
const AFTER_CANCEL: Duration = Duration::from_millis(20);

/// How long cleaning may take before the connection is closed instead.
const CLEANING: Duration = Duration::from_secs(5);

/// Cleans connections in the background.
#[derive(Clone)]
pub(super) struct Janitor(Arc<Shared>);

struct Shared {
    cancels: Semaphore,
    tasks: TaskTracker,
    runtime: Handle,
    cut: CancellationToken,
}

/// A connection in use. When it is dropped with a statement still running or a transaction open, the statement is
/// cancelled on the server, its end awaited and the transaction rolled back, in the background; only then is it anyone
/// else's.
pub(super) struct Lease {
    pooled: Option<Pooled<PgConnection>>, // `None` only while it is dropped
    janitor: Janitor,
}

impl Janitor {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared {
            cancels: Semaphore::new(CONCURRENT_CANCELS),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            cut: CancellationToken::new(),
        }))
    }

    pub(super) fn lease(&self, pooled: Pooled<PgConnection>) -> Lease {
        Lease { pooled: Some(pooled), janitor: self.clone() }
    }

    /// Done when every connection is to be cut.
    pub(super) fn cut(&self) -> CancellationToken {
        self.0.cut.clone()
    }

    pub(super) fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.0.tasks.spawn_on(task, &self.0.runtime)
    }

    /// Cuts all connections and waits for the tasks, which that ends.
    pub(super) async fn close(&self) {
        self.0.cut.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    async fn clean(self, mut pooled: Pooled<PgConnection>) {
        let cleaned = tokio::select! {
            cleaned = tokio::time::timeout(CLEANING, self.restore(&mut pooled)) => cleaned,
            () = self.0.cut.cancelled() => return pooled.discard(),
        };
        match cleaned {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let error = error.report();
                tracing::debug!(target: "mainstay::sql", %error, "closing a connection that could not be cleaned");
                pooled.discard();
            }
            Err(_) => {
                tracing::warn!(target: "mainstay::sql", limit = ?CLEANING, "closing a connection that did not stop in time");
                pooled.discard();
            }
        }
    }

    async fn restore(&self, connection: &mut PgConnection) -> Result<()> {
        if connection.is_running() {
            let canceler = connection.canceler();
            let mut ended = pin!(connection.ended());
            let mut patience = BEFORE_CANCEL;
            // Again and again, because a request that overtakes its statement finds nothing to cancel.
            while tokio::time::timeout(patience, ended.as_mut()).await.is_err() {
                let _permit = self.0.cancels.acquire().await.map_err(Error::from_any)?;
                canceler.cancel().await?;
                patience = (patience * 2).max(AFTER_CANCEL);
            }
        }
        // This is sent after the server closed the last cancel socket, so no cancel can hit it, or what comes after.
        connection.reset().await
    }
}

impl Lease {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        self.pooled.as_mut().expect("only `drop` takes the connection")
    }

    pub(super) async fn run(&mut self, call: &Call) -> Result<Answer> {
        self.connection().run(call).await
    }

    pub(super) async fn rows(&mut self, call: &Call) -> Result<Decoded> {
        self.connection().rows(call).await
    }

    /// Waits for what dropping does in the background.
    pub(super) async fn clean(mut self) {
        let Some(pooled) = self.pooled.take() else { return };
        if pooled.is_dirty() {
            let cleaning = self.janitor.spawn(self.janitor.clone().clean(pooled));
            let _ = cleaning.await; // a panic there closed the connection
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(pooled) = self.pooled.take() else { return };
        if pooled.is_dirty() {
            self.janitor.spawn(self.janitor.clone().clean(pooled));
        }
    }
}
