//! What the shop deals in.

use garde::Validate;
use mainstay::prelude::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The largest amount of anything, so that no sum of one order can leave 64 bits: 10⁶ × 10¹⁰ × 100 lines < 2⁶³.
const MAX_QUANTITY: i64 = 1_000_000;
const MAX_PRICE: i64 = 10_000_000_000;

/// Something the shop sells.
#[derive(Clone, Debug, Deserialize, FromRow, PartialEq, Serialize, ToSchema)]
pub struct Product {
    /// Chosen by the shop: 1 to 64 letters, digits, `.`, `_` or `-`.
    pub sku: String,
    /// What customers read.
    pub name: String,
    /// Price of one, in cents.
    pub price_cents: i64,
    /// How many are left.
    pub stock: i64,
}

/// A product as it is put.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct PutProduct {
    /// What customers read.
    #[garde(length(chars, min = 1, max = 200))]
    pub name: String,
    /// Price of one, in cents.
    #[garde(range(min = 0, max = MAX_PRICE))]
    pub price_cents: i64,
    /// How many are there.
    #[garde(range(min = 0))]
    pub stock: i64,
}

/// An order as it is placed.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct NewOrder {
    /// Who orders.
    #[garde(length(chars, min = 1, max = 200))]
    pub customer: String,
    /// What is ordered.
    #[garde(length(min = 1, max = 100), dive)]
    pub lines: Vec<Line>,
}

/// One line of an order.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Which product.
    #[garde(custom(check_sku))]
    pub sku: String,
    /// How many of it.
    #[garde(range(min = 1, max = MAX_QUANTITY))]
    pub quantity: i64,
}

/// An order with its lines.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct Order {
    /// A UUIDv7: later orders have larger ids.
    pub id: Uuid,
    /// Where it stands.
    pub status: OrderStatus,
    /// Why it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who ordered.
    pub customer: String,
    /// What was ordered.
    pub lines: Vec<Line>,
    /// The sum, at the prices of the moment it was placed.
    pub total_cents: i64,
    /// When it was placed.
    pub created_at: Timestamp,
}

/// Where an order stands: pending → confirmed or rejected, and cancelled from pending or confirmed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OrderStatus {
    /// Placed, the stock not yet taken.
    Pending,
    /// The stock is taken.
    Confirmed,
    /// There was not enough stock.
    Rejected,
    /// The customer changed their mind.
    Cancelled,
}

/// One step of an order's way.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct Change {
    /// Rises with each change of an order: 1 is that it was placed.
    pub number: i64,
    /// Where the order stands from then on.
    pub status: OrderStatus,
    /// Why it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it changed.
    pub at: Timestamp,
}

/// One page of a list.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items, in order.
    pub items: Vec<T>,
    /// What to pass as `cursor` for the next page; null on the last one.
    pub next_cursor: Option<String>,
}

impl OrderStatus {
    /// The word in JSON and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            OrderStatus::Pending => "pending",
            OrderStatus::Confirmed => "confirmed",
            OrderStatus::Rejected => "rejected",
            OrderStatus::Cancelled => "cancelled",
        }
    }

    /// Whether an order that stands here stays here.
    pub fn is_final(self) -> bool {
        matches!(self, OrderStatus::Rejected | OrderStatus::Cancelled)
    }

    /// The status that is written `word`.
    ///
    /// # Errors
    /// `DataLoss`: the database holds a word that no version of the shop has written.
    pub fn from_word(word: &str) -> Result<Self> {
        [OrderStatus::Pending, OrderStatus::Confirmed, OrderStatus::Rejected, OrderStatus::Cancelled]
            .into_iter()
            .find(|status| status.as_str() == word)
            .ok_or_else(|| Error::data_loss(format!("order status `{word}`")))
    }
}

impl<T> Page<T> {
    /// Makes a page of `limit` from up to `limit + 1` items: the one too many says that there is a next page.
    pub fn cut(mut items: Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Self {
        let limit = limit as usize;
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = if more { items.last().map(cursor) } else { None };
        Self { items, next_cursor }
    }
}

/// Checks a product's key.
///
/// # Errors
/// A garde error that says what a key looks like.
pub fn check_sku(sku: &str, (): &()) -> garde::Result {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=64).contains(&sku.len()) && sku.bytes().all(allowed) {
        Ok(())
    } else {
        Err(garde::Error::new("expected 1 to 64 letters, digits, `.`, `_` or `-`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_knows_whether_there_is_another() {
        let page = Page::cut(vec![1, 2, 3], 2, i32::to_string);
        assert_eq!((page.items, page.next_cursor.as_deref()), (vec![1, 2], Some("2")));
        let page = Page::cut(vec![1, 2], 2, i32::to_string);
        assert_eq!((page.items.len(), page.next_cursor), (2, None));
        assert_eq!(Page::cut(Vec::<i32>::new(), 2, i32::to_string).next_cursor, None);
    }

    #[test]
    fn every_violation_of_an_order_is_found() {
        let order = NewOrder {
            customer: String::new(),
            lines: vec![Line { sku: "tea".to_owned(), quantity: 1 }, Line { sku: "a b".to_owned(), quantity: 0 }],
        };
        let report = order.validate().unwrap_err();
        let paths: Vec<_> = report.iter().map(|(path, _)| path.to_string()).collect();
        assert_eq!(paths, ["customer", "lines[1].quantity", "lines[1].sku"]);
    }

    #[test]
    fn statuses_survive_the_round_trip() {
        for word in ["pending", "confirmed", "rejected", "cancelled"] {
            assert_eq!(OrderStatus::from_word(word).unwrap().as_str(), word);
        }
        assert_eq!(OrderStatus::from_word("lost").unwrap_err().code(), Code::DataLoss);
    }
}
