//! The rules of orders against mocked repositories: the seam at work. What SQL does is tested on real databases.

use futures_util::TryStreamExt;

use super::*;
use crate::domain::Line;
use crate::repository::{MockOrders, MockProducts};
use crate::service::scene::{database, published};

fn line(sku: &str, quantity: i64) -> Line {
    Line { sku: sku.to_owned(), quantity }
}

fn order(id: Uuid, status: OrderStatus) -> Order {
    Order {
        id,
        status,
        reason: None,
        customer: "Ada".to_owned(),
        lines: vec![line("tea", 2)],
        total_cents: 900,
        created_at: Timestamp::UNIX_EPOCH,
    }
}

async fn service(orders: MockOrders, products: MockProducts) -> OrderService<MockOrders, MockProducts> {
    OrderService::new(orders, products, database().await, Watchers::new(), Paging::default())
}

fn priced(prices: &'static [(&'static str, i64)]) -> MockProducts {
    let mut products = MockProducts::new();
    products.expect_prices().returning(|_, _, _| {
        let prices = prices.iter().map(|(sku, price)| ((*sku).to_owned(), *price)).collect();
        Box::pin(async { Ok(prices) })
    });
    products
}

#[tokio::test]
async fn an_order_is_stored_at_the_prices_of_the_moment() {
    let mut orders = MockOrders::new();
    orders
        .expect_insert()
        .withf(|_, _, record| record.prices == [450, 100] && record.order.total_cents == 1000)
        .once()
        .returning(|_, _, _| Box::pin(async { Ok(()) }));
    let service = service(orders, priced(&[("milk", 100), ("tea", 450)])).await;

    let new = NewOrder { customer: "Ada".to_owned(), lines: vec![line("tea", 2), line("milk", 1)] };
    let placed = service.place(&Context::background(), new).await.unwrap();
    assert_eq!((placed.status, placed.total_cents), (OrderStatus::Pending, 1000));
    assert_eq!(published(&service.db).await, ["shop.order.placed"]);
}

#[tokio::test]
async fn every_unknown_product_is_named_and_nothing_is_stored() {
    let mut orders = MockOrders::new();
    orders.expect_insert().never();
    let service = service(orders, priced(&[("tea", 450)])).await;

    let new = NewOrder { customer: "Ada".to_owned(), lines: vec![line("gin", 1), line("tea", 1), line("rum", 1)] };
    let error = service.place(&Context::background(), new).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let paths: Vec<_> = error.field_violations().map(|violation| violation.path.as_str()).collect();
    assert_eq!(paths, ["lines[0].sku", "lines[2].sku"]);
    assert!(published(&service.db).await.is_empty());
}

#[test]
fn lines_that_repeat_a_product_are_for_their_sum() {
    let mut order = order(Uuid::now_v7(), OrderStatus::Pending);
    order.lines = vec![line("tea", 2), line("milk", 1), line("tea", 3)];
    let items: Vec<_> = OrderPlaced::from(&order).items.into_iter().collect();
    assert_eq!(items, [("milk".to_owned(), 1), ("tea".to_owned(), 5)]);
}

#[tokio::test]
async fn cancelling_depends_on_where_the_order_stands() {
    let id = Uuid::now_v7();
    for (stands, moved, expected) in [
        (Some(OrderStatus::Cancelled), true, Ok(OrderStatus::Cancelled)), // was pending or confirmed
        (Some(OrderStatus::Cancelled), false, Ok(OrderStatus::Cancelled)), // was cancelled already
        (Some(OrderStatus::Rejected), false, Err(Code::FailedPrecondition)),
        (None, false, Err(Code::NotFound)),
    ] {
        let mut orders = MockOrders::new();
        orders.expect_cancel().once().returning(move |_, _, _| Box::pin(async move { Ok(moved) }));
        let found = stands.map(|status| order(id, status));
        orders.expect_find().once().return_once(move |_, _, _| Box::pin(async move { Ok(found) }));
        let service = service(orders, MockProducts::new()).await;
        let outcome = service.cancel(&Context::background(), id).await;
        assert_eq!(outcome.map(|order| order.status).map_err(|error| error.code()), expected, "{stands:?}");
        let events: &[&str] = if moved { &["shop.order.cancelled"] } else { &[] };
        assert_eq!(published(&service.db).await, events, "{stands:?}");
    }
}

fn change(number: i64, status: OrderStatus) -> Change {
    Change { number, status, reason: None, at: Timestamp::UNIX_EPOCH }
}

#[tokio::test]
async fn a_watcher_sees_each_change_once_and_the_last_one_ends_it() {
    let mut orders = MockOrders::new();
    let all = [OrderStatus::Pending, OrderStatus::Confirmed, OrderStatus::Cancelled];
    // Each look finds one change more than the last, and every other look none.
    let mut looks = 0;
    orders.expect_changes().returning(move |_, _, _, after| {
        looks += 1;
        let visible = (1_i64..).zip(all).take(looks / 2);
        let found = visible.filter(|(number, _)| *number > after).map(|(number, status)| change(number, status));
        let found = found.collect();
        Box::pin(async { Ok(found) })
    });
    orders.expect_find().returning(|_, _, id| Box::pin(async move { Ok(Some(order(id, OrderStatus::Pending))) }));
    let service = Arc::new(service(orders, MockProducts::new()).await);

    tokio::time::pause(); // nobody tells, so the time between two looks passes by itself
    let changes = service.watch(&Context::background(), Uuid::now_v7(), 0).await.unwrap().unwrap();
    let seen: Vec<_> = changes.map_ok(|change| (change.number, change.status)).try_collect().await.unwrap();
    assert_eq!(seen, [(1, all[0]), (2, all[1]), (3, all[2])]);
}

#[tokio::test]
async fn there_is_nothing_to_watch_after_the_last_change_or_without_an_order() {
    for (found, expected) in [(Some(OrderStatus::Rejected), Ok(true)), (None, Err(Code::NotFound))] {
        let mut orders = MockOrders::new();
        // Whether it is final comes first: what made it so is among the changes that are read then.
        let mut then = mockall::Sequence::new();
        orders.expect_find().once().in_sequence(&mut then).returning(move |_, _, id| {
            let found = found.map(|status| order(id, status));
            Box::pin(async { Ok(found) })
        });
        let looks = usize::from(found.is_some());
        orders
            .expect_changes()
            .times(looks)
            .in_sequence(&mut then)
            .returning(|_, _, _, _| Box::pin(async { Ok(Vec::new()) }));
        let service = Arc::new(service(orders, MockProducts::new()).await);
        let watched = service.watch(&Context::background(), Uuid::now_v7(), 2).await;
        assert_eq!(watched.map(|changes| changes.is_none()).map_err(|error| error.code()), expected);
    }
}

#[tokio::test]
async fn a_page_asks_for_one_more_than_it_shows() {
    let ids: Vec<Uuid> = (0..3).map(|_| Uuid::now_v7()).collect();
    let found: Vec<_> = ids.iter().rev().map(|id| order(*id, OrderStatus::Pending)).collect();
    let mut orders = MockOrders::new();
    orders
        .expect_list()
        .withf(|_, _, _, before, limit| before.is_none() && *limit == 3)
        .once()
        .return_once(move |_, _, _, _, _| Box::pin(async move { Ok(found) }));
    let service = service(orders, MockProducts::new()).await;

    let page = service.list(&Context::background(), OrderFilter::default(), Some(2), None).await.unwrap();
    assert_eq!(page.items.len(), 2);
    assert_eq!(page.next_cursor, Some(ids[1].to_string()));
    for (limit, cursor, path) in [(Some(0), None, "limit"), (Some(201), None, "limit"), (None, Some("x"), "cursor")] {
        let cursor = cursor.map(str::to_owned);
        let refused = service.list(&Context::background(), OrderFilter::default(), limit, cursor).await.unwrap_err();
        assert_eq!(refused.field_violations().next().unwrap().path, path);
    }
}
