//! [`Event`]: something that happened, as the code that publishes it and the code that reacts to it know it.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Something that happened, named in the past tense. `#[derive(Event)]` implements it.
///
/// Its JSON is a contract with whoever consumes it, also with services of another version: add optional fields, and give
/// what can't be read by old code a new [`TYPE`](Event::TYPE).
pub trait Event: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The name of what happened, as `shop.order.placed`: 1 to 100 lower-case letters, digits, `.`, `_` or `-`.
    const TYPE: &'static str;

    /// The topic, subject or exchange on an external broker.
    const TOPIC: &'static str = Self::TYPE;

    /// The version of the payload's shape, for consumers that know several.
    const VERSION: u32 = 1;

    /// What has to be in order: each group applies the events of one key in the order in which they were committed,
    /// whatever their type. Events without a key have no order. At most 255 bytes.
    fn key(&self) -> Option<String> {
        None
    }
}
