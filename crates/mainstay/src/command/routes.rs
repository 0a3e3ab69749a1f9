//! `routes`: what the service answers to.

use mainstay_http::RouteInfo;

use super::print::table;

pub(crate) fn routes(routes: Vec<RouteInfo>) -> String {
    let rows: Vec<_> = routes
        .into_iter()
        .map(|route| [route.method, route.path, route.summary.unwrap_or_default(), route.handler])
        .collect();
    table(&rows)
}
