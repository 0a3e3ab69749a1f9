//! [`Io`]: a socket that notes what it does in the [`Connection`] it belongs to, and can be read ahead of the parser.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::Connection;
use super::activity::PREFACE;

/// A stream with its place among the connections: the permit and the drain are held until the stream is closed, also
/// by a handler that took it over (a WebSocket).
pub(super) struct Io<T> {
    stream: T,
    /// What has been read and no parser has seen. Without an allocation while it is empty.
    ahead: BytesMut,
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
        Self { stream, ahead: BytesMut::new(), connection, _permit: permit, _drain: drain }
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// What the next parser will see first.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Gives back what a parser has read and not used.
    pub(super) fn unread(&mut self, bytes: Bytes) {
        self.ahead = BytesMut::from(bytes);
    }

    fn noted<V>(&self, written: Poll<V>) -> Poll<V> {
        match written {
            Poll::Pending => self.connection.activity.write_blocked(),
            Poll::Ready(_) => self.connection.activity.write_moved(),
        }
        written
    }
}

impl<T: AsyncRead + Unpin> Io<T> {
    /// Waits until the peer has sent something, and keeps the first bytes of it for the parser: enough to tell the
    /// protocol. Zero bytes are the end of what the peer sends.
    pub(super) fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut bytes = [0; PREFACE.len()];
        let mut buffer = ReadBuf::new(&mut bytes);
        ready!(self.poll_stream(cx, &mut buffer))?;
        self.ahead.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
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

impl<T: AsyncRead + Unpin> AsyncRead for Io<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return self.poll_stream(cx, buffer);
        }
        let length = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead.split_to(length));
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new(); // the empty rest of an allocation keeps all of it
        }
        Poll::Ready(Ok(()))
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
        if self.connection.activity.is_going_to_rest() {
            return Poll::Ready(Ok(())); // the parser ends and the connection doesn't
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio_util::task::TaskTracker;

    use super::super::activity::{Activity, Verdict};
    use super::*;
    use crate::HttpSettings;

    /// Takes a small response and can't pass it on, as TLS over a socket whose peer doesn't read.
    struct Keeps;

    impl AsyncWrite for Keeps {
        fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_stays_in_the_buffers_of_tls_is_a_client_that_does_not_read() {
        let (context, _) = mainstay_core::Context::background().with_cancel();
        let peer = ([127, 0, 0, 1], 1).into();
        let connection = Arc::new(Connection { context, peer, activity: Activity::new() });
        let mut io = Io::new(Keeps, connection.clone(), None, TaskTracker::new().token());
        poll_fn(|cx| {
            assert!(Pin::new(&mut io).poll_write(cx, b"HTTP/1.1 200 OK").is_ready());
            assert!(Pin::new(&mut io).poll_flush(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        let limits = HttpSettings::default();
        tokio::time::advance(limits.write_timeout).await;
        assert_eq!(
            connection.activity.verdict(&limits, None),
            Verdict::Stalled("the client doesn't read its response")
        );
    }
}
