//! The rules of stock against mocked repositories. That they hold when all of it happens at once is tested on real
//! databases, in `tests/stock.rs`.

use mockall::Sequence;
use mockall::predicate::{always, eq};

use super::*;
use crate::events::Items;
use crate::repository::{MockOrders, MockProducts};
use crate::service::scene::{database, published};

fn items() -> Items {
    [("tea".to_owned(), 3), ("milk".to_owned(), 1)].into()
}

fn placed() -> OrderPlaced {
    OrderPlaced { id: Uuid::now_v7(), customer: "Ada".to_owned(), items: items(), total_cents: 900 }
}

/// Reserves `placed`, and returns what was published.
async fn reserve(orders: MockOrders, products: MockProducts, placed: OrderPlaced) -> Vec<String> {
    let (db, ctx) = (&database().await, &Context::background());
    let (stock, placed) = (&Stock::new(orders, products, Watchers::new()), &placed);
    db.transaction(ctx, |tx| async move { stock.reserve(ctx, &tx, placed).await }).await.unwrap();
    published(db).await
}

#[tokio::test]
async fn an_order_takes_its_products_in_the_order_of_their_keys_and_is_confirmed() {
    let (mut orders, mut products, mut sequence) = (MockOrders::new(), MockProducts::new(), Sequence::new());
    orders.expect_confirm().once().in_sequence(&mut sequence).returning(|_, _, _| Box::pin(async { Ok(true) }));
    for (sku, quantity) in [("milk", 1), ("tea", 3)] {
        let take = products.expect_take().with(always(), always(), eq(sku), eq(quantity));
        take.once().in_sequence(&mut sequence).returning(|_, _, _, _| Box::pin(async { Ok(true) }));
    }
    assert_eq!(reserve(orders, products, placed()).await, ["shop.order.confirmed"]);
}

#[tokio::test]
async fn an_order_that_lacks_something_is_rejected_and_says_what() {
    let (mut orders, mut products) = (MockOrders::new(), MockProducts::new());
    orders.expect_confirm().once().returning(|_, _, _| Box::pin(async { Ok(true) }));
    products.expect_take().returning(|_, _, sku, _| {
        let enough = sku == "milk";
        Box::pin(async move { Ok(enough) })
    });
    orders
        .expect_reject()
        .withf(|_, _, _, reason| reason == "not enough of `tea`")
        .once()
        .returning(|_, _, _, _| Box::pin(async { Ok(true) }));
    assert_eq!(reserve(orders, products, placed()).await, ["shop.order.rejected"]);
}

#[tokio::test]
async fn an_order_that_is_not_pending_any_more_takes_nothing() {
    let (mut orders, mut products) = (MockOrders::new(), MockProducts::new());
    orders.expect_confirm().once().returning(|_, _, _| Box::pin(async { Ok(false) }));
    products.expect_take().never();
    assert!(reserve(orders, products, placed()).await.is_empty());
}

#[tokio::test]
async fn an_order_cancelled_while_it_is_rejected_stays_cancelled() {
    let (mut orders, mut products) = (MockOrders::new(), MockProducts::new());
    orders.expect_confirm().once().returning(|_, _, _| Box::pin(async { Ok(true) }));
    products.expect_take().once().returning(|_, _, _, _| Box::pin(async { Ok(false) }));
    orders.expect_reject().once().returning(|_, _, _, _| Box::pin(async { Ok(false) }));
    assert!(reserve(orders, products, placed()).await.is_empty());
}

#[tokio::test]
async fn another_failure_is_no_lack_of_stock() {
    let (mut orders, mut products) = (MockOrders::new(), MockProducts::new());
    orders.expect_confirm().once().returning(|_, _, _| Box::pin(async { Ok(true) }));
    orders.expect_reject().never();
    let broken = || Error::failed_precondition("the database has its own ideas");
    products.expect_take().once().returning(move |_, _, _, _| Box::pin(async move { Err(broken()) }));
    let (db, ctx) = (&database().await, &Context::background());
    let (stock, placed) = (&Stock::new(orders, products, Watchers::new()), &placed());
    let failed = db.transaction(ctx, |tx| async move { stock.reserve(ctx, &tx, placed).await }).await;
    assert_eq!(failed.unwrap_err().message(), "the database has its own ideas");
}

#[tokio::test]
async fn only_what_a_cancelled_order_holds_goes_back() {
    for (holds, times) in [(true, 2), (false, 0)] {
        let (mut orders, mut products) = (MockOrders::new(), MockProducts::new());
        orders.expect_release().once().returning(move |_, _, _| Box::pin(async move { Ok(holds) }));
        products.expect_put_back().times(times).returning(|_, _, _, _| Box::pin(async { Ok(()) }));
        let (db, ctx) = (&database().await, &Context::background());
        let cancelled = &OrderCancelled { id: Uuid::now_v7(), items: items() };
        let stock = &Stock::new(orders, products, Watchers::new());
        db.transaction(ctx, |tx| async move { stock.put_back(ctx, &tx, cancelled).await }).await.unwrap();
        assert!(published(db).await.is_empty());
    }
}
