//! [`Catalogue`]: the products of the shop.

use std::sync::Arc;

use mainstay::prelude::*;

use super::{page_limit, refused};
use crate::config::Paging;
use crate::domain::{self, Page, Product, PutProduct};
use crate::repository::Products;

/// Keeps the products.
pub struct Catalogue<P> {
    products: Arc<P>,
    db: Db,
    paging: Paging,
    /// A hot product that a thousand clients ask for at once is read once.
    reads: Singleflight<String, Option<Product>>,
}

/// What putting a product did.
#[derive(Debug, PartialEq)]
pub enum Put {
    /// It is new.
    Created(Product),
    /// It took the place of another.
    Replaced(Product),
}

impl<P: Products> Catalogue<P> {
    /// A catalogue of `products` in `db`.
    pub fn new(products: P, db: Db, paging: Paging) -> Self {
        Self { products: Arc::new(products), db, paging, reads: Singleflight::new() }
    }

    /// Creates the product `sku`, or replaces it.
    ///
    /// # Errors
    /// `InvalidArgument` for a key that is none.
    pub async fn put(&self, ctx: &Context, sku: String, put: PutProduct) -> Result<Put> {
        domain::check_sku(&sku, &()).map_err(|error| refused("sku", error.to_string()))?;
        let PutProduct { name, price_cents, stock } = put;
        let product = &Product { sku, name, price_cents, stock };
        self.db
            .transaction(ctx, |tx| async move {
                if self.products.insert_new(ctx, &tx, product).await? {
                    return Ok(Put::Created(product.clone()));
                }
                if self.products.replace(ctx, &tx, product).await? {
                    return Ok(Put::Replaced(product.clone()));
                }
                Err(Error::aborted("the product was removed meanwhile, try again"))
            })
            .await
    }

    /// The product `sku`.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn find(&self, ctx: &Context, sku: String) -> Result<Product> {
        let (products, db, key) = (self.products.clone(), self.db.clone(), sku.clone());
        let read = self.reads.run(ctx, key, move |ctx| async move { products.find(&ctx, &db, &sku).await }).await?;
        read.ok_or_else(|| Error::not_found("product"))
    }

    /// A page of products, by key.
    ///
    /// # Errors
    /// `InvalidArgument` for a limit out of range.
    pub async fn list(&self, ctx: &Context, limit: Option<u32>, cursor: Option<String>) -> Result<Page<Product>> {
        let limit = page_limit(self.paging, limit)?;
        let products = self.products.list(ctx, &self.db, cursor, limit + 1).await?;
        Ok(Page::cut(products, limit, |product| product.sku.clone()))
    }
}
