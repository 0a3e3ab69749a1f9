//! [`Pool`]: the connections to every address of a name.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use http::Uri;
use mainstay_core::{Error, Result};
use tokio::sync::OnceCell;
use tokio::sync::mpsc::Sender;
use tokio::task::AbortHandle;
use tonic::transport::channel::Change;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

/// How often the name is looked up again: a replica that has come gets its share within this.
const LOOK: Duration = Duration::from_secs(10);

/// How long a connection may take to open. Within a data centre it takes a millisecond; what takes seconds is lost.
const CONNECT: Duration = Duration::from_secs(3);

/// How often a connection is asked whether its peer lives, and how long that may take. Servers refuse who asks more often.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(5);

/// How many changes of the addresses may wait to be applied.
const CHANGES: usize = 64;

pub(super) struct Pool {
    url: Uri,
    host: String,
    port: u16,
    open: OnceCell<Open>,
}

struct Open {
    channel: Channel,
    follower: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Pool {
    pub(super) fn new(url: &str) -> Result<Self> {
        let refused = || {
            Error::invalid_argument(format!(
                "`{url}` can't be called: expected http://host:port or https://host:port and no path"
            ))
        };
        let uri: Uri = url.parse().map_err(|_| refused())?;
        let default_port = match uri.scheme_str() {
            Some("http") => 80,
            Some("https") => 443,
            _ => return Err(refused()),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(refused());
        }
        let host = uri.host().ok_or_else(refused)?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(default_port);
        Ok(Self { url: uri, host, port, open: OnceCell::new() })
    }

    /// The connections; looks the name up the first time.
    pub(super) async fn connections(&self) -> Result<Channel> {
        let open = self.open.get_or_try_init(|| async {
            let known = look_up(&self.host, self.port).await?;
            let (channel, changes) = Channel::balance_channel(CHANGES.max(known.len()));
            for addr in &known {
                let change = Change::Insert(*addr, self.endpoint(*addr)?);
                let _ = changes.try_send(change); // there is room for all of them
            }
            let follower = self.follow(known, changes)?;
            Ok::<_, Error>(Open { channel, follower })
        });
        Ok(open.await?.channel.clone())
    }

    /// Follows the name from now on.
    fn follow(
        &self,
        mut known: BTreeSet<SocketAddr>,
        changes: Sender<Change<SocketAddr, Endpoint>>,
    ) -> Result<AbortHandle> {
        let (host, port, template) = (self.host.clone(), self.port, self.template()?);
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                // A name server that doesn't answer has taken no replica away.
                let Ok(found) = look_up(&host, port).await else { continue };
                for gone in known.difference(&found) {
                    let _ = changes.send(Change::Remove(*gone)).await;
                }
                for new in found.difference(&known) {
                    if let Ok(endpoint) = template.endpoint(*new) {
                        let _ = changes.send(Change::Insert(*new, endpoint)).await;
                    }
                }
                known = found;
            }
        });
        Ok(task.abort_handle())
    }

    fn template(&self) -> Result<Template> {
        let tls = (self.url.scheme_str() == Some("https"))
            .then(|| ClientTlsConfig::new().with_native_roots().domain_name(self.host.clone()));
        Ok(Template { url: self.url.clone(), tls })
    }

    fn endpoint(&self, addr: SocketAddr) -> Result<Endpoint> {
        self.template()?.endpoint(addr)
    }
}

/// What the connections to all addresses have in common.
struct Template {
    url: Uri,
    tls: Option<ClientTlsConfig>,
}

impl Template {
    fn endpoint(&self, addr: SocketAddr) -> Result<Endpoint> {
        let unusable = |error| Error::from_any(error).context("setting up a connection for gRPC");
        let scheme = self.url.scheme_str().unwrap_or("http");
        let endpoint = Endpoint::from_shared(format!("{scheme}://{addr}"))
            .map_err(unusable)?
            .origin(self.url.clone())
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_ANSWER)
            .keep_alive_while_idle(true);
        match &self.tls {
            Some(tls) => endpoint.tls_config(tls.clone()).map_err(unusable),
            None => Ok(endpoint),
        }
    }
}

async fn look_up(host: &str, port: u16) -> Result<BTreeSet<SocketAddr>> {
    let found = tokio::net::lookup_host((host, port)).await;
    let unknown = || Error::unavailable("another service can't be found by its name");
    let addresses: BTreeSet<_> = found.map_err(|error| unknown().with_source(error))?.collect();
    if addresses.is_empty() { Err(unknown()) } else { Ok(addresses) }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_called_is_refused_with_what_can() {
        for url in ["", "stock:8080", "ftp://stock", "http://stock/path", "http://"] {
            assert!(Pool::new(url).unwrap_err().message().contains("expected http://host:port"), "{url}");
        }
        for (url, port) in [("http://stock", 80), ("https://stock/", 443), ("http://[::1]:9", 9)] {
            assert_eq!(Pool::new(url).unwrap().port, port, "{url}");
        }
    }
}
