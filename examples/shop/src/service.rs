//! The shop's rules, and where its transactions begin and end.

mod catalogue;
mod orders;
mod stock;
mod watchers;

pub use crate::repository::OrderFilter;
pub use catalogue::{Catalogue, Imported, Put};
pub use orders::OrderService;
pub use stock::Stock;
pub use watchers::{Watcher, Watchers};

use mainstay::prelude::*;

use crate::config::Paging;

/// The limit of a page: what the request asks for, the default without, refused above the maximum.
fn page_limit(paging: Paging, limit: Option<u32>) -> Result<u32> {
    match limit {
        None => Ok(paging.default_limit),
        Some(limit) if (1..=paging.max_limit).contains(&limit) => Ok(limit),
        Some(_) => Err(refused("limit", format!("expected 1 to {}", paging.max_limit))),
    }
}

/// The error for one field that is wrong for a reason only the service knows.
fn refused(path: impl Into<String>, message: impl Into<String>) -> Error {
    Error::invalid_argument("the request has invalid fields").with_detail(FieldViolation::new(path, message))
}

#[cfg(test)]
mod scene;
