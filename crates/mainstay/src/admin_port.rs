//! [`AdminPort`]: the admin port, which answers before the service is ready.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mainstay_core::{BoxFuture, Component, Context, Error, Result};
use mainstay_http::Server;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

/// The server of the admin port as a component that works from its start on: while the others start, or fail to, somebody
/// wants to know what the service waits for.
pub(crate) struct AdminPort {
    server: Arc<Server>,
    /// Another process answers at the same address until this one is ready.
    patient: AtomicBool,
    early: Mutex<Option<AbortOnDropHandle<Result<()>>>>,
}

impl AdminPort {
    pub(crate) fn new(server: Arc<Server>) -> Self {
        Self { server, patient: AtomicBool::new(false), early: Mutex::default() }
    }

    /// Leaves the questions to the predecessor until this process is ready. Before `start`.
    pub(crate) fn be_patient(&self) {
        self.patient.store(true, Ordering::Relaxed);
    }
}

impl Component for AdminPort {
    fn name(&self) -> &str {
        self.server.name()
    }

    fn start<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            self.server.start(ctx).await?;
            if !self.patient.load(Ordering::Relaxed) {
                let (server, ctx) = (self.server.clone(), ctx.detached());
                let early: JoinHandle<_> = tokio::spawn(async move { server.run(&ctx).await });
                *self.early.lock().unwrap_or_else(PoisonError::into_inner) = Some(AbortOnDropHandle::new(early));
            }
            Ok(())
        })
    }

    fn run<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            let early = self.early.lock().unwrap_or_else(PoisonError::into_inner).take();
            match early {
                Some(early) => {
                    early.await.map_err(|error| Error::internal("the admin port failed").with_source(error))?
                }
                None => self.server.run(ctx).await,
            }
        })
    }

    fn stop<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Vec<String>> {
        self.server.stop(ctx)
    }
}
