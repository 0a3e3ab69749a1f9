//! [`Tls`]: rustls as `tokio-postgres` takes it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use mainstay_core::{Error, Result};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_rustls::{Connect, TlsConnector, client};

use super::verify;
use crate::settings::TlsTrust;

/// How to speak TLS to one server.
#[derive(Clone)]
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

/// A handshake in progress.
pub(super) struct Handshake<S>(Connect<S>);

/// An encrypted stream.
pub(super) struct Secured<S>(client::TlsStream<S>);

impl Tls {
    /// `None` if `trust` wants no TLS.
    pub(super) fn new(trust: &TlsTrust, host: &str) -> Result<Option<Self>> {
        let Some(config) = verify::configuration(trust)? else { return Ok(None) };
        let name = ServerName::try_from(host.to_owned()).map_err(|error| {
            Error::failed_precondition(format!("database url: a certificate can't be for host `{host}`: {error}"))
        })?;
        Ok(Some(Self { connector: TlsConnector::from(Arc::new(config)), name }))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsConnect<S> for Tls {
    type Stream = Secured<S>;
    type Error = io::Error;
    type Future = Handshake<S>;

    fn connect(self, stream: S) -> Handshake<S> {
        Handshake(self.connector.connect(self.name, stream))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Handshake<S> {
    type Output = io::Result<Secured<S>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_ok(Secured)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Secured<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secured<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Secured<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    /// Ends without TLS's own goodbye. PostgreSQL's protocol says itself where it ends; and a server that has closed
    /// after a cancel request, with our goodbye unread, resets the connection: that looks like a cancel that failed.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_flush(cx))?;
        Pin::new(self.0.get_mut().0).poll_shutdown(cx)
    }
}
