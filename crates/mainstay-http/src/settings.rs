//! [`HttpSettings`]: every limit of the server, with its default and its reason.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use mainstay_core::ByteSize;
use mainstay_core::settings::duration;
use serde::{Deserialize, Serialize};

/// The settings of the HTTP server; the section `http` of the configuration.
///
/// Durations are written `30s` or `250ms`, sizes `1MiB` or plain bytes.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct HttpSettings {
    /// The address to listen on; port 0 takes a free one. Loopback by default, so that a service is reachable from
    /// elsewhere only when someone asked for it.
    pub addr: SocketAddr,

    /// How the address passes to the next process of the same service on this machine.
    pub handover: Handover,

    /// The longest a request may take until its response begins. A route or a caller can shorten it, never lengthen it.
    #[serde(with = "duration")]
    pub request_timeout: Duration,

    /// How long a new connection may stay silent. It costs a file descriptor and nothing else, but enough of them use
    /// up the connection limit.
    #[serde(with = "duration")]
    pub first_byte_timeout: Duration,

    /// How long a request's head may take from its first byte. Slower senders are attackers or broken.
    #[serde(with = "duration")]
    pub header_read_timeout: Duration,

    /// How long a request's body may pause. The whole of it is bounded by the deadline of the request.
    #[serde(with = "duration")]
    pub body_read_timeout: Duration,

    /// How long a client may refuse to read its response before the connection is cut.
    #[serde(with = "duration")]
    pub write_timeout: Duration,

    /// How long a connection may wait for its next request. Longer than the idle time of load balancers (60 s is the
    /// usual), so that they close first and never send a request into a closing connection.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,

    /// How many connections may be open, at least one. When all are, new ones wait in the kernel's queue.
    pub max_connections: usize,

    /// The largest head of a request: its target and headers together, in bytes. Answered with 431.
    pub max_header_bytes: ByteSize,

    /// The most headers a request may have. Answered with 431. At 100 and more the parser leaves its fast path.
    pub max_header_count: usize,

    /// The largest body of a request, in bytes, where its route says nothing else. Answered with 413.
    pub max_body_bytes: ByteSize,

    /// How many requests one HTTP/2 connection may have open.
    pub max_concurrent_streams: u32,

    /// How often a quiet HTTP/2 connection is asked whether its peer is still there.
    #[serde(with = "duration")]
    pub http2_keep_alive_interval: Duration,

    /// How old an HTTP/2 connection may become before its client is told to open another (GOAWAY), so that clients find
    /// replicas that have come since; 0 is for ever. Up to a tenth is added at random, or all would come at once.
    #[serde(with = "duration")]
    pub http2_max_age: Duration,

    /// How long the calls of a connection that is too old may go on before it is cut.
    #[serde(with = "duration")]
    pub http2_max_age_grace: Duration,

    /// Whether a client that closes its sending side still waits for the answer. Off: the handler of a safe method is
    /// dropped when that happens, because most clients that do it have left.
    pub allow_half_close: bool,

    /// HTTPS instead of HTTP. Off by default: most services stand behind a proxy that ends TLS.
    pub tls: Option<TlsSettings>,
}

/// The certificate of an HTTPS server; the section `http.tls` of the configuration.
///
/// TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN. When the files change, new connections get the new certificate and
/// open ones go on; a certificate that can't be used is logged as an error and the one before stays.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct TlsSettings {
    /// The PEM file with the certificate, followed by the intermediate ones.
    pub certificate: PathBuf,

    /// The PEM file with the private key (PKCS#8, PKCS#1 or SEC1), not encrypted.
    pub private_key: PathBuf,

    /// How often the two files are looked at; 0 is never.
    #[serde(default = "ten_seconds", with = "duration")]
    pub reload_interval: Duration,

    /// How long a client may take for the TLS handshake, which counts as an open connection.
    #[serde(default = "ten_seconds", with = "duration")]
    pub handshake_timeout: Duration,
}

impl TlsSettings {
    /// The two files, and the defaults for the rest.
    pub fn new(certificate: impl Into<PathBuf>, private_key: impl Into<PathBuf>) -> Self {
        Self {
            certificate: certificate.into(),
            private_key: private_key.into(),
            reload_interval: ten_seconds(),
            handshake_timeout: ten_seconds(),
        }
    }
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            handover: Handover::Socket,
            request_timeout: Duration::from_secs(30),
            first_byte_timeout: Duration::from_secs(10),
            header_read_timeout: Duration::from_secs(10),
            body_read_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            max_connections: 10_000,
            max_header_bytes: ByteSize::kib(16),
            max_header_count: 64,
            max_body_bytes: ByteSize::mib(1),
            max_concurrent_streams: 200,
            http2_keep_alive_interval: Duration::from_secs(20),
            http2_max_age: Duration::ZERO,
            http2_max_age_grace: Duration::from_secs(30),
            allow_half_close: false,
            tls: None,
        }
    }
}

/// How a listening address passes to the next process of the same service.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Handover {
    /// The new process asks the old one for the listening socket, and the old one drains when the new one is ready. The
    /// kernel's queue of connections belongs to the socket: none is lost.
    #[default]
    Socket,
    /// It doesn't: a new process fails to start while the old one listens.
    Off,
    /// Both listen with `SO_REUSEPORT`, and whoever started the new process ends the old one. Connections that wait in
    /// the closing socket's queue are reset by the kernel, so that some requests fail.
    Reuseport,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_survive_the_round_trip_and_an_empty_section_is_the_defaults() {
        let text = serde_json::to_string(&HttpSettings::default()).unwrap();
        assert!(text.contains(r#""addr":"127.0.0.1:8080""#) && text.contains(r#""request_timeout":"30s""#), "{text}");
        assert_eq!(serde_json::from_str::<HttpSettings>(&text).unwrap(), HttpSettings::default());
        assert_eq!(serde_json::from_str::<HttpSettings>("{}").unwrap(), HttpSettings::default());
    }
}
