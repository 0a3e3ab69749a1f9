//! The bodies: a request's is bounded in size and patience, a response's carries the [`Record`] to its last byte.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::Limited;
use mainstay_core::{Canceler, Cause};
use tokio::time::{Instant, Sleep, sleep_until};

use super::record::{Outcome, Record};

/// Bounds a request's body to `limit` bytes and to pauses of `patience`.
pub(super) fn guard(body: Body, limit: usize, patience: Duration) -> Body {
    Body::new(Limited::new(Patient { body, patience, timer: None }, limit))
}

/// A body that fails with [`BodyTimeout`] when nothing comes for too long.
struct Patient {
    body: Body,
    patience: Duration,
    /// Made when the body first lets the handler wait; most bodies came with their head.
    timer: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for Patient {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.timer = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + this.patience)));
        timer.as_mut().poll(cx).map(|()| Some(Err(BodyTimeout(this.patience).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request's body paused for longer than the server waits.
#[derive(Debug)]
pub(crate) struct BodyTimeout(Duration);

impl fmt::Display for BodyTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no byte of the body came for {:?}", self.0)
    }
}

impl std::error::Error for BodyTimeout {}

/// Lets `record` end with the response's body. A body that ends early cancels the request's context: its producer
/// works for nobody.
pub(super) fn track(response: Response, mut record: Record, canceler: Canceler) -> Response {
    record.status = response.status();
    record.read(response.headers());
    let bodiless = record.is_head()
        || response.status().is_informational()
        || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || response.body().is_end_stream();
    if bodiless {
        // hyper takes no frame from these, so that nothing would ever tell us of their end.
        record.outcome = Outcome::Complete;
        return response;
    }
    let announced =
        response.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let length = response.body().size_hint().exact().or(announced);
    response.map(|body| Body::new(Tracked { body, left: length, ended: false, record, canceler }))
}

struct Tracked {
    body: Body,
    /// How many bytes are missing from a body of known length: hyper drops such a body at its last byte and doesn't
    /// ask for the end.
    left: Option<u64>,
    ended: bool,
    record: Record,
    canceler: Canceler,
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let mut this_is_all = false;
        match &polled {
            Poll::Ready(None) => self.ended = true,
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.left = self.left.map(|left| left.saturating_sub(length));
                if let Some(trailers) = frame.trailers_ref() {
                    this_is_all = true; // hyper asks for nothing after trailers
                    self.record.read(trailers);
                }
            }
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        self.ended |= this_is_all;
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        if self.ended || self.left == Some(0) || self.body.is_end_stream() {
            self.record.outcome = Outcome::Complete;
        } else {
            self.canceler.cancel_because(Cause::ClientGone);
        }
    }
}
