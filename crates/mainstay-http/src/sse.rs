//! [`Sse`]: server-sent events that end when they should.

use std::error::Error as StdError;

pub use axum::response::sse::Event;
use axum::response::sse::KeepAlive;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use http::StatusCode;
use mainstay_core::Context;

use crate::Draining;

/// A stream of server-sent events.
///
/// It ends with its stream, when the client leaves, when the request's deadline passes, and when the server begins to
/// drain: clients reconnect and find another replica. A comment every 15 s keeps proxies from closing it. Route it with
/// [`without_deadline`](crate::routing::MethodRoutes::without_deadline), or it ends after the server's
/// `request_timeout`.
///
/// A browser's `EventSource` comes back with `Last-Event-ID` whenever a stream has ended. Where there will never be more
/// for it, answer [`Sse::ended`].
///
/// ```
/// use std::convert::Infallible;
/// use futures_util::stream;
/// use mainstay_core::Context;
/// use mainstay_http::{Routes, routing::get, sse::{Event, Sse}};
///
/// async fn ticks(ctx: Context) -> Sse {
///     Sse::new(&ctx, stream::iter([Ok::<_, Infallible>(Event::default().data("tick"))]))
/// }
/// let routes: Routes = Routes::new().route("/ticks", get(ticks).without_deadline());
/// ```
#[derive(Debug)]
pub struct Sse(Response);

impl Sse {
    /// Sends `events` until one of the ends above. An error of the stream breaks the connection off.
    pub fn new<E>(ctx: &Context, events: impl Stream<Item = Result<Event, E>> + Send + 'static) -> Self
    where
        E: StdError + Send + Sync + 'static,
    {
        let (ctx, draining) = (ctx.clone(), Draining::of(ctx));
        let end = async move {
            match draining {
                None => drop(ctx.done().await),
                Some(draining) => tokio::select! {
                    _ = ctx.done() => {}
                    () = draining.wait() => {}
                },
            }
        };
        let events = events.take_until(Box::pin(end));
        Self(axum::response::sse::Sse::new(events).keep_alive(KeepAlive::default()).into_response())
    }

    /// 204: the client has seen all that there will ever be. It is the one answer after which an `EventSource` doesn't
    /// come back.
    pub fn ended() -> Self {
        Self(StatusCode::NO_CONTENT.into_response())
    }
}

impl IntoResponse for Sse {
    fn into_response(self) -> Response {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_source_is_told_not_to_come_back() {
        assert_eq!(Sse::ended().into_response().status(), StatusCode::NO_CONTENT);
    }
}
