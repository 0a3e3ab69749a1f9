//! What happens to orders, as the events that tell of it, and what the shop does about them.
//!
//! Their JSON is a contract with every version of the shop that may still read it. All have the order's id as their key,
//! so each group sees what happened to one order in the order in which it happened. Two groups don't wait for each
//! other: the stock of a cancelled order may be asked back before it was taken. The order itself knows; see
//! [`service::Stock`](crate::service::Stock).

use std::collections::BTreeMap;

use mainstay::prelude::*;
use serde::{Deserialize, Serialize};

use crate::domain::Order;
use crate::repository::{SqlOrders, SqlProducts};
use crate::service::Stock;

/// How many of each product an order is for, in the order of their keys: the one order in which stock is touched.
pub type Items = BTreeMap<String, i64>;

/// An order was placed, and waits for its stock.
#[derive(Clone, Debug, Deserialize, Event, Serialize)]
#[event(type = "shop.order.placed", key = "id")]
pub struct OrderPlaced {
    /// The order.
    pub id: Uuid,
    /// Who placed it.
    pub customer: String,
    /// What it is for.
    pub items: Items,
    /// What it costs.
    pub total_cents: i64,
}

/// The stock of an order was taken.
#[derive(Clone, Debug, Deserialize, Event, Serialize)]
#[event(type = "shop.order.confirmed", key = "id")]
pub struct OrderConfirmed {
    /// The order.
    pub id: Uuid,
}

/// There was not enough stock for an order.
#[derive(Clone, Debug, Deserialize, Event, Serialize)]
#[event(type = "shop.order.rejected", key = "id")]
pub struct OrderRejected {
    /// The order.
    pub id: Uuid,
    /// What there was not enough of.
    pub reason: String,
}

/// An order was cancelled. What it holds of the stock goes back.
#[derive(Clone, Debug, Deserialize, Event, Serialize)]
#[event(type = "shop.order.cancelled", key = "id")]
pub struct OrderCancelled {
    /// The order.
    pub id: Uuid,
    /// What it was for.
    pub items: Items,
}

/// Takes the stock of orders that were placed.
pub struct ReserveStock(pub Stock<SqlOrders, SqlProducts>);

/// Puts the stock of cancelled orders back.
pub struct ReturnStock(pub Stock<SqlOrders, SqlProducts>);

impl Consumer for ReserveStock {
    type Event = OrderPlaced;
    const GROUP: &'static str = "reserve-stock";

    async fn handle(&self, ctx: &Context, tx: &Tx, placed: OrderPlaced) -> Result<()> {
        self.0.reserve(ctx, tx, &placed).await
    }
}

impl Consumer for ReturnStock {
    type Event = OrderCancelled;
    const GROUP: &'static str = "return-stock";

    async fn handle(&self, ctx: &Context, tx: &Tx, cancelled: OrderCancelled) -> Result<()> {
        self.0.put_back(ctx, tx, &cancelled).await
    }
}

impl From<&Order> for OrderPlaced {
    fn from(order: &Order) -> Self {
        Self { id: order.id, customer: order.customer.clone(), items: items(order), total_cents: order.total_cents }
    }
}

impl From<&Order> for OrderCancelled {
    fn from(order: &Order) -> Self {
        Self { id: order.id, items: items(order) }
    }
}

/// Lines may repeat a product: it is taken once, for all of them.
fn items(order: &Order) -> Items {
    let mut items = Items::new();
    for line in &order.lines {
        *items.entry(line.sku.clone()).or_default() += line.quantity;
    }
    items
}
