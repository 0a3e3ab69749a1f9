//! A new process of a service takes the listening sockets over from the running one, without a service manager.
//!
//! 1. The running process listens on a Unix socket named after the service and its address ([`rendezvous`]).
//! 2. The new one connects before it starts anything, and receives the listening sockets ([`letter`]). Both accept
//!    from then on, out of the one queue that the kernel keeps for the socket; that is why no connection is lost.
//! 3. When the new one is ready, it puts its own Unix socket in the place of the old one's and says `ready`.
//! 4. The old one accepts no more, finishes what it has, and ends with exit code 0.
//!
//! A new process that dies before it is ready takes nothing with it: the old one goes on. Who is told `ready` is not
//! asked for more: from then on the new process is the service.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainstay_core::{BoxFuture, Component, Context, Error, Phase, Result, Stopper};
use mainstay_http::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use self::letter::Letter;
use self::rendezvous::Rendezvous;

mod letter;
mod rendezvous;

/// What the new process says when it is ready.
const READY: &[u8] = b"ready\n";

/// How long the running process may take to answer: it has nothing to do but send.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a successor may start before others are heard. Past it, it may still come up, but is not waited for.
const LONGEST_START: Duration = Duration::from_secs(300);

/// Both sides of the hand-over for one service. A clone is the same.
#[derive(Clone)]
pub(crate) struct Handover(Arc<Inner>);

struct Inner {
    path: PathBuf,
    /// The first of the addresses below.
    addr: SocketAddr,
    servers: Vec<(SocketAddr, Arc<Server>)>,
    phase: watch::Receiver<Phase>,
    stopper: Stopper,
    /// Who was asked for the sockets, until it is told that we are ready.
    predecessor: Mutex<Option<UnixStream>>,
    closing: Notify,
}

impl Handover {
    /// The hand-over of `servers`, each with the address of its settings; the first address names the service.
    ///
    /// # Errors
    /// No folder for the Unix socket that belongs to this user alone.
    pub(crate) fn new(
        service: &str,
        servers: Vec<(SocketAddr, Arc<Server>)>,
        phase: watch::Receiver<Phase>,
        stopper: Stopper,
    ) -> Result<Self> {
        let first = servers.first().ok_or_else(|| Error::internal("a hand-over of no server"))?;
        let path = rendezvous::path(service, first.0)?;
        let (predecessor, closing) = (Mutex::default(), Notify::new());
        let addr = first.0;
        Ok(Self(Arc::new(Inner { path, addr, servers, phase, stopper, predecessor, closing })))
    }

    /// Takes the sockets over from the running process, if there is one; before anything listens.
    ///
    /// Returns whether there is one that answers until this process is ready. Without an answer the addresses are bound as
    /// always, and that error says what is in the way.
    pub(crate) async fn take_over(&self) -> bool {
        match timeout(ANSWER, self.0.ask()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = %error.report(), "can't take over from the running process"),
            Err(_) => tracing::warn!("the running process doesn't answer: can't take over from it"),
        }
        self.0.predecessor.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The part that answers; after everything else, because its start is followed by "ready".
    pub(crate) fn answering(&self) -> impl Component + use<> {
        Answering(self.0.clone())
    }
}

struct Answering(Arc<Inner>);

impl Component for Answering {
    fn name(&self) -> &str {
        "handover"
    }

    fn run<'a>(&'a self, _ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            let mut phase = self.0.phase.clone();
            if phase.wait_for(|phase| *phase >= Phase::Ready).await.is_ok() {
                tokio::select! {
                    () = self.0.closing.notified() => {}
                    () = self.0.answer() => {}
                }
            }
            std::future::pending().await
        })
    }

    fn stop<'a>(&'a self, _ctx: &'a Context) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async {
            self.0.closing.notify_one();
            Vec::new()
        })
    }
}

impl Inner {
    /// Takes the sockets of the running process, if there is one.
    async fn ask(&self) -> Result<()> {
        // The one that answers may have handed over to someone else while we waited in its queue.
        const ATTEMPTS: usize = 3;
        for _ in 0..ATTEMPTS {
            let Ok(stream) = UnixStream::connect(&self.path).await else { return Ok(()) }; // nobody is there
            rendezvous::check_peer(&stream)?;
            let Some(letter) = Letter::receive(&stream).await? else { continue };
            let pid = stream.peer_cred()?.pid();
            for (addr, listener) in letter.listeners {
                if let Some((_, server)) = self.servers.iter().find(|(wanted, _)| *wanted == addr) {
                    server.adopt(listener);
                }
            }
            tracing::info!(addr = %self.addr, pid, "taking over from the running process");
            *self.predecessor.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
            return Ok(());
        }
        Err(Error::unavailable("the running process closed the connection without an answer"))
    }

    /// Takes the place of the predecessor, then serves those who ask.
    async fn answer(&self) {
        let rendezvous = match Rendezvous::open(&self.path) {
            Ok(rendezvous) => rendezvous,
            Err(error) => {
                tracing::warn!(error = %error.report(), "the next process can't take over from this one");
                self.tell_predecessor().await; // it ends all the same
                return;
            }
        };
        self.tell_predecessor().await;
        loop {
            match rendezvous.accept().await {
                Err(error) => {
                    tracing::warn!(error = %error.report(), "a hand-over failed");
                    tokio::time::sleep(Duration::from_millis(100)).await; // never a loop without a pause
                }
                Ok(stream) => match timeout(LONGEST_START, self.hand_over(stream)).await {
                    Ok(Ok(true)) => return,
                    Ok(Ok(false)) => tracing::warn!("the process that asked to take over is gone; going on"),
                    Ok(Err(error)) => tracing::warn!(error = %error.report(), "a hand-over failed; going on"),
                    Err(_) => tracing::warn!("the process that asked to take over doesn't get ready; going on"),
                },
            }
        }
    }

    async fn tell_predecessor(&self) {
        let predecessor = self.predecessor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut stream) = predecessor {
            // One that is gone needs no word.
            let _ = stream.write_all(READY).await;
        }
    }

    /// `true` once the successor is ready and this process has begun to drain.
    async fn hand_over(&self, mut stream: UnixStream) -> Result<bool> {
        let lent = self.servers.iter().filter_map(|(addr, server)| Some((*addr, server.lend()?)));
        Letter { listeners: lent.collect() }.send(&stream).await?;
        let mut word = [0; READY.len()];
        // An end of the stream is the end of the process that asked.
        if stream.read_exact(&mut word).await.is_err() || word != READY {
            return Ok(false);
        }
        self.stopper.replaced();
        for (_, server) in &self.servers {
            server.drain(); // the admin port too: who asks it now means the new process
        }
        Ok(true)
    }
}
