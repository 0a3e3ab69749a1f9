//! [`Stock`]: what is taken for orders and put back.
//!
//! Reserving, cancelling and putting back meet in any order and at the same time, in several processes. What keeps them
//! right is the order's row, which each of them moves first, by an UPDATE that says where it has to stand:
//!
//! - Only a pending order takes stock. It is confirmed, *and notes that it holds its stock*, in the transaction that takes
//!   it. A cancelled one is not pending: it takes nothing, however late its event is handled.
//! - Cancelling moves the status and leaves the note. It waits for a reservation in progress, which has moved the row.
//! - Only a cancelled order that holds its stock puts it back, and loses the note with that: once, and never without
//!   having taken it, whichever group is ahead.
//!
//! Then the products are moved, in the order of their keys, so that two orders don't wait for each other. (A consumer's
//! transaction may apply several orders; those can, and the one that the database refuses then runs again.)

use std::fmt;
use std::sync::Arc;

use mainstay::prelude::*;

use super::Watchers;
use crate::events::{OrderCancelled, OrderConfirmed, OrderPlaced, OrderRejected};
use crate::repository::{Orders, Products};

/// Takes and puts back the stock of orders.
pub struct Stock<O, P> {
    orders: Arc<O>,
    products: Arc<P>,
    watchers: Watchers,
}

impl<O: Orders, P: Products> Stock<O, P> {
    /// Stock of `products`, for `orders` whose changes `watchers` are told.
    pub fn new(orders: O, products: P, watchers: Watchers) -> Self {
        Self { orders: Arc::new(orders), products: Arc::new(products), watchers }
    }

    /// Takes all that the order is for and confirms it, or takes nothing and rejects it. An order that is not pending
    /// any more is left alone.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn reserve(&self, ctx: &Context, tx: &Tx, placed: &OrderPlaced) -> Result<()> {
        let id = placed.id;
        let reserved = tx.transaction(ctx, |tx| async move {
            if !self.orders.confirm(ctx, &tx, id).await? {
                return Ok(());
            }
            for (sku, quantity) in &placed.items {
                if !self.products.take(ctx, &tx, sku, *quantity).await? {
                    return Err(Error::failed_precondition("not enough stock").with_source(NotEnough(sku.clone())));
                }
            }
            tx.publish(OrderConfirmed { id })?;
            self.watchers.tell(&tx, id)
        });
        let Err(error) = reserved.await else { return Ok(()) };
        // What was taken is undone with the savepoint.
        let Some(reason) = error.downcast_ref::<NotEnough>().map(ToString::to_string) else { return Err(error) };
        if self.orders.reject(ctx, tx, id, &reason).await? {
            tx.publish(OrderRejected { id, reason })?;
            self.watchers.tell(tx, id)?;
        }
        Ok(())
    }

    /// Puts back what the cancelled order holds; that may be nothing.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn put_back(&self, ctx: &Context, tx: &Tx, cancelled: &OrderCancelled) -> Result<()> {
        if self.orders.release(ctx, tx, cancelled.id).await? {
            for (sku, quantity) in &cancelled.items {
                self.products.put_back(ctx, tx, sku, *quantity).await?;
            }
        }
        Ok(())
    }
}

impl<O, P> Clone for Stock<O, P> {
    fn clone(&self) -> Self {
        let Self { orders, products, watchers } = self;
        Self { orders: orders.clone(), products: products.clone(), watchers: watchers.clone() }
    }
}

/// Why an order is rejected: there is too little of this product.
#[derive(Debug)]
struct NotEnough(String);

impl fmt::Display for NotEnough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not enough of `{}`", self.0)
    }
}

impl std::error::Error for NotEnough {}

#[cfg(test)]
mod tests;
