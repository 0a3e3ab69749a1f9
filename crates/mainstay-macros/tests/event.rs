//! `#[derive(Event)]`, against a trait of the same shape as that of `mainstay-events`.

use mainstay_macros::Event;
use serde::{Deserialize, Serialize};

mod events {
    pub(crate) trait Event: serde::Serialize + serde::de::DeserializeOwned + Send + Sync + 'static {
        const TYPE: &'static str;
        const TOPIC: &'static str = Self::TYPE;
        const VERSION: u32 = 1;
        fn key(&self) -> Option<String> {
            None
        }
    }

    pub(crate) mod __private {
        pub(crate) use serde::Serialize;
        pub(crate) use serde::de::DeserializeOwned;
    }
}

use events::Event as _;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "shop.order.placed", key = "order_id", topic = "shop.orders", version = 2, crate = "crate::events")]
struct OrderPlaced {
    order_id: i64,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "shop.opened", crate = "crate::events")]
struct Opened;

#[derive(Serialize, Deserialize)]
struct Order {
    id: i64,
    r#type: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "shop.order.changed", key = "order.type", crate = "crate::events")]
struct OrderChanged {
    order: Order,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "shop.order.removed", key = "0.id", crate = "crate::events")]
struct OrderRemoved(Order);

#[derive(Serialize, Deserialize, Event)]
#[event(type = "shop.stock.changed", crate = "crate::events")]
enum StockChanged {
    Sold { sku: String },
    Counted(i64),
}

/// serde asks nothing of `S`, which is in no field that is stored, and neither may the derive.
#[derive(Serialize, Deserialize, Event)]
#[event(type = "audit.changed", key = "id", crate = "crate::events")]
struct Changed<I, T: Clone, S = Untold, const N: usize = 1>
where
    I: Copy,
    S: Send + Sync + 'static,
{
    id: I,
    to: Option<T>,
    #[serde(skip)]
    _source: std::marker::PhantomData<[S; N]>,
}

struct Untold;

/// Fields whose names and types come into a macro from outside.
macro_rules! event_of {
    ($name:ident, $field:ident: $type:ty) => {
        #[derive(Serialize, Deserialize, Event)]
        #[event(type = "made.by.a.macro", key = "id", crate = "crate::events")]
        struct $name {
            $field: $type,
        }
    };
}

event_of!(Made, id: u8);

fn constants<E: events::Event>() -> (&'static str, &'static str, u32) {
    (E::TYPE, E::TOPIC, E::VERSION)
}

#[test]
fn an_event_says_what_it_was_told() {
    assert_eq!(constants::<OrderPlaced>(), ("shop.order.placed", "shop.orders", 2));
    assert_eq!(constants::<Opened>(), ("shop.opened", "shop.opened", 1));
    assert_eq!(constants::<StockChanged>(), ("shop.stock.changed", "shop.stock.changed", 1));
    assert_eq!(constants::<Changed<u64, String>>().0, "audit.changed");
}

#[test]
fn a_key_is_the_field_that_was_named() {
    let order = || Order { id: 7, r#type: "gift".to_owned() };
    assert_eq!(OrderPlaced { order_id: 7 }.key().as_deref(), Some("7"));
    assert_eq!(OrderChanged { order: order() }.key().as_deref(), Some("gift"));
    assert_eq!(OrderRemoved(order()).key().as_deref(), Some("7"));
    assert_eq!(Made { id: 3 }.key().as_deref(), Some("3"));
    let changed: Changed<_, _> = Changed { id: 'x', to: Some(1_i32), _source: std::marker::PhantomData };
    assert_eq!(changed.key().as_deref(), Some("x"));
    for without in [StockChanged::Sold { sku: "tea".to_owned() }.key(), StockChanged::Counted(1).key(), Opened.key()] {
        assert_eq!(without, None);
    }
}
