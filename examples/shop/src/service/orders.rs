//! [`OrderService`]: placing, showing, watching and cancelling orders.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use mainstay::prelude::*;
use mainstay::sql::truncate_to_micros;

use super::{Watcher, Watchers, page_limit, refused};
use crate::config::Paging;
use crate::domain::{Change, NewOrder, Order, OrderStatus, Page};
use crate::events::{OrderCancelled, OrderPlaced};
use crate::repository::{OrderFilter, OrderRecord, Orders, Products};

/// Takes and keeps the orders.
pub struct OrderService<O, P> {
    orders: O,
    products: P,
    db: Db,
    watchers: Watchers,
    paging: Paging,
}

impl<O: Orders, P: Products> OrderService<O, P> {
    /// A service over `orders` and `products` in `db`, whose changes `watchers` are told.
    pub fn new(orders: O, products: P, db: Db, watchers: Watchers, paging: Paging) -> Self {
        Self { orders, products, db, watchers, paging }
    }

    /// Places an order at the prices of this moment. It is pending until its stock is reserved.
    ///
    /// # Errors
    /// `InvalidArgument` that names each line whose product does not exist.
    pub async fn place(&self, ctx: &Context, new: NewOrder) -> Result<Order> {
        let new = &new; // the closure may run again: borrow, don't move
        self.db
            .transaction(ctx, |tx| async move {
                let record = price(new, self.products.prices(ctx, &tx, &new.lines).await?)?;
                self.orders.insert(ctx, &tx, &record).await?;
                tx.publish(OrderPlaced::from(&record.order))?;
                Ok(record.order)
            })
            .await
    }

    /// The order `id`.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn find(&self, ctx: &Context, id: Uuid) -> Result<Order> {
        self.orders.find(ctx, &self.db, id).await?.ok_or_else(|| Error::not_found("order"))
    }

    /// A page of orders, newest first.
    ///
    /// # Errors
    /// `InvalidArgument` for a limit out of range or a cursor that no page gave.
    pub async fn list(
        &self,
        ctx: &Context,
        filter: OrderFilter,
        limit: Option<u32>,
        cursor: Option<String>,
    ) -> Result<Page<Order>> {
        let limit = page_limit(self.paging, limit)?;
        let before = match cursor.as_deref().map(Uuid::parse_str) {
            None => None,
            Some(Ok(id)) => Some(id),
            Some(Err(_)) => return Err(refused("cursor", "expected the `next_cursor` of an earlier page")),
        };
        let orders = self.orders.list(ctx, &self.db, &filter, before, limit + 1).await?;
        Ok(Page::cut(orders, limit, |order| order.id.to_string()))
    }

    /// Cancels the order `id`. Cancelling a cancelled one changes nothing and succeeds.
    ///
    /// # Errors
    /// `NotFound`, or `FailedPrecondition` for a rejected order.
    pub async fn cancel(&self, ctx: &Context, id: Uuid) -> Result<Order> {
        self.db
            .transaction(ctx, |tx| async move {
                let cancelled = self.orders.cancel(ctx, &tx, id).await?;
                let order = self.orders.find(ctx, &tx, id).await?.ok_or_else(|| Error::not_found("order"))?;
                if cancelled {
                    tx.publish(OrderCancelled::from(&order))?;
                    self.watchers.tell(&tx, id)?;
                }
                match order.status {
                    OrderStatus::Cancelled => Ok(order),
                    status => {
                        let message = format!("a {} order can't be cancelled", status.as_str());
                        Err(Error::failed_precondition(message))
                    }
                }
            })
            .await
    }

    /// The changes of the order `id` after the one numbered `after`, each once and in order, as they happen; the last that
    /// an order can have ends it. `None` if `after` was that.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn watch(
        self: &Arc<Self>,
        ctx: &Context,
        id: Uuid,
        after: i64,
    ) -> Result<Option<impl Stream<Item = Result<Change>> + use<O, P>>> {
        let watcher = self.watchers.watch(id); // before the look, so that no change falls in between
        // Before the changes are read: what made the order final is among them then.
        let is_final = self.find(ctx, id).await?.status.is_final();
        let known = self.orders.changes(ctx, &self.db, id, after).await?;
        if known.is_empty() && is_final {
            return Ok(None);
        }
        let service = self.clone();
        let watch = Watch { service, ctx: ctx.clone(), id, after, watcher, known: known.into_iter(), ended: false };
        let changes = |mut watch: Watch<O, P>| async { Ok(watch.next().await?.map(|change| (change, watch))) };
        Ok(Some(stream::try_unfold(watch, changes)))
    }
}

impl<O: Orders, P: Products> OrderService<O, P> {
    /// The order `id` as it stands, then as it stands after each change, once and in order; the last that an order can
    /// have ends it.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn follow(
        self: &Arc<Self>,
        ctx: &Context,
        id: Uuid,
    ) -> Result<impl Stream<Item = Result<Order>> + use<O, P>> {
        let order = self.find(ctx, id).await?;
        let known = self.orders.changes(ctx, &self.db, id, 0).await?;
        // Every order has a change, that it was placed: the last one known is what it stands at now.
        let before_the_last = known.last().map_or(0, |last| last.number - 1);
        let changes = self.watch(ctx, id, before_the_last).await?;
        let orders = changes.map(|changes| {
            changes.map_ok(move |Change { status, reason, .. }| Order { status, reason, ..order.clone() })
        });
        Ok(stream::iter(orders).flatten())
    }
}

/// How far one who watches an order has come.
struct Watch<O, P> {
    service: Arc<OrderService<O, P>>,
    ctx: Context,
    id: Uuid,
    after: i64,
    watcher: Watcher,
    known: std::vec::IntoIter<Change>,
    ended: bool,
}

impl<O: Orders, P: Products> Watch<O, P> {
    async fn next(&mut self) -> Result<Option<Change>> {
        while !self.ended {
            if let Some(change) = self.known.next() {
                (self.after, self.ended) = (change.number, change.status.is_final());
                return Ok(Some(change));
            }
            self.watcher.changed().await;
            let Self { service, ctx, id, after, .. } = self;
            self.known = service.orders.changes(ctx, &service.db, *id, *after).await?.into_iter();
        }
        Ok(None)
    }
}

/// The order that `new` becomes at these prices.
fn price(new: &NewOrder, prices: Vec<(String, i64)>) -> Result<OrderRecord> {
    let by_sku: HashMap<String, i64> = prices.into_iter().collect();
    let mut prices = Vec::with_capacity(new.lines.len());
    let mut missing = None;
    for (index, line) in new.lines.iter().enumerate() {
        match by_sku.get(&line.sku) {
            Some(price) => prices.push(*price),
            None => {
                let violation = FieldViolation::new(format!("lines[{index}].sku"), "no such product");
                let error = missing.unwrap_or_else(|| Error::invalid_argument("the order names unknown products"));
                missing = Some(error.with_detail(violation));
            }
        }
    }
    if let Some(error) = missing {
        return Err(error);
    }
    let total = new.lines.iter().zip(&prices).try_fold(0_i64, |sum, (line, price)| {
        line.quantity.checked_mul(*price).and_then(|amount| sum.checked_add(amount))
    });
    let order = Order {
        id: Uuid::now_v7(),
        status: OrderStatus::Pending,
        reason: None,
        customer: new.customer.clone(),
        lines: new.lines.clone(),
        total_cents: total.ok_or_else(|| refused("lines", "the total is too large"))?,
        created_at: truncate_to_micros(Timestamp::now()), // what the database keeps
    };
    Ok(OrderRecord { order, prices })
}

#[cfg(test)]
mod tests;
