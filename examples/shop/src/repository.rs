//! The seam between the shop's rules and its SQL: what the services ask for, in their words.
//!
//! Methods take `&Db`; inside a transaction they get the `Tx`, which derefs to one, and don't notice. The traits say
//! `-> impl Future + Send`, because a plain `async fn` in a trait is not `Send` in a handler; implementations write
//! `async fn`.

use mainstay::prelude::*;

use crate::domain::{Change, Line, Order, OrderStatus, Product};

mod sql;
pub mod statements;

pub use sql::{SqlOrders, SqlProducts};

/// An order as it is stored first.
#[derive(Clone, Debug)]
pub struct OrderRecord {
    /// The order; its `lines` are those of `prices`.
    pub order: Order,
    /// The price of one, for each line.
    pub prices: Vec<i64>,
}

/// Which orders a list shows.
#[derive(Clone, Debug, Default)]
pub struct OrderFilter {
    /// Only this customer's.
    pub customer: Option<String>,
    /// Only those that stand here.
    pub status: Option<OrderStatus>,
}

/// Where products are kept.
#[cfg_attr(test, mockall::automock)]
pub trait Products: Send + Sync + 'static {
    /// Adds `product` unless its key is taken; says whether it did.
    fn insert_new(&self, ctx: &Context, db: &Db, product: &Product) -> impl Future<Output = Result<bool>> + Send;

    /// Replaces the product with the same key; says whether there was one.
    fn replace(&self, ctx: &Context, db: &Db, product: &Product) -> impl Future<Output = Result<bool>> + Send;

    /// The product with this key.
    fn find(&self, ctx: &Context, db: &Db, sku: &str) -> impl Future<Output = Result<Option<Product>>> + Send;

    /// Up to `limit` products after the key `after`, by key.
    fn list(
        &self,
        ctx: &Context,
        db: &Db,
        after: Option<String>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Product>>> + Send;

    /// The prices of those of `lines` that exist.
    fn prices(&self, ctx: &Context, db: &Db, lines: &[Line])
    -> impl Future<Output = Result<Vec<(String, i64)>>> + Send;

    /// Takes `quantity` of the product's stock if there is as much; says whether there was.
    fn take(&self, ctx: &Context, db: &Db, sku: &str, quantity: i64) -> impl Future<Output = Result<bool>> + Send;

    /// Adds `delta` to the product's stock, if that leaves it between zero and the largest number; says whether it did.
    fn add(&self, ctx: &Context, db: &Db, sku: &str, delta: i64) -> impl Future<Output = Result<bool>> + Send;

    /// Notes that the request changes stock; says whether it is new.
    fn note_change(
        &self,
        ctx: &Context,
        db: &Db,
        request_id: &str,
        sku: &str,
        delta: i64,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// Whether the request was noted for this change.
    fn knows_change(
        &self,
        ctx: &Context,
        db: &Db,
        request_id: &str,
        sku: &str,
        delta: i64,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// Puts `quantity` back.
    fn put_back(&self, ctx: &Context, db: &Db, sku: &str, quantity: i64) -> impl Future<Output = Result<()>> + Send;
}

/// Where orders are kept, and every change of where they stand.
#[cfg_attr(test, mockall::automock)]
pub trait Orders: Send + Sync + 'static {
    /// Adds an order with its lines.
    fn insert(&self, ctx: &Context, db: &Db, record: &OrderRecord) -> impl Future<Output = Result<()>> + Send;

    /// The order with this id.
    fn find(&self, ctx: &Context, db: &Db, id: Uuid) -> impl Future<Output = Result<Option<Order>>> + Send;

    /// Up to `limit` orders before the id `before`, newest first.
    fn list(
        &self,
        ctx: &Context,
        db: &Db,
        filter: &OrderFilter,
        before: Option<Uuid>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Order>>> + Send;

    /// Moves the order to confirmed if it is pending, and notes that it holds its stock; says whether it did.
    fn confirm(&self, ctx: &Context, db: &Db, id: Uuid) -> impl Future<Output = Result<bool>> + Send;

    /// Moves the order to rejected if it is pending; says whether it did.
    fn reject(&self, ctx: &Context, db: &Db, id: Uuid, reason: &str) -> impl Future<Output = Result<bool>> + Send;

    /// Moves the order to cancelled if it is pending or confirmed; says whether it did.
    fn cancel(&self, ctx: &Context, db: &Db, id: Uuid) -> impl Future<Output = Result<bool>> + Send;

    /// Notes that the order holds its stock no more, if it is cancelled and did; says whether that was so.
    fn release(&self, ctx: &Context, db: &Db, id: Uuid) -> impl Future<Output = Result<bool>> + Send;

    /// The changes of the order after the one numbered `after`, in order.
    fn changes(&self, ctx: &Context, db: &Db, id: Uuid, after: i64)
    -> impl Future<Output = Result<Vec<Change>>> + Send;
}
