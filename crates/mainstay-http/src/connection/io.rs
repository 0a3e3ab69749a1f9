//! [`Io`]: a socket that notes what it does in the [`Connection`] it belongs to.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::Connection;

/// A stream with its place among the connections: the permit and the drain are held until the stream is closed, also
/// by a handler that took it over (a WebSocket).
pub(super) struct Io<T> {
    stream: T,
    connection: Arc<Connection>,
    _permit: Option<OwnedSemaphorePermit>,
    _drain: TaskTrackerToken,
}

impl<T> Io<T> {
    pub(super) fn new(
        stream: T,
        connection: Arc<Connection>,
        permit: Option<OwnedSemaphorePermit>,
        drain: TaskTrackerToken,
    ) -> Self {
        Self { stream, connection, _permit: permit, _drain: drain }
    }

    fn noted<V>(&self, written: Poll<V>) -> Poll<V> {
        match written {
            Poll::Pending => self.connection.activity.write_blocked(),
            Poll::Ready(_) => self.connection.activity.write_moved(),
        }
        written
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Io<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Some(bytes) = buffer.filled().get(before..)
            && !bytes.is_empty()
        {
            self.connection.activity.received(bytes);
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Io<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.noted(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket has nothing to flush. TLS takes a small response at once and keeps it while the peer doesn't read.
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.noted(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
