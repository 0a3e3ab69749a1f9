//! The repositories in SQL: the same text on SQLite, PostgreSQL and MySQL wherever they agree.

use mainstay::prelude::*;

use super::statements::{self, FIND_ORDER, FIND_PRODUCT};
use super::{OrderFilter, OrderRecord, Orders, Products};
use crate::domain::{Line, Order, OrderStatus, Product};

/// Products in SQL.
#[derive(Clone, Copy, Debug)]
pub struct SqlProducts;

/// Orders in SQL.
#[derive(Clone, Copy, Debug)]
pub struct SqlOrders;

impl Products for SqlProducts {
    async fn insert_new(&self, ctx: &Context, db: &Db, product: &Product) -> Result<bool> {
        let insert = sql! {
            mysql: "INSERT IGNORE INTO products (sku, name, price_cents, stock) VALUES ($1, $2, $3, $4)",
            _: "INSERT INTO products (sku, name, price_cents, stock) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        };
        let added = db
            .query(insert)
            .bind(&product.sku)
            .bind(&product.name)
            .bind(product.price_cents)
            .bind(product.stock)
            .execute(ctx)
            .await?;
        Ok(added == 1)
    }

    async fn replace(&self, ctx: &Context, db: &Db, product: &Product) -> Result<bool> {
        let replaced = db
            .query("UPDATE products SET name = $2, price_cents = $3, stock = $4 WHERE sku = $1")
            .bind(&product.sku)
            .bind(&product.name)
            .bind(product.price_cents)
            .bind(product.stock)
            .execute(ctx)
            .await?;
        Ok(replaced == 1)
    }

    async fn find(&self, ctx: &Context, db: &Db, sku: &str) -> Result<Option<Product>> {
        db.read(FIND_PRODUCT).bind(sku).optional(ctx).await
    }

    async fn list(&self, ctx: &Context, db: &Db, after: Option<String>, limit: u32) -> Result<Vec<Product>> {
        db.read(statements::list_products(after, limit)).all(ctx).await
    }

    async fn prices(&self, ctx: &Context, db: &Db, lines: &[Line]) -> Result<Vec<(String, i64)>> {
        db.query(statements::prices(lines)).all(ctx).await
    }
}

impl Orders for SqlOrders {
    async fn insert(&self, ctx: &Context, db: &Db, record: &OrderRecord) -> Result<()> {
        let order = &record.order;
        db.query(
            "INSERT INTO orders (id, customer, status, reason, total_cents, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(order.id)
        .bind(&order.customer)
        .bind(order.status.as_str())
        .bind(order.reason.as_deref())
        .bind(order.total_cents)
        .bind(order.created_at)
        .execute(ctx)
        .await?;
        let lines = order.lines.iter().zip(&record.prices).zip(1_i64..);
        db.query("INSERT INTO order_lines (order_id, line, sku, quantity, price_cents) VALUES ($1, $2, $3, $4, $5)")
            .batch(
                ctx,
                lines.map(|((line, price), number)| values![order.id, number, &line.sku, line.quantity, *price]),
            )
            .await?;
        Ok(())
    }

    async fn find(&self, ctx: &Context, db: &Db, id: Uuid) -> Result<Option<Order>> {
        let lines = db.query(FIND_ORDER).bind(id).all(ctx).await?;
        Ok(assemble(lines)?.pop())
    }

    async fn list(
        &self,
        ctx: &Context,
        db: &Db,
        filter: &OrderFilter,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<Order>> {
        assemble(db.read(statements::list_orders(filter, before, limit)).all(ctx).await?)
    }

    async fn cancel(&self, ctx: &Context, db: &Db, id: Uuid) -> Result<bool> {
        let cancelled = db
            .query("UPDATE orders SET status = 'cancelled' WHERE id = $1 AND status IN ('pending', 'confirmed')")
            .bind(id)
            .execute(ctx)
            .await?;
        Ok(cancelled == 1)
    }
}

/// One row of the join of orders and their lines.
#[derive(FromRow)]
struct OrderLine {
    id: Uuid,
    customer: String,
    status: String,
    reason: Option<String>,
    total_cents: i64,
    created_at: Timestamp,
    sku: String,
    quantity: i64,
}

/// Puts the rows of each order, which stand together, into one.
fn assemble(rows: Vec<OrderLine>) -> Result<Vec<Order>> {
    let mut orders: Vec<Order> = Vec::new();
    for row in rows {
        let line = Line { sku: row.sku, quantity: row.quantity };
        match orders.last_mut() {
            Some(order) if order.id == row.id => order.lines.push(line),
            _ => orders.push(Order {
                id: row.id,
                status: OrderStatus::from_word(&row.status)?,
                reason: row.reason,
                customer: row.customer,
                lines: vec![line],
                total_cents: row.total_cents,
                created_at: row.created_at,
            }),
        }
    }
    Ok(orders)
}
