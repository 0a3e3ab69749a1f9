//! The shop: takes orders over HTTP and keeps them in SQL.
//!
//! Read it in this order: [`http`] (thin handlers) → [`service`] (rules and transactions) → [`repository`] (the seam
//! to SQL). [`domain`] says what an order and a product are.

pub mod config;
pub mod domain;
pub mod http;
pub mod repository;
pub mod service;

use mainstay::prelude::*;

use crate::config::Settings;
use crate::repository::{SqlOrders, SqlProducts};
use crate::service::{Catalogue, OrderService};

/// Declares what the shop is made of. Nothing connects until `serve` starts it.
///
/// # Errors
/// A configuration that can't work, such as a database URL of an unknown kind.
pub fn build(app: &mut App<Settings>) -> Result<()> {
    let db = app.database(migrations!("migrations"))?;
    let paging = app.settings().paging;
    let catalogue = Catalogue::new(SqlProducts, db.clone(), paging);
    let orders = OrderService::new(SqlOrders, SqlProducts, db, paging);

    app.http(http::routes(catalogue, orders));
    Ok(())
}
