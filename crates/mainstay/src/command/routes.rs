//! `routes`: what the service answers to.

use mainstay_http::Routes;

use super::print::table;

pub(crate) fn routes(routes: &Routes) -> String {
    let rows: Vec<_> = routes
        .routes()
        .into_iter()
        .map(|route| [route.method, route.path, route.summary.unwrap_or_default(), route.handler])
        .collect();
    table(&rows)
}
