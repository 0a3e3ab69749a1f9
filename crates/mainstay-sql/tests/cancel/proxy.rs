//! [`Proxy`]: the way to the server, where connections are counted and the network can be cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use mainstay_core::Result;
use mainstay_sql::DatabaseSettings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// Carries bytes between the test and its server. Each connection through it is one on the server, cancels included.
pub(crate) struct Proxy {
    pub(crate) settings: DatabaseSettings,
    road: Arc<Road>,
    accepting: AbortHandle,
}

/// What is wrong with the network.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    Nothing,
    /// From a COMMIT on nothing passes, to nobody, and nobody is told: before the server hears of it, or after.
    SilentAtCommit {
        heard: bool,
    },
    /// What the first connection sends takes so long: cancels, on connections of their own, overtake it.
    SlowFirst(Duration),
}

struct Road {
    server: String,
    trouble: Trouble,
    silent: AtomicBool,
    accepted: AtomicU32,
    open: AtomicU32,
    peak: AtomicU32,
}

impl Proxy {
    pub(crate) async fn to(settings: &DatabaseSettings, trouble: Trouble) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (scheme, rest) = settings.url.expose().split_once("://").expect("a URL");
        let (user, rest) = rest.split_once('@').expect("a user");
        let (server, database) = rest.split_once('/').expect("a database");
        // The proxy has to be able to read what it breaks.
        let plain = if scheme.starts_with("postgres") { "sslmode=disable" } else { "ssl-mode=disabled" };
        let and = if database.contains('?') { '&' } else { '?' };
        let url = format!("{scheme}://{user}@{}/{database}{and}{plain}", listener.local_addr()?);
        let road = Arc::new(Road {
            server: server.to_owned(),
            trouble,
            silent: AtomicBool::new(false),
            accepted: AtomicU32::new(0),
            open: AtomicU32::new(0),
            peak: AtomicU32::new(0),
        });
        let way = road.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let way = way.clone();
                tokio::spawn(async move { way.carry(client).await });
            }
        });
        Ok(Self { settings: DatabaseSettings::from_url(url), road, accepting: accepting.abort_handle() })
    }

    /// How many connections there were in all, and at most at a time.
    pub(crate) fn counts(&self) -> (u32, u32) {
        (self.road.accepted.load(Ordering::SeqCst), self.road.peak.load(Ordering::SeqCst))
    }

    /// Connections carry again; those that met the silence don't.
    pub(crate) fn heal(&self) {
        self.road.silent.store(false, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Road {
    async fn carry(&self, mut client: TcpStream) {
        let first = self.accepted.fetch_add(1, Ordering::SeqCst) == 0;
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(open, Ordering::SeqCst);
        let _ = self.between(&mut client, first).await; // whoever closes ends it
        self.open.fetch_sub(1, Ordering::SeqCst); // before the client hears of it and opens another
        drop(client);
    }

    async fn between(&self, client: &mut TcpStream, first: bool) -> std::io::Result<()> {
        let mut server = TcpStream::connect(&self.server).await?;
        let (mut asked, mut answered) = (vec![0; 16 << 10], vec![0; 16 << 10]);
        let mut asks = true;
        loop {
            tokio::select! {
                read = client.read(&mut asked), if asks => {
                    let bytes = &asked[..read?];
                    if bytes.is_empty() {
                        // Half of the connection: a cancel is over only when the server has closed the other half.
                        asks = false;
                        server.shutdown().await?;
                        continue;
                    }
                    let commit = bytes.windows(6).any(|word| word.eq_ignore_ascii_case(b"commit"));
                    if let Trouble::SilentAtCommit { heard } = self.trouble && commit {
                        if heard {
                            server.write_all(bytes).await?;
                        }
                        self.silent.store(true, Ordering::SeqCst);
                    }
                    if self.silent.load(Ordering::SeqCst) {
                        return until_closed(client).await;
                    }
                    if let Trouble::SlowFirst(delay) = self.trouble && first {
                        tokio::time::sleep(delay).await;
                    }
                    server.write_all(bytes).await?;
                }
                read = server.read(&mut answered) => {
                    let bytes = &answered[..read?];
                    if bytes.is_empty() {
                        return Ok(());
                    }
                    if self.silent.load(Ordering::SeqCst) {
                        return until_closed(client).await;
                    }
                    client.write_all(bytes).await?;
                }
            }
        }
    }
}

async fn until_closed(client: &mut TcpStream) -> std::io::Result<()> {
    let mut nothing = [0; 1_024];
    while client.read(&mut nothing).await? > 0 {}
    Ok(())
}
