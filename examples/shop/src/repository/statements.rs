//! The statements that read, apart from what runs them, so that a test can ask each database for its plan.

use mainstay::prelude::*;

use super::OrderFilter;
use crate::domain::Line;

/// A product by its key.
pub const FIND_PRODUCT: &str = "SELECT sku, name, price_cents, stock FROM products WHERE sku = $1";

/// An order by its id, a row per line.
pub const FIND_ORDER: &str = "SELECT o.id, o.customer, o.status, o.reason, o.total_cents, o.created_at, l.sku, l.quantity \
     FROM orders o JOIN order_lines l ON l.order_id = o.id WHERE o.id = $1 ORDER BY l.line";

/// The changes of an order after a number.
pub const CHANGES: &str =
    "SELECT number, status, reason, changed_at FROM order_changes WHERE order_id = $1 AND number > $2 ORDER BY number";

/// A change of stock by the request that asked for it.
pub const FIND_STOCK_CHANGE: &str = "SELECT sku, delta FROM stock_changes WHERE request_id = $1";

/// Up to `limit` products after the key `after`.
pub fn list_products(after: Option<String>, limit: u32) -> Sql {
    let mut sql = Sql::new("SELECT sku, name, price_cents, stock FROM products");
    if let Some(after) = after {
        sql = sql.push_bind(" WHERE sku > ", after);
    }
    sql.push_bind(" ORDER BY sku LIMIT ", i64::from(limit))
}

/// The prices of the products that `lines` name.
pub fn prices(lines: &[Line]) -> Sql {
    Sql::new("SELECT sku, price_cents FROM products WHERE ").push_in("sku", lines.iter().map(|line| line.sku.as_str()))
}

/// Up to `limit` orders before the id `before`, newest first, a row per line.
///
/// The page is cut in the inner select, along one index; the join adds the lines of just those orders.
pub fn list_orders(filter: &OrderFilter, before: Option<Uuid>, limit: u32) -> Sql {
    let mut sql = Sql::new(
        "SELECT o.id, o.customer, o.status, o.reason, o.total_cents, o.created_at, l.sku, l.quantity \
         FROM (SELECT id, customer, status, reason, total_cents, created_at FROM orders",
    );
    let mut word = " WHERE ";
    if let Some(customer) = &filter.customer {
        sql = sql.push(word).push_bind("customer = ", customer);
        word = " AND ";
    }
    if let Some(status) = filter.status {
        sql = sql.push(word).push_bind("status = ", status.as_str());
        word = " AND ";
    }
    if let Some(before) = before {
        sql = sql.push(word).push_bind("id < ", before);
    }
    sql.push_bind(" ORDER BY id DESC LIMIT ", i64::from(limit))
        .push(") o JOIN order_lines l ON l.order_id = o.id ORDER BY o.id DESC, l.line")
}
