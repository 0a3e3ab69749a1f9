//! The shop: takes orders over HTTP and gRPC, keeps them in SQL, and reserves their stock by its own events.
//!
//! Read it in this order: [`http`] and [`grpc`] (thin handlers) → [`service`] (rules and transactions) → [`repository`] (the seam
//! to SQL); then [`events`] (what happens to orders, and who reacts). [`domain`] says what an order and a product are.

pub mod config;
pub mod domain;
pub mod events;
pub mod grpc;
pub mod http;
pub mod repository;
pub mod service;

use std::sync::Arc;

use mainstay::prelude::*;

use crate::config::Settings;
use crate::events::{ReserveStock, ReturnStock};
use crate::repository::{SqlOrders, SqlProducts};
use crate::service::{Catalogue, OrderService, Stock, Watchers};

/// Declares what the shop is made of. Nothing connects until `serve` starts it.
///
/// # Errors
/// A configuration that can't work, such as a database URL of an unknown kind.
pub fn build(app: &mut App<Settings>) -> Result<()> {
    let db = app.database(migrations!("migrations"))?;
    let events = app.events(&db)?;
    let (paging, watchers) = (app.settings().paging, Watchers::new());
    let catalogue = Arc::new(Catalogue::new(SqlProducts, db.clone(), paging));
    let orders = Arc::new(OrderService::new(SqlOrders, SqlProducts, db, watchers.clone(), paging));
    let stock = Stock::new(SqlOrders, SqlProducts, watchers);

    app.http(http::routes(catalogue.clone(), orders.clone()));
    app.grpc(grpc::service(catalogue, orders)); // the same port
    app.consume(&events, ReserveStock(stock.clone()))?;
    app.consume(&events, ReturnStock(stock))?;
    Ok(())
}
