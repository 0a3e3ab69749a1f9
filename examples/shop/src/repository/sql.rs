//! The repositories in SQL: the same text on SQLite, PostgreSQL and MySQL wherever they agree.

use mainstay::prelude::*;
use mainstay::sql::{Query, truncate_to_micros};

use super::statements::{self, CHANGES, FIND_ORDER, FIND_PRODUCT, FIND_STOCK_CHANGE};
use super::{OrderFilter, OrderRecord, Orders, Products};
use crate::domain::{Change, Line, Order, OrderStatus, Product};

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

    async fn take(&self, ctx: &Context, db: &Db, sku: &str, quantity: i64) -> Result<bool> {
        let take = "UPDATE products SET stock = stock - $2 WHERE sku = $1 AND stock >= $2";
        let taken = db.query(take).bind(sku).bind(quantity).execute(ctx).await?;
        Ok(taken == 1)
    }

    async fn add(&self, ctx: &Context, db: &Db, sku: &str, delta: i64) -> Result<bool> {
        // Compared before it is added, because a sum that leaves 64 bits is an error on two of three databases.
        let add = "UPDATE products SET stock = stock + $2 WHERE sku = $1 AND stock >= $3 AND stock <= $4";
        let (least, most) = (delta.checked_neg().unwrap_or(i64::MAX).max(0), i64::MAX - delta.max(0));
        let added = db.query(add).bind(sku).bind(delta).bind(least).bind(most).execute(ctx).await?;
        Ok(added == 1)
    }

    async fn note_change(&self, ctx: &Context, db: &Db, request_id: &str, sku: &str, delta: i64) -> Result<bool> {
        let note = sql! {
            mysql: "INSERT IGNORE INTO stock_changes (request_id, sku, delta, changed_at) VALUES ($1, $2, $3, $4)",
            _: "INSERT INTO stock_changes (request_id, sku, delta, changed_at) VALUES ($1, $2, $3, $4) \
                ON CONFLICT DO NOTHING",
        };
        let now = truncate_to_micros(Timestamp::now());
        let noted = db.query(note).bind(request_id).bind(sku).bind(delta).bind(now).execute(ctx).await?;
        Ok(noted == 1)
    }

    async fn knows_change(&self, ctx: &Context, db: &Db, request_id: &str, sku: &str, delta: i64) -> Result<bool> {
        let noted: Option<(String, i64)> = db.query(FIND_STOCK_CHANGE).bind(request_id).optional(ctx).await?;
        Ok(noted.is_some_and(|noted| noted == (sku.to_owned(), delta)))
    }

    async fn put_back(&self, ctx: &Context, db: &Db, sku: &str, quantity: i64) -> Result<()> {
        let put_back = "UPDATE products SET stock = stock + $2 WHERE sku = $1";
        db.query(put_back).bind(sku).bind(quantity).execute(ctx).await.map(drop)
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
        let mut lines: Vec<_> = order.lines.iter().zip(&record.prices).zip(1_i64..).collect();
        // A line locks its product on MySQL, by its foreign key: in the order in which reservations do.
        lines.sort_by(|((one, _), _), ((other, _), _)| one.sku.cmp(&other.sku));
        db.query("INSERT INTO order_lines (order_id, line, sku, quantity, price_cents) VALUES ($1, $2, $3, $4, $5)")
            .batch(
                ctx,
                lines
                    .into_iter()
                    .map(|((line, price), number)| values![order.id, number, &line.sku, line.quantity, *price]),
            )
            .await?;
        note(ctx, db, order.id, order.created_at).await
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

    async fn confirm(&self, ctx: &Context, db: &Db, id: Uuid) -> Result<bool> {
        let confirm = "UPDATE orders SET status = 'confirmed', holds_stock = TRUE, version = version + 1 \
                       WHERE id = $1 AND status = 'pending'";
        moved(ctx, db, id, db.query(confirm).bind(id)).await
    }

    async fn reject(&self, ctx: &Context, db: &Db, id: Uuid, reason: &str) -> Result<bool> {
        let reject = "UPDATE orders SET status = 'rejected', reason = $2, version = version + 1 \
                      WHERE id = $1 AND status = 'pending'";
        moved(ctx, db, id, db.query(reject).bind(id).bind(reason)).await
    }

    async fn cancel(&self, ctx: &Context, db: &Db, id: Uuid) -> Result<bool> {
        let cancel = "UPDATE orders SET status = 'cancelled', version = version + 1 \
                      WHERE id = $1 AND status IN ('pending', 'confirmed')";
        moved(ctx, db, id, db.query(cancel).bind(id)).await
    }

    async fn release(&self, ctx: &Context, db: &Db, id: Uuid) -> Result<bool> {
        let release = "UPDATE orders SET holds_stock = FALSE WHERE id = $1 AND status = 'cancelled' AND holds_stock";
        let released = db.query(release).bind(id).execute(ctx).await?;
        Ok(released == 1)
    }

    async fn changes(&self, ctx: &Context, db: &Db, id: Uuid, after: i64) -> Result<Vec<Change>> {
        let rows = db.read(CHANGES).bind(id).bind(after).all::<(i64, String, Option<String>, Timestamp)>(ctx).await?;
        let change = |(number, status, reason, at): (_, String, _, _)| {
            Ok(Change { number, status: OrderStatus::from_word(&status)?, reason, at })
        };
        rows.into_iter().map(change).collect()
    }
}

/// Runs an UPDATE that moves the order, and notes the change if it did.
async fn moved(ctx: &Context, db: &Db, id: Uuid, update: Query) -> Result<bool> {
    let moved = update.execute(ctx).await? == 1;
    if moved {
        note(ctx, db, id, truncate_to_micros(Timestamp::now())).await?;
    }
    Ok(moved)
}

/// Notes where the order stands now. Whoever moved it has locked its row, so that numbers rise without gaps.
async fn note(ctx: &Context, db: &Db, id: Uuid, at: Timestamp) -> Result<()> {
    let note = "INSERT INTO order_changes (order_id, number, status, reason, changed_at) \
                SELECT id, version, status, reason, $2 FROM orders WHERE id = $1";
    db.query(note).bind(id).bind(at).execute(ctx).await.map(drop)
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
