//! The HTTP face: handlers that take a request apart, call a service and put an answer together.

use std::sync::Arc;

use futures_util::StreamExt;
use mainstay::http::axum::http::HeaderMap;
use mainstay::http::sse::{self, Sse};
use mainstay::prelude::*;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::domain::{Change, NewOrder, Order, OrderStatus, Page, Product, PutProduct};
use crate::repository::{SqlOrders, SqlProducts};
use crate::service::{Catalogue, OrderFilter, OrderService, Put};

type Products = Arc<Catalogue<SqlProducts>>;
type Orders = Arc<OrderService<SqlOrders, SqlProducts>>;

/// The shop's routes.
pub fn routes(catalogue: Products, orders: Orders) -> Routes {
    let products = Routes::new()
        .route("/v1/products", get(list_products).summary("List products by key"))
        .route(
            "/v1/products/{sku}",
            get(show_product).summary("Show a product").put(put_product).summary("Create or replace a product"),
        )
        .with_state(catalogue);
    let orders = Routes::new()
        .route(
            "/v1/orders",
            get(list_orders).summary("List orders, newest first").post(place).summary("Place an order"),
        )
        .route("/v1/orders/{id}", get(show_order).summary("Show an order"))
        .route("/v1/orders/{id}/cancel", post(cancel).summary("Cancel an order"))
        .route("/v1/orders/{id}/events", get(watch).without_deadline().summary("Watch an order, as server-sent events"))
        .with_state(orders);
    products.merge(orders)
}

/// Which page of a list.
#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
struct PageQuery {
    /// Items per page.
    #[garde(skip)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[garde(skip)]
    cursor: Option<String>,
}

/// Which orders, and which page of them.
#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
struct OrderQuery {
    /// Only this customer's.
    #[garde(skip)]
    customer: Option<String>,
    /// Only those that stand here.
    #[garde(skip)]
    status: Option<OrderStatus>,
    /// Items per page.
    #[garde(skip)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[garde(skip)]
    cursor: Option<String>,
}

async fn put_product(
    ctx: Context,
    State(products): State<Products>,
    Path(sku): Path<String>,
    Json(product): Json<PutProduct>,
) -> Result<Upserted<Json<Product>>> {
    let location = format!("/v1/products/{sku}");
    Ok(match products.put(&ctx, sku, product).await? {
        Put::Created(product) => Upserted::Created(location, Json(product)),
        Put::Replaced(product) => Upserted::Replaced(Json(product)),
    })
}

async fn show_product(
    ctx: Context,
    State(products): State<Products>,
    Path(sku): Path<String>,
) -> Result<Json<Product>> {
    products.find(&ctx, sku).await.map(Json)
}

async fn list_products(
    ctx: Context,
    State(products): State<Products>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Product>>> {
    products.list(&ctx, page.limit, page.cursor).await.map(Json)
}

async fn place(
    ctx: Context,
    State(orders): State<Orders>,
    headers: HeaderMap,
    Json(new): Json<NewOrder>,
) -> Result<Created<Json<Order>>> {
    if headers.contains_key("idempotency-key") {
        return Err(Error::unimplemented("Idempotency-Key is not supported yet; send the request without it"));
    }
    orders.place(&ctx, new).await.map(|order| Created::at(format!("/v1/orders/{}", order.id), Json(order)))
}

async fn show_order(ctx: Context, State(orders): State<Orders>, Path(id): Path<Uuid>) -> Result<Json<Order>> {
    orders.find(&ctx, id).await.map(Json)
}

async fn list_orders(
    ctx: Context,
    State(orders): State<Orders>,
    Query(query): Query<OrderQuery>,
) -> Result<Json<Page<Order>>> {
    let filter = OrderFilter { customer: query.customer, status: query.status };
    orders.list(&ctx, filter, query.limit, query.cursor).await.map(Json)
}

async fn cancel(ctx: Context, State(orders): State<Orders>, Path(id): Path<Uuid>) -> Result<Json<Order>> {
    orders.cancel(&ctx, id).await.map(Json)
}

/// Each change of the order's status; the id of each is its number, from which a client that was cut off goes on.
async fn watch(ctx: Context, State(orders): State<Orders>, headers: HeaderMap, Path(id): Path<Uuid>) -> Result<Sse> {
    let changes = orders.watch(&ctx, id, last_event_id(&headers)?).await?;
    Ok(changes.map_or_else(Sse::ended, |changes| Sse::new(&ctx, changes.map(|change| change.and_then(as_event)))))
}

fn as_event(change: Change) -> Result<sse::Event> {
    sse::Event::default().id(change.number.to_string()).json_data(&change).map_err(Error::from_any)
}

/// The number of the last change that the client has seen; 0 if it has seen none.
fn last_event_id(headers: &HeaderMap) -> Result<i64> {
    let Some(id) = headers.get("last-event-id") else { return Ok(0) };
    let number = id.to_str().ok().and_then(|id| id.parse().ok());
    number.ok_or_else(|| Error::invalid_argument("Last-Event-ID: expected the id of an event of this stream"))
}
