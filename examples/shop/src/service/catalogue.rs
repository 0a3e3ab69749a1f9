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

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Imported {
    /// How many products are new.
    pub created: i64,
    /// How many took the place of others.
    pub replaced: i64,
}

impl std::ops::AddAssign for Imported {
    fn add_assign(&mut self, other: Self) {
        self.created += other.created;
        self.replaced += other.replaced;
    }
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
                Ok(match self.put_in(ctx, &tx, product).await? {
                    true => Put::Created(product.clone()),
                    false => Put::Replaced(product.clone()),
                })
            })
            .await
    }

    /// Creates or replaces `products`, all of them or none. One that comes twice is as it came last.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn import(&self, ctx: &Context, mut products: Vec<Product>) -> Result<Imported> {
        // In the order of their keys, so that two imports don't wait for each other; the sort keeps twins in theirs.
        products.sort_by(|one, other| one.sku.cmp(&other.sku));
        let products = &products;
        self.db
            .transaction(ctx, |tx| async move {
                let mut done = Imported::default();
                for product in products {
                    match self.put_in(ctx, &tx, product).await? {
                        true => done.created += 1,
                        false => done.replaced += 1,
                    }
                }
                Ok(done)
            })
            .await
    }

    /// Changes the stock of the product `sku` by `delta`, once for each `request_id`, and says how much is left.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` if the stock would fall below zero; `InvalidArgument` for a request id that has
    /// none of 1 to 64 characters, or that another change has had.
    pub async fn change_stock(&self, ctx: &Context, request_id: &str, sku: &str, delta: i64) -> Result<i64> {
        if !(1..=64).contains(&request_id.chars().count()) {
            return Err(refused("request_id", "expected 1 to 64 characters"));
        }
        domain::check_sku(sku, &()).map_err(|error| refused("sku", error.to_string()))?;
        self.db
            .transaction(ctx, |tx| async move {
                let is_new = self.products.note_change(ctx, &tx, request_id, sku, delta).await?;
                if !is_new && !self.products.knows_change(ctx, &tx, request_id, sku, delta).await? {
                    return Err(refused("request_id", "belongs to another change: a repeated one has to be the same"));
                }
                let moved = !is_new || self.products.add(ctx, &tx, sku, delta).await?;
                let product = self.products.find(ctx, &tx, sku).await?.ok_or_else(|| Error::not_found("product"))?;
                match moved {
                    true => Ok(product.stock),
                    false => Err(Error::failed_precondition(format!(
                        "the stock of {sku} is {} and can't change by {delta}",
                        product.stock
                    ))),
                }
            })
            .await
    }

    /// Whether the product is new; otherwise it has replaced one.
    async fn put_in(&self, ctx: &Context, db: &Db, product: &Product) -> Result<bool> {
        if self.products.insert_new(ctx, db, product).await? {
            return Ok(true);
        }
        if self.products.replace(ctx, db, product).await? {
            return Ok(false);
        }
        Err(Error::aborted("the product was removed meanwhile, try again"))
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
