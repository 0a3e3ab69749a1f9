//! [`Proxy`]: the network between a process and its database, which can be cut, silenced, slowed and reset.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Carries connections to one server, in the weather of the moment.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    counts: Arc<Counts>,
    accepting: AbortHandle,
}

/// What the network does to connections; the default is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Connections of another generation are cut.
    generation: u64,
    /// Nothing passes on connections that are older than this.
    freezes: u64,
    /// Nothing passes, and nobody is told. What is sent meanwhile arrives when it ends, if the connection lives.
    pub silent: bool,
    /// Everything that is sent to the server takes so much longer.
    pub delay: Duration,
    /// A connection is reset after the server has sent so many bytes.
    pub reset_after: Option<u64>,
    /// What happens to one COMMIT in so many.
    pub at_commit: Option<(AtCommit, u64)>,
}

/// Where the network breaks at a COMMIT.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AtCommit {
    /// Before the server hears of it: nothing is committed.
    Unheard,
    /// When the server has answered, before the client hears of it: all is committed.
    Unanswered,
    /// The one or the other, by turns.
    ByTurns,
}

#[derive(Debug, Default)]
struct Counts {
    commits: AtomicU64,
    broken: AtomicU64,
    /// Open connections, by how often there was a freeze before them.
    open: Mutex<BTreeMap<u64, u64>>,
}

impl Counts {
    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Between two looks whether a client still has a connection that is frozen: its data stays unread, and there is nothing
/// else to wait for.
const LOOK: Duration = Duration::from_millis(20);

impl Proxy {
    /// A proxy to `server`, on a port of its own.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn to(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (weather, forecast) = watch::channel(Weather::default());
        let counts = Arc::new(Counts::default());
        let counting = counts.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let way = Way::new(forecast.clone(), counting.clone());
                tokio::spawn(async move {
                    let _ = way.carry(client, server).await; // whoever closes ends it
                });
            }
        });
        Ok(Self { address, weather, counts, accepting: accepting.abort_handle() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the weather, for connections that are open too.
    pub fn set(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }

    /// Cuts every connection of the moment, with a reset.
    pub fn cut(&self) {
        self.set(|weather| weather.generation += 1);
    }

    /// Silences every connection of the moment for good, as a router does that has forgotten it and tells nobody. New ones
    /// are not touched.
    pub fn freeze(&self) {
        self.set(|weather| weather.freezes += 1);
    }

    /// How many connections their clients still have, of those that are silent for good.
    pub fn frozen(&self) -> u64 {
        let freezes = self.weather.borrow().freezes;
        self.counts.open().range(..freezes).map(|(_, open)| open).sum()
    }

    /// How many connections were broken by the weather.
    pub fn broken(&self) -> u64 {
        self.counts.broken.load(Ordering::SeqCst)
    }

    /// Fair weather. What was silent goes on.
    pub fn heal(&self) {
        self.set(|weather| {
            *weather = Weather { generation: weather.generation, freezes: weather.freezes, ..Weather::default() }
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

/// One connection's view of it.
struct Way {
    forecast: watch::Receiver<Weather>,
    counts: Arc<Counts>,
    generation: u64,
    freezes: u64,
}

impl Way {
    fn new(forecast: watch::Receiver<Weather>, counts: Arc<Counts>) -> Self {
        let Weather { generation, freezes, .. } = *forecast.borrow();
        *counts.open().entry(freezes).or_default() += 1;
        Self { forecast, counts, generation, freezes }
    }

    async fn carry(mut self, mut client: TcpStream, server: SocketAddr) -> io::Result<()> {
        let mut server = TcpStream::connect(server).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (mut asked, mut answered) = (vec![0; 16 << 10], vec![0; 16 << 10]);
        let (mut asks, mut sent) = (true, 0);
        loop {
            let mut now = *self.forecast.borrow_and_update();
            let frozen = now.freezes > self.freezes;
            now.silent |= frozen;
            if frozen && has_left(&client) {
                return Ok(());
            }
            if now.generation != self.generation || now.reset_after.is_some_and(|limit| sent >= limit) {
                return self.reset(client);
            }
            tokio::select! {
                changed = self.forecast.changed() => if changed.is_err() { return Ok(()) },
                () = tokio::time::sleep(LOOK), if frozen => {}
                read = client.read(&mut asked), if asks && !now.silent => {
                    let bytes = &asked[..read?];
                    if bytes.is_empty() {
                        // Half of the connection: a cancel is over only when the server has closed the other half.
                        asks = false;
                        server.shutdown().await?;
                        continue;
                    }
                    tokio::time::sleep(now.delay).await;
                    match self.breaks(bytes, now.at_commit) {
                        None => server.write_all(bytes).await?,
                        Some(AtCommit::Unheard) => return self.reset(client),
                        Some(_) => {
                            server.write_all(bytes).await?;
                            let _ = server.read(&mut answered).await?; // the answer: it is done
                            return self.reset(client);
                        }
                    }
                }
                read = server.read(&mut answered), if !now.silent => {
                    let bytes = &answered[..read?];
                    if bytes.is_empty() {
                        return Ok(());
                    }
                    sent += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                    client.write_all(bytes).await?;
                }
            }
        }
    }

    /// Whether, and where, the connection breaks at these bytes.
    fn breaks(&self, bytes: &[u8], at_commit: Option<(AtCommit, u64)>) -> Option<AtCommit> {
        let (place, every) = at_commit?;
        if !bytes.windows(6).any(|word| word.eq_ignore_ascii_case(b"commit")) {
            return None;
        }
        let number = self.counts.commits.fetch_add(1, Ordering::SeqCst) + 1;
        let turn = number / every.max(1);
        match place {
            _ if !number.is_multiple_of(every.max(1)) => None,
            AtCommit::ByTurns if turn.is_multiple_of(2) => Some(AtCommit::Unheard),
            AtCommit::ByTurns => Some(AtCommit::Unanswered),
            place => Some(place),
        }
    }

    fn reset(&self, client: TcpStream) -> io::Result<()> {
        self.counts.broken.fetch_add(1, Ordering::SeqCst);
        client.set_zero_linger()?;
        drop(client);
        Ok(())
    }
}

/// Whether the other end has closed the connection, however much of what it sent is unread.
fn has_left(client: &TcpStream) -> bool {
    let ready = client.ready(Interest::READABLE).now_or_never();
    ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed()))
}

impl Drop for Way {
    fn drop(&mut self) {
        if let Some(open) = self.counts.open().get_mut(&self.freezes) {
            *open -= 1;
        }
    }
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
