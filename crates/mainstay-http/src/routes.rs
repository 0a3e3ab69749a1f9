//! [`Routes`]: an axum router that knows what it routes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, Route};
use http::Method;
use mainstay_core::{Error, Result};
use tower::{Layer, Service};

use crate::dialect::Dialect;
use crate::routing::{MethodRoute, MethodRoutes, RouteOptions};

mod openapi;

/// The options of every route, by template and method.
pub(crate) type OptionsTable = Arc<HashMap<String, HashMap<Method, RouteOptions>>>;

/// The routes of a service: axum's router with the names, types and limits of what it routes.
///
/// Paths are axum's: `/v1/orders/{id}`, `/files/{*rest}`. Mistakes (a path without its slash, two handlers for one
/// method, two templates that match the same paths) don't panic: the server's start fails with an error that names them.
///
/// ```
/// use axum::extract::State;
/// use mainstay_core::{Context, Result};
/// use mainstay_http::{Path, Routes, routing::get};
///
/// #[derive(Clone)]
/// struct Orders;
///
/// async fn show(_ctx: Context, State(_orders): State<Orders>, Path(id): Path<u64>) -> Result<String> {
///     Ok(format!("order {id}"))
/// }
///
/// let v1 = Routes::new().route("/orders/{id}", get(show).summary("One order")).with_state(Orders);
/// let routes: Routes = Routes::new().nest("/v1", v1);
/// let list = routes.routes();
/// assert_eq!((list[0].method.as_str(), list[0].path.as_str()), ("GET", "/v1/orders/{id}"));
/// assert_eq!(list[0].summary.as_deref(), Some("One order"));
/// ```
#[must_use = "routes do nothing until a server gets them"]
pub struct Routes<S = ()> {
    entries: Vec<Entry<S>>,
    layers: Vec<RouterLayer>,
    dialect: Option<Arc<dyn Dialect>>,
}

/// Routes, ready to be served.
pub(crate) struct Built {
    pub(crate) router: Router,
    pub(crate) options: OptionsTable,
    pub(crate) dialect: Option<Arc<dyn Dialect>>,
}

enum Entry<S> {
    Described(String, MethodRoutes<S>),
    Plain(String, Box<MethodRouter<S>>),
    Merged(Router<S>),
    Nested(String, Router<S>),
}

type RouterLayer = Box<dyn FnOnce(Router) -> Router + Send>;

/// One line of the list of routes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RouteInfo {
    /// The method, `CALL` for one of a [`Dialect`], or `*` for a plain axum method router, which doesn't tell.
    pub method: String,
    /// The template, as `/v1/orders/{id}`.
    pub path: String,
    /// The handler's name with its module, as `shop::http::show`.
    pub handler: String,
    /// What it does, if someone said so.
    pub summary: Option<String>,
}

impl<S> Routes<S>
where
    S: Clone + Send + Sync + 'static,
{
    /// No routes yet.
    pub fn new() -> Self {
        Self { entries: Vec::new(), layers: Vec::new(), dialect: None }
    }

    /// Routes `path` to `handlers`, made by [`get`](crate::routing::get) and its sisters.
    pub fn route(mut self, path: &str, handlers: MethodRoutes<S>) -> Self {
        self.entries.push(Entry::Described(path.to_owned(), handlers));
        self
    }

    /// Routes `path` to an axum method router. It is served like the others and has no description.
    pub fn route_axum(mut self, path: &str, handlers: MethodRouter<S>) -> Self {
        self.entries.push(Entry::Plain(path.to_owned(), Box::new(handlers)));
        self
    }

    /// Adds an axum router with its fallback, if it has one. Its routes are served like the others; they are missing
    /// from [`Routes::routes`] and OpenAPI, because axum doesn't list them.
    pub fn merge_axum(mut self, router: Router<S>) -> Self {
        self.entries.push(Entry::Merged(router));
        self
    }

    /// Answers requests that speak `dialect` in it. A second one takes the place of the first.
    pub fn dialect(mut self, dialect: impl Dialect) -> Self {
        self.dialect = Some(Arc::new(dialect));
        self
    }

    /// Adds the routes of `other`.
    pub fn merge(mut self, other: Routes<S>) -> Self {
        self.entries.extend(other.entries);
        self.layers.extend(other.layers);
        self.dialect = other.dialect.or(self.dialect);
        self
    }

    /// Adds the routes of `other` below `prefix`, as in `/v1`. The `/` of `other` is `prefix` itself.
    pub fn nest(mut self, prefix: &str, other: Routes<S>) -> Self {
        let below = |path: String| if path == "/" { prefix.to_owned() } else { format!("{prefix}{path}") };
        self.entries.extend(other.entries.into_iter().map(|entry| match entry {
            Entry::Described(path, handlers) => Entry::Described(below(path), handlers),
            Entry::Plain(path, handlers) => Entry::Plain(below(path), handlers),
            Entry::Merged(router) => Entry::Nested(prefix.to_owned(), router),
            Entry::Nested(path, router) => Entry::Nested(below(path), router),
        }));
        self.layers.extend(other.layers);
        self.dialect = other.dialect.or(self.dialect);
        self
    }

    /// Gives the routes so far their state; those that come after may have another.
    pub fn with_state<S2>(self, state: S) -> Routes<S2>
    where
        S2: Clone + Send + Sync + 'static,
    {
        let entries = self.entries.into_iter().map(|entry| match entry {
            Entry::Described(path, MethodRoutes { handlers }) => {
                let handlers = handlers.into_iter().map(|route| route.with_state(state.clone())).collect();
                Entry::Described(path, MethodRoutes { handlers })
            }
            Entry::Plain(path, handlers) => Entry::Plain(path, Box::new(handlers.with_state(state.clone()))),
            Entry::Merged(router) => Entry::Merged(router.with_state(state.clone())),
            Entry::Nested(path, router) => Entry::Nested(path, router.with_state(state.clone())),
        });
        Routes { entries: entries.collect(), layers: self.layers, dialect: self.dialect }
    }

    /// Wraps every route of the finished service, also those added later and the fallback, in a tower layer, inside the
    /// request pipeline: CORS, compression.
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Response: IntoResponse + 'static,
        <L::Service as Service<Request>>::Error: Into<Infallible> + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        self.layers.push(Box::new(move |router| router.layer(layer)));
        self
    }

    /// Every route that has a path of its own, sorted by path and method.
    pub fn routes(&self) -> Vec<RouteInfo> {
        let mut list = Vec::new();
        for entry in &self.entries {
            match entry {
                Entry::Described(path, MethodRoutes { handlers }) => {
                    list.extend(handlers.iter().map(|route| RouteInfo {
                        method: if route.options.call.is_some() { "CALL".to_owned() } else { route.method.to_string() },
                        path: path.clone(),
                        handler: route.handler.clone().into_owned(),
                        summary: route.summary.clone(),
                    }))
                }
                Entry::Plain(path, _) => list.push(RouteInfo {
                    method: "*".to_owned(),
                    path: path.clone(),
                    handler: "axum".to_owned(),
                    summary: None,
                }),
                Entry::Merged(_) | Entry::Nested(..) => {}
            }
        }
        list.sort_by(|a, b| (&a.path, &a.method).cmp(&(&b.path, &b.method)));
        list
    }

    fn described(&self) -> impl Iterator<Item = (&str, &MethodRoute<S>)> {
        self.entries.iter().flat_map(|entry| match entry {
            Entry::Described(path, MethodRoutes { handlers }) => {
                let shown = handlers.iter().filter(|route| route.options.call.is_none());
                shown.map(|route| (path.as_str(), route)).collect::<Vec<_>>()
            }
            Entry::Plain(..) | Entry::Merged(_) | Entry::Nested(..) => Vec::new(),
        })
    }
}

impl Routes<()> {
    /// What a server needs.
    ///
    /// # Errors
    /// `FailedPrecondition` with every mistake that axum would panic about.
    pub(crate) fn build(self) -> Result<Built> {
        self.check()?;
        let mut options: HashMap<String, HashMap<Method, RouteOptions>> = HashMap::new();
        let mut described: BTreeMap<String, MethodRouter> = BTreeMap::new();
        let mut router = Router::new();
        for entry in self.entries {
            match entry {
                Entry::Described(path, MethodRoutes { handlers }) => {
                    for route in handlers {
                        options.entry(path.clone()).or_default().insert(route.method, route.options);
                        let at = described.entry(path.clone()).or_default();
                        *at = std::mem::take(at).merge(route.router);
                    }
                }
                Entry::Plain(path, handlers) => router = router.route(&path, *handlers),
                Entry::Merged(other) => router = router.merge(other),
                Entry::Nested(path, other) => router = router.nest(&path, other),
            }
        }
        for (path, handlers) in described {
            router = router.route(&path, handlers);
        }
        // Handlers become services here, once: until then axum makes each of them, and each layer around it, anew for every
        // request.
        let router = router.with_state(());
        let router = self.layers.into_iter().fold(router, |router, layer| layer(router));
        Ok(Built { router, options: Arc::new(options), dialect: self.dialect })
    }

    fn check(&self) -> Result<()> {
        let mut mistakes = Vec::new();
        let mut methods = HashSet::new();
        let mut plain = HashSet::new();
        let mut matcher = matchit::Router::new();
        for entry in &self.entries {
            let path = match entry {
                Entry::Described(path, _) | Entry::Plain(path, _) => path,
                Entry::Nested(prefix, _) if prefix.is_empty() || prefix == "/" => {
                    mistakes.push("a plain axum router is nested at the root: merge it".to_owned());
                    continue;
                }
                Entry::Merged(_) | Entry::Nested(..) => continue,
            };
            if !path.starts_with('/') {
                mistakes.push(format!("the path `{path}` doesn't begin with `/`"));
            } else if path.split('/').any(|segment| segment.starts_with([':', '*'])) {
                mistakes.push(format!(
                    "the path `{path}` has a parameter in the old form: write `{{name}}` or `{{*rest}}`"
                ));
            } else if let Entry::Described(_, MethodRoutes { handlers }) = entry {
                let twice = handlers.iter().filter(|route| !methods.insert((path, &route.method)));
                mistakes.extend(twice.map(|route| format!("{} {path} has two handlers", route.method)));
            }
            let is_plain = matches!(entry, Entry::Plain(..));
            if is_plain && !plain.insert(path) {
                mistakes.push(format!("the path `{path}` has two plain method routers: merge them"));
            }
            if let Err(error) = matcher.insert(path, path)
                && matcher.at(path).map_or(true, |found| found.value != &path)
            {
                mistakes.push(format!("the path `{path}` can't be routed: {error}"));
            }
        }
        let described: HashSet<_> = methods.iter().map(|(path, _)| *path).collect();
        mistakes.extend(
            plain.intersection(&described).map(|path| format!("the path `{path}` is routed by route and route_axum")),
        );
        if mistakes.is_empty() {
            return Ok(());
        }
        Err(Error::failed_precondition(format!("the routes can't be served: {}", mistakes.join("; "))))
    }
}

impl<S> MethodRoute<S>
where
    S: Clone + Send + Sync + 'static,
{
    fn with_state<S2>(self, state: S) -> MethodRoute<S2> {
        let Self { method, router, handler, describe, options, summary, tags } = self;
        MethodRoute { method, router: router.with_state(state), handler, describe, options, summary, tags }
    }
}

impl<S> Default for Routes<S>
where
    S: Clone + Send + Sync + 'static,
{
    fn default() -> Self {
        Self::new()
    }
}

/// A plain axum router, as [`Routes::merge_axum`] takes it.
impl From<Router> for Routes {
    fn from(router: Router) -> Self {
        Self::new().merge_axum(router)
    }
}

impl<S> fmt::Debug for Routes<S>
where
    S: Clone + Send + Sync + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.routes()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::{get, post};

    async fn nothing() {}

    fn mistake(routes: Routes) -> String {
        routes.build().err().unwrap().message().to_owned()
    }

    #[test]
    fn what_axum_panics_about_is_an_error_that_names_it() {
        for (routes, expected) in [
            (Routes::new().route("orders", get(nothing)), "the path `orders` doesn't begin with `/`"),
            (Routes::new().route("", get(nothing)), "the path `` doesn't begin with `/`"),
            (Routes::new().route("/a/:id", get(nothing)), "write `{name}`"),
            (Routes::new().route("/a", get(nothing).get(nothing)), "GET /a has two handlers"),
            (Routes::new().route("/a", get(nothing)).route("/a", get(nothing)), "GET /a has two handlers"),
            (Routes::new().route("/{a}", get(nothing)).route("/{b}", get(nothing)), "the path `/{b}` can't be routed"),
            (Routes::new().route("/{a", get(nothing)), "the path `/{a` can't be routed"),
            (Routes::new().route("/a", get(nothing)).route_axum("/a", MethodRouter::new()), "route and route_axum"),
            (
                Routes::new().route_axum("/a", MethodRouter::new()).route_axum("/a", MethodRouter::new()),
                "two plain method routers",
            ),
            (Routes::new().nest("", Routes::from(Router::new())), "merge it"),
        ] {
            let message = mistake(routes);
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn one_path_may_be_routed_in_parts() {
        let routes = Routes::new().route("/a", get(nothing)).route("/a", post(nothing)).route("/a/{b}", get(nothing));
        assert!(routes.build().is_ok());
    }

    #[test]
    fn the_list_has_full_paths_in_order() {
        let inner = Routes::new().route("/", get(nothing)).route("/x", post(nothing).summary("Makes x").get(nothing));
        let routes: Routes = Routes::new().route("/z", get(nothing)).nest("/v1", inner);
        let list: Vec<_> = routes.routes().into_iter().map(|route| (route.method, route.path, route.summary)).collect();
        let text = |text: &str| text.to_owned();
        assert_eq!(
            list,
            [
                (text("GET"), text("/v1"), None),
                (text("GET"), text("/v1/x"), None),
                (text("POST"), text("/v1/x"), Some(text("Makes x"))),
                (text("GET"), text("/z"), None),
            ]
        );
        assert!(routes.routes()[0].handler.ends_with("tests::nothing"));
    }
}
