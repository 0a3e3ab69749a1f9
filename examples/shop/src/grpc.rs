//! The gRPC face: the same services as HTTP, told in messages.

use std::sync::Arc;

use futures_util::StreamExt;
use mainstay::grpc::well_known::Timestamp as ProtoTimestamp;
use mainstay::grpc::{Incoming, Outgoing, Service, include_proto};
use mainstay::http::validated;
use mainstay::prelude::*;

use self::v1::{
    BadLine, CancelOrderRequest, GetOrderRequest, ImportProductsResponse, ListOrdersRequest, ListOrdersResponse,
    OrdersServer, PlaceOrderRequest, StockChange, StockLevel, WatchOrderRequest,
};
use crate::domain::{self, NewOrder, PutProduct};
use crate::repository::{SqlOrders, SqlProducts};
use crate::service::{Catalogue, Imported, OrderFilter, OrderService};

include_proto!(pub mod v1, "shop.v1");

/// How many products are put in one transaction.
const BATCH: usize = 500;

/// How many bad lines are named. An import with more is no import of products.
const MOST_BAD_LINES: usize = 1_000;

/// The shop's gRPC service.
pub fn service(catalogue: Arc<Catalogue<SqlProducts>>, orders: Arc<OrderService<SqlOrders, SqlProducts>>) -> Service {
    OrdersServer::new(OrdersApi { catalogue, orders })
}

struct OrdersApi {
    catalogue: Arc<Catalogue<SqlProducts>>,
    orders: Arc<OrderService<SqlOrders, SqlProducts>>,
}

impl v1::Orders for OrdersApi {
    async fn place_order(&self, ctx: &Context, request: PlaceOrderRequest) -> Result<v1::Order> {
        let lines = request.lines.into_iter().map(|line| domain::Line { sku: line.sku, quantity: line.quantity });
        let new = validated(NewOrder { customer: request.customer, lines: lines.collect() })?;
        self.orders.place(ctx, new).await.map(Into::into)
    }

    async fn get_order(&self, ctx: &Context, request: GetOrderRequest) -> Result<v1::Order> {
        self.orders.find(ctx, id(&request.id)?).await.map(Into::into)
    }

    async fn list_orders(&self, ctx: &Context, request: ListOrdersRequest) -> Result<ListOrdersResponse> {
        let status = status(request.status)?;
        let filter = OrderFilter { customer: given(request.customer), status };
        // What is not set is 0, and so is what is set to 0: the default either way.
        let limit = match request.limit {
            0 => None,
            limit => Some(u32::try_from(limit).map_err(|_| refused("limit", "expected a number above 0"))?),
        };
        let page = self.orders.list(ctx, filter, limit, given(request.cursor)).await?;
        let items = page.items.into_iter().map(Into::into).collect();
        Ok(ListOrdersResponse { items, next_cursor: page.next_cursor.unwrap_or_default() })
    }

    async fn cancel_order(&self, ctx: &Context, request: CancelOrderRequest) -> Result<v1::Order> {
        self.orders.cancel(ctx, id(&request.id)?).await.map(Into::into)
    }

    async fn watch_order(&self, ctx: &Context, request: WatchOrderRequest) -> Result<Outgoing<v1::Order>> {
        let order = self.orders.follow(ctx, id(&request.id)?).await?;
        Ok(Outgoing::new(order.map(|order| order.map(Into::into))))
    }

    async fn import_products(
        &self,
        ctx: &Context,
        mut products: Incoming<v1::Product>,
    ) -> Result<ImportProductsResponse> {
        let (mut done, mut bad, mut batch) = (Imported::default(), Vec::new(), Vec::with_capacity(BATCH));
        let mut index = 0;
        while let Some(product) = products.message().await? {
            match checked(product) {
                Ok(product) => batch.push(product),
                Err(error) if bad.len() == MOST_BAD_LINES => {
                    return Err(error.context("more bad lines than are named"));
                }
                Err(error) => bad.push(BadLine { index, message: told(&error) }),
            }
            index += 1;
            if batch.len() == BATCH {
                done += self.catalogue.import(ctx, std::mem::take(&mut batch)).await?;
            }
        }
        done += self.catalogue.import(ctx, batch).await?;
        Ok(ImportProductsResponse { created: done.created, replaced: done.replaced, bad })
    }

    async fn sync_stock(&self, ctx: &Context, changes: Incoming<StockChange>) -> Result<Outgoing<StockLevel>> {
        let (ctx, catalogue) = (ctx.clone(), self.catalogue.clone());
        Ok(Outgoing::new(changes.then(move |change| {
            let (ctx, catalogue) = (ctx.clone(), catalogue.clone());
            async move {
                let StockChange { request_id, sku, delta } = change?;
                let stock = catalogue.change_stock(&ctx, &request_id, &sku, delta).await?;
                Ok(StockLevel { request_id, sku, stock })
            }
        })))
    }
}

/// A product with its key, if it may be put.
fn checked(product: v1::Product) -> Result<domain::Product> {
    let v1::Product { sku, name, price_cents, stock } = product;
    domain::check_sku(&sku, &()).map_err(|error| refused("sku", error.to_string()))?;
    let PutProduct { name, price_cents, stock } = validated(PutProduct { name, price_cents, stock })?;
    Ok(domain::Product { sku, name, price_cents, stock })
}

/// What is wrong with a line, in one.
fn told(error: &Error) -> String {
    let fields: Vec<_> = error.field_violations().map(|field| format!("{}: {}", field.path, field.message)).collect();
    fields.join("; ")
}

fn id(text: &str) -> Result<Uuid> {
    Uuid::parse_str(text).map_err(|_| refused("id", "expected a UUID"))
}

fn status(number: i32) -> Result<Option<domain::OrderStatus>> {
    Ok(match v1::OrderStatus::try_from(number) {
        Ok(v1::OrderStatus::Unspecified) => None,
        Ok(v1::OrderStatus::Pending) => Some(domain::OrderStatus::Pending),
        Ok(v1::OrderStatus::Confirmed) => Some(domain::OrderStatus::Confirmed),
        Ok(v1::OrderStatus::Rejected) => Some(domain::OrderStatus::Rejected),
        Ok(v1::OrderStatus::Cancelled) => Some(domain::OrderStatus::Cancelled),
        Err(_) => return Err(refused("status", "expected a status of this version of the API")),
    })
}

/// An empty string is one that was not set.
fn given(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn refused(path: &'static str, message: impl Into<String>) -> Error {
    Error::invalid_argument("the request has invalid fields").with_detail(FieldViolation::new(path, message))
}

impl From<domain::Order> for v1::Order {
    fn from(order: domain::Order) -> Self {
        let lines = order.lines.into_iter().map(|line| v1::Line { sku: line.sku, quantity: line.quantity });
        Self {
            id: order.id.to_string(),
            customer: order.customer,
            lines: lines.collect(),
            total_cents: order.total_cents,
            status: v1::OrderStatus::from(order.status).into(),
            reason: order.reason.unwrap_or_default(),
            created_at: Some(ProtoTimestamp {
                seconds: order.created_at.as_second(),
                nanos: order.created_at.subsec_nanosecond(),
            }),
        }
    }
}

impl From<domain::OrderStatus> for v1::OrderStatus {
    fn from(status: domain::OrderStatus) -> Self {
        match status {
            domain::OrderStatus::Pending => Self::Pending,
            domain::OrderStatus::Confirmed => Self::Confirmed,
            domain::OrderStatus::Rejected => Self::Rejected,
            domain::OrderStatus::Cancelled => Self::Cancelled,
        }
    }
}
