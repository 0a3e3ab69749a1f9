//! The rules of orders against mocked repositories: the seam at work. What SQL does is tested on real databases.

use super::*;
use crate::domain::Line;
use crate::repository::{MockOrders, MockProducts};

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

fn service(orders: MockOrders, products: MockProducts) -> OrderService<MockOrders, MockProducts> {
    OrderService::new(orders, products, Db::memory(), Paging::default())
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
    let service = service(orders, priced(&[("milk", 100), ("tea", 450)]));

    let new = NewOrder { customer: "Ada".to_owned(), lines: vec![line("tea", 2), line("milk", 1)] };
    let placed = service.place(&Context::background(), new).await.unwrap();
    assert_eq!((placed.status, placed.total_cents), (OrderStatus::Pending, 1000));
}

#[tokio::test]
async fn every_unknown_product_is_named_and_nothing_is_stored() {
    let mut orders = MockOrders::new();
    orders.expect_insert().never();
    let service = service(orders, priced(&[("tea", 450)]));

    let new = NewOrder { customer: "Ada".to_owned(), lines: vec![line("gin", 1), line("tea", 1), line("rum", 1)] };
    let error = service.place(&Context::background(), new).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let paths: Vec<_> = error.field_violations().map(|violation| violation.path.as_str()).collect();
    assert_eq!(paths, ["lines[0].sku", "lines[2].sku"]);
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
        let outcome = service(orders, MockProducts::new()).cancel(&Context::background(), id).await;
        assert_eq!(outcome.map(|order| order.status).map_err(|error| error.code()), expected, "{stands:?}");
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
    let service = service(orders, MockProducts::new());

    let page = service.list(&Context::background(), OrderFilter::default(), Some(2), None).await.unwrap();
    assert_eq!(page.items.len(), 2);
    assert_eq!(page.next_cursor, Some(ids[1].to_string()));
    for (limit, cursor, path) in [(Some(0), None, "limit"), (Some(201), None, "limit"), (None, Some("x"), "cursor")] {
        let cursor = cursor.map(str::to_owned);
        let refused = service.list(&Context::background(), OrderFilter::default(), limit, cursor).await.unwrap_err();
        assert_eq!(refused.field_violations().next().unwrap().path, path);
    }
}
