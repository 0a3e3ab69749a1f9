//! Method routers that remember what they route: [`get`], [`post`], [`put`], [`patch`], [`delete`].
//!
//! They have the names and the handlers of [`axum::routing`], and add what `routes`, OpenAPI and the pipeline need to
//! know.

use std::borrow::Cow;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::Request;
use axum::handler::Handler;
use axum::response::IntoResponse;
use axum::routing::{MethodFilter, MethodRouter, Route};
use http::Method;
use mainstay_core::ByteSize;
use tower::{Layer, Service};

use crate::describe::{DescribedHandler, Operation};

/// The handlers of one path, by method.
///
/// What follows a handler describes or limits that handler: `get(show).summary("One order").put(replace)
/// .deadline(Duration::from_secs(2))` gives `replace` two seconds and leaves `show` as it is. Only
/// [`MethodRoutes::layer`] applies to all handlers before it, as it does in axum.
///
/// ```
/// use std::time::Duration;
/// use mainstay_core::Result;
/// use mainstay_http::routing::{CancelPolicy, get};
///
/// async fn show() -> Result<&'static str> {
///     Ok("here")
/// }
/// async fn replace(body: String) -> Result<()> {
///     Ok(())
/// }
/// let routes = get(show).summary("Show it").put(replace).deadline(Duration::from_secs(2)).cancel(CancelPolicy::Drop);
/// # let _: mainstay_http::Routes = mainstay_http::Routes::new().route("/", routes);
/// ```
#[derive(Clone)]
#[must_use = "a method router does nothing until it is given to Routes::route"]
pub struct MethodRoutes<S = ()> {
    pub(crate) handlers: Vec<MethodRoute<S>>,
}

/// One handler with all that is known about it.
#[derive(Clone)]
pub(crate) struct MethodRoute<S> {
    pub(crate) method: Method,
    pub(crate) router: MethodRouter<S>,
    pub(crate) handler: Cow<'static, str>,
    pub(crate) describe: fn(&mut Operation),
    pub(crate) options: RouteOptions,
    pub(crate) summary: Option<String>,
    pub(crate) tags: Vec<String>,
}

/// What a route changes about its requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RouteOptions {
    pub(crate) deadline: Option<Duration>,
    pub(crate) unlimited: bool,
    pub(crate) cancel: CancelPolicy,
    pub(crate) body_limit: Option<ByteSize>,
    /// A call of a dialect, and whether it has more than one message.
    pub(crate) call: Option<Messages>,
}

/// How many messages a call takes and gives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Messages {
    /// One each way.
    One,
    /// Any number, at least in one direction. Such a call has no deadline of the server's, and its limits hold for each
    /// message.
    Many,
}

/// Routes calls of a [`Dialect`](crate::dialect::Dialect) to `service`, under `name` in the list of routes, as
/// `shop.v1.Orders/PlaceOrder`.
///
/// A call that its client gives up is dropped ([`CancelPolicy::Drop`]). It is no part of OpenAPI.
pub fn call<T, S>(name: impl Into<Cow<'static, str>>, messages: Messages, service: T) -> MethodRoutes<S>
where
    T: Service<Request, Error = Infallible> + Clone + Send + Sync + 'static,
    T::Response: IntoResponse + 'static,
    T::Future: Send + 'static,
    S: Clone + Send + Sync + 'static,
{
    let options = RouteOptions {
        unlimited: messages == Messages::Many,
        cancel: CancelPolicy::Drop,
        call: Some(messages),
        ..RouteOptions::default()
    };
    MethodRoutes {
        handlers: vec![MethodRoute {
            method: Method::POST,
            router: MethodRouter::new().on_service(MethodFilter::POST, service),
            handler: name.into(),
            describe: |_| {},
            options,
            summary: None,
            tags: Vec::new(),
        }],
    }
}

/// What becomes of a handler when its client leaves before the answer.
///
/// hyper notices a client that leaves while nothing of it is unread: with a second request pipelined behind the first,
/// or a body that the handler hasn't read, the handler runs on under any policy. [When a client
/// leaves](crate#when-a-client-leaves) has a table of what happens when.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum CancelPolicy {
    /// By the method: a safe one (GET, HEAD, OPTIONS, TRACE) is dropped, any other runs on.
    #[default]
    ByMethod,
    /// The handler is dropped at its next await; its context is done with `Cause::ClientGone`.
    Drop,
    /// The handler runs on to its own deadline. The drain waits for it, and a cut reports it.
    Detach,
}

impl CancelPolicy {
    pub(crate) fn detaches(self, method: &Method) -> bool {
        match self {
            CancelPolicy::ByMethod => !method.is_safe(),
            CancelPolicy::Drop => false,
            CancelPolicy::Detach => true,
        }
    }
}

macro_rules! methods {
    ($($name:ident, $method:ident, $what:literal;)*) => {
        $(
            #[doc = concat!("Routes ", $what, " requests to `handler`.")]
            pub fn $name<H, T, S>(handler: H) -> MethodRoutes<S>
            where
                H: Handler<T, S> + DescribedHandler<T>,
                T: 'static,
                S: Clone + Send + Sync + 'static,
            {
                MethodRoutes::empty().$name(handler)
            }
        )*

        impl<S: Clone + Send + Sync + 'static> MethodRoutes<S> {
            $(
                #[doc = concat!("Routes ", $what, " requests to `handler` too.")]
                pub fn $name<H, T>(self, handler: H) -> Self
                where
                    H: Handler<T, S> + DescribedHandler<T>,
                    T: 'static,
                {
                    self.with(Method::$method, MethodFilter::$method, handler)
                }
            )*
        }
    };
}

methods! {
    get, GET, "GET (and HEAD)";
    post, POST, "POST";
    put, PUT, "PUT";
    patch, PATCH, "PATCH";
    delete, DELETE, "DELETE";
    options, OPTIONS, "OPTIONS";
}

impl<S: Clone + Send + Sync + 'static> MethodRoutes<S> {
    fn empty() -> Self {
        Self { handlers: Vec::new() }
    }

    fn with<H, T>(mut self, method: Method, filter: MethodFilter, handler: H) -> Self
    where
        H: Handler<T, S> + DescribedHandler<T>,
        T: 'static,
    {
        self.handlers.push(MethodRoute {
            method,
            router: MethodRouter::new().on(filter, handler),
            handler: std::any::type_name::<H>().into(),
            describe: <H as DescribedHandler<T>>::describe,
            options: RouteOptions::default(),
            summary: None,
            tags: Vec::new(),
        });
        self
    }

    /// One line that says what the handler before does, for OpenAPI and the list of routes.
    pub fn summary(self, summary: impl Into<String>) -> Self {
        self.change_last(|route| route.summary = Some(summary.into()))
    }

    /// Groups the handler before under `tag` in OpenAPI.
    pub fn tag(self, tag: impl Into<String>) -> Self {
        self.change_last(|route| route.tags.push(tag.into()))
    }

    /// The longest the handler before may take. It shortens the server's `request_timeout` and never lengthens it.
    pub fn deadline(self, limit: Duration) -> Self {
        self.change_last(|route| (route.options.deadline, route.options.unlimited) = (Some(limit), false))
    }

    /// Lifts every deadline of the server's from the handler before; a caller's own still holds. For streams without
    /// an end, such as server-sent events.
    pub fn without_deadline(self) -> Self {
        self.change_last(|route| route.options.unlimited = true)
    }

    /// What becomes of the handler before when its client leaves.
    pub fn cancel(self, policy: CancelPolicy) -> Self {
        self.change_last(|route| route.options.cancel = policy)
    }

    /// The largest body the handler before takes, instead of the server's `max_body_bytes`.
    pub fn body_limit(self, limit: ByteSize) -> Self {
        self.change_last(|route| route.options.body_limit = Some(limit))
    }

    /// Wraps every handler before in a tower layer.
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Response: IntoResponse + 'static,
        <L::Service as Service<Request>>::Error: Into<Infallible> + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        for route in &mut self.handlers {
            route.router = std::mem::take(&mut route.router).layer(layer.clone());
        }
        self
    }

    fn change_last(mut self, change: impl FnOnce(&mut MethodRoute<S>)) -> Self {
        // Every constructor adds a handler.
        if let Some(route) = self.handlers.last_mut() {
            change(route);
        }
        self
    }
}
