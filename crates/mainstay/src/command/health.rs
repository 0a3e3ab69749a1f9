//! `health`: asks the running service on its admin port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mainstay_core::{Context, Error, Result};
use mainstay_http::Client;

use super::out;
use crate::configuration::Configuration;

/// Shorter than the timeout of every orchestrator's health check.
const TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) async fn health<S>(configuration: &Configuration<S>) -> Result<()> {
    let ctx = Context::background().with_timeout(TIMEOUT);
    let url = format!("http://{}/readyz", reachable(configuration.admin.addr));
    let answer = Client::new()?.get(&url).exchange(&ctx).await.map_err(|error| {
        let message = format!("the service does not answer on {url} (admin.addr)");
        Error::unavailable(message).with_source(error)
    })?;
    let (ready, text) = (answer.status().is_success(), answer.text().await?);
    if ready { out(&format!("{text}\n")) } else { Err(Error::unavailable(format!("not ready: {text}"))) }
}

/// Where to reach a listener of this machine: one that listens everywhere is asked on loopback.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_asked_on_loopback() {
        for (listens, asked) in
            [("0.0.0.0:9000", "127.0.0.1:9000"), ("[::]:9000", "[::1]:9000"), ("10.0.0.7:9000", "10.0.0.7:9000")]
        {
            assert_eq!(reachable(listens.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
