//! The shop over HTTP, as a client sees it, on each database.

use std::process::ExitCode;
use std::time::Duration;

use mainstay::core::BoxFuture;
use mainstay::prelude::*;
use mainstay::sql::Dialect;
use mainstay_testing::{Harness, Needs, TestApp, TestDatabase};
use serde_json::{Value, json};
use shop::domain::{Order, OrderStatus, Page, Product};
use watched::Watched;

#[path = "http/watched.rs"]
mod watched;

type Case = fn(Scene) -> BoxFuture<'static, Result<()>>;

macro_rules! cases {
    ($($case:ident),+ $(,)?) => { [$((stringify!($case), (|scene| Box::pin($case(scene))) as Case)),+] };
}

fn main() -> ExitCode {
    let cases = cases![
        products_are_created_replaced_and_shown,
        lists_are_walked_page_by_page,
        orders_are_placed_and_found,
        orders_are_filtered,
        cancelling_follows_the_rules,
        a_placed_order_is_confirmed_and_its_stock_taken,
        an_order_for_more_than_there_is_takes_nothing_and_says_why,
        a_cancelled_order_gives_back_what_it_took,
        a_watcher_sees_every_change_and_goes_on_where_it_was,
        a_watcher_is_told_when_there_is_no_more,
        a_watcher_is_let_go_when_the_shop_ends,
        what_is_wrong_with_a_request_is_told_by_path,
        every_refusal_is_a_problem,
        idempotency_keys_are_refused_until_they_are_honoured,
        orders_placed_at_once_get_what_there_is,
        a_request_is_logged_and_counted_once,
        the_api_document_matches_the_routes,
    ];
    let databases =
        [(Dialect::Sqlite, Needs::Nothing), (Dialect::Postgres, Needs::Postgres), (Dialect::Mysql, Needs::Mysql)];
    let mut harness = Harness::new();
    for (dialect, needs) in databases {
        for (name, case) in cases {
            harness = harness.case(&format!("{dialect}::{name}"), needs, async move || {
                let database = TestDatabase::create(dialect).await?;
                let db = database.connect(&Context::background()).await?;
                let app = TestApp::of("shop", shop::build).database(database).start().await?;
                case(Scene { app, db }).await
            });
        }
    }
    harness.run()
}

struct Scene {
    app: TestApp,
    /// The shop's database, for what no request can do.
    db: Db,
}

impl Scene {
    async fn product(&self, sku: &str, price_cents: i64, stock: i64) -> Result<()> {
        let body = json!({ "name": format!("The {sku}"), "price_cents": price_cents, "stock": stock });
        let answer = self.app.put(&format!("/v1/products/{sku}"), &body).await?;
        assert!(matches!(answer.status(), 200 | 201), "{}", answer.text());
        Ok(())
    }

    async fn order(&self, customer: &str, sku: &str, quantity: i64) -> Result<Order> {
        let body = json!({ "customer": customer, "lines": [{ "sku": sku, "quantity": quantity }] });
        let answer = self.app.post("/v1/orders", &body).await?;
        assert_eq!(answer.status(), 201, "{}", answer.text());
        answer.json()
    }

    /// Waits until the order has left `pending`.
    async fn settled(&self, id: Uuid) -> Result<Order> {
        let mut watched = Watched::open(&self.app, id, Some("1")).await?;
        assert_eq!(watched.next().await?.map(|(id, _)| id).as_deref(), Some("2"));
        self.app.get(&format!("/v1/orders/{id}")).await?.json()
    }

    async fn cancel(&self, id: Uuid) -> Result<Order> {
        let answer = self.app.post(&format!("/v1/orders/{id}/cancel"), &json!(null)).await?;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        answer.json()
    }

    async fn stock(&self, sku: &str) -> Result<i64> {
        let product: Product = self.app.get(&format!("/v1/products/{sku}")).await?.json()?;
        Ok(product.stock)
    }

    /// Waits until the stock is `expected`: what gives it back tells nobody. The harness ends a wait in vain.
    async fn has_stock(&self, sku: &str, expected: i64) -> Result<()> {
        while self.stock(sku).await? != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    async fn end(self) -> Result<()> {
        self.db.close(&Context::background()).await;
        let report = self.app.stop().await;
        assert!(report.is_clean(), "{report} {:?}", report.error);
        Ok(())
    }
}

async fn products_are_created_replaced_and_shown(scene: Scene) -> Result<()> {
    let app = &scene.app;
    let tea = json!({ "name": "Grüner Tee 🍵", "price_cents": 450, "stock": 50 });
    let answer = app.put("/v1/products/tea-1", &tea).await?;
    assert_eq!((answer.status(), answer.header("location")), (201, Some("/v1/products/tea-1")));

    let answer = app.put("/v1/products/tea-1", &tea).await?;
    assert_eq!(answer.status(), 200, "replaced by the same is replaced");
    let dearer = json!({ "name": "Grüner Tee 🍵", "price_cents": 500, "stock": 49 });
    assert_eq!(app.put("/v1/products/tea-1", &dearer).await?.status(), 200);

    let shown: Product = app.get("/v1/products/tea-1").await?.json()?;
    assert_eq!((shown.name.as_str(), shown.price_cents, shown.stock), ("Grüner Tee 🍵", 500, 49));
    assert_eq!(app.get("/v1/products/TEA-1").await?.status(), 404, "keys have case");
    scene.end().await
}

async fn lists_are_walked_page_by_page(scene: Scene) -> Result<()> {
    // Upper case before lower, `-` before `.`: byte order, whatever the database's own taste is.
    let keys = ["A-1", "B-1", "Z.9", "a-1", "a-2", "a.1", "b_2"];
    for sku in keys.iter().rev() {
        scene.product(sku, 1, 1).await?;
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page: Page<Product> = scene.app.get(&format!("/v1/products?limit=3{cursor}")).await?.json()?;
        assert!(page.items.len() <= 3);
        seen.extend(page.items.into_iter().map(|product| product.sku));
        match page.next_cursor {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, keys);
    scene.end().await
}

async fn orders_are_placed_and_found(scene: Scene) -> Result<()> {
    scene.product("tea", 450, 5).await?;
    scene.product("milk", 120, 5).await?;
    let body =
        json!({ "customer": "Ada", "lines": [{ "sku": "tea", "quantity": 2 }, { "sku": "milk", "quantity": 3 }] });
    let answer = scene.app.post("/v1/orders", &body).await?;
    assert_eq!(answer.status(), 201);
    let location = answer.header("location").unwrap_or_default().to_owned();
    let placed: Order = answer.json()?;
    assert_eq!((placed.status, placed.total_cents), (OrderStatus::Pending, 2 * 450 + 3 * 120));

    let found: Order = scene.app.get(&location).await?.json()?;
    let found = Order { status: placed.status, ..found };
    assert_eq!(found, placed, "what is read is what was answered, but for where it stands by now");
    let found: Value = scene.app.get(&location).await?.json()?;
    assert_eq!(found["lines"], body["lines"]);
    assert!(found.get("reason").is_none() && found["created_at"].as_str().is_some_and(|at| at.ends_with('Z')));
    scene.end().await
}

async fn orders_are_filtered(scene: Scene) -> Result<()> {
    scene.product("tea", 450, 5).await?;
    let mut placed = Vec::new();
    for customer in ["Ada", "Bob", "Ada", "Ada"] {
        let order = scene.order(customer, "tea", 1).await?;
        placed.push(scene.settled(order.id).await?);
    }
    scene.cancel(placed[2].id).await?;
    let ids = |orders: &[usize]| orders.iter().map(|index| placed[*index].id).collect::<Vec<_>>();
    for (query, expected) in [
        ("", ids(&[3, 2, 1, 0])),
        ("customer=Ada", ids(&[3, 2, 0])),
        ("customer=ada", vec![]),
        ("status=confirmed", ids(&[3, 1, 0])),
        ("status=pending", vec![]),
        ("customer=Ada&status=cancelled", ids(&[2])),
        ("customer=Ada&limit=2", ids(&[3, 2])),
        (&format!("customer=Ada&cursor={}", placed[2].id), ids(&[0])),
    ] {
        let page: Page<Order> = scene.app.get(&format!("/v1/orders?{query}")).await?.json()?;
        assert_eq!(page.items.iter().map(|order| order.id).collect::<Vec<_>>(), expected, "{query}");
    }
    scene.end().await
}

async fn cancelling_follows_the_rules(scene: Scene) -> Result<()> {
    scene.product("tea", 450, 5).await?;
    let id = scene.order("Ada", "tea", 1).await?.id;
    assert_eq!(scene.cancel(id).await?.status, OrderStatus::Cancelled, "pending, or confirmed by now");
    assert_eq!(scene.cancel(id).await?.status, OrderStatus::Cancelled, "and again");
    let id = scene.order("Ada", "tea", 1).await?.id;
    assert_eq!(scene.settled(id).await?.status, OrderStatus::Confirmed);
    assert_eq!(scene.cancel(id).await?.status, OrderStatus::Cancelled);

    let id = scene.order("Ada", "tea", 6).await?.id;
    assert_eq!(scene.settled(id).await?.status, OrderStatus::Rejected);
    let refused = scene.app.post(&format!("/v1/orders/{id}/cancel"), &json!(null)).await?;
    assert_eq!((refused.status(), &refused.json::<Value>()?["code"]), (409, &json!("FAILED_PRECONDITION")));
    let unknown = scene.app.post(&format!("/v1/orders/{}/cancel", Uuid::now_v7()), &json!(null)).await?;
    assert_eq!(unknown.status(), 404);
    scene.end().await
}

async fn a_placed_order_is_confirmed_and_its_stock_taken(scene: Scene) -> Result<()> {
    scene.product("tea", 450, 5).await?;
    scene.product("milk", 120, 5).await?;
    let line = |sku: &str, quantity: i64| json!({ "sku": sku, "quantity": quantity });
    // One product twice: both lines are taken.
    let body = json!({ "customer": "Ada", "lines": [line("tea", 2), line("milk", 3), line("tea", 1)] });
    let placed: Order = scene.app.post("/v1/orders", &body).await?.json()?;
    let confirmed = scene.settled(placed.id).await?;
    assert_eq!((confirmed.status, confirmed.reason), (OrderStatus::Confirmed, None));
    assert_eq!(confirmed.lines, placed.lines, "in the order in which they were placed");
    assert_eq!((scene.stock("tea").await?, scene.stock("milk").await?), (2, 2));
    scene.end().await
}

async fn an_order_for_more_than_there_is_takes_nothing_and_says_why(scene: Scene) -> Result<()> {
    scene.product("tea", 450, 5).await?;
    scene.product("milk", 120, 1).await?;
    scene.product("almonds", 900, 9).await?;
    for (lines, lacking) in
        [(vec![("almonds", 9), ("milk", 2), ("tea", 5)], "milk"), (vec![("tea", 3), ("tea", 3)], "tea")]
    {
        let lines: Vec<_> =
            lines.into_iter().map(|(sku, quantity)| json!({ "sku": sku, "quantity": quantity })).collect();
        let placed: Order =
            scene.app.post("/v1/orders", &json!({ "customer": "Ada", "lines": lines })).await?.json()?;
        let rejected = scene.settled(placed.id).await?;
        assert_eq!(rejected.status, OrderStatus::Rejected);
        assert_eq!(rejected.reason, Some(format!("not enough of `{lacking}`")));
    }
    let left = (scene.stock("almonds").await?, scene.stock("milk").await?, scene.stock("tea").await?);
    assert_eq!(left, (9, 1, 5), "all of it or none");
    scene.end().await
}

async fn a_cancelled_order_gives_back_what_it_took(scene: Scene) -> Result<()> {
    scene.product("tea", 450, 5).await?;
    let confirmed = scene.order("Ada", "tea", 3).await?.id;
    scene.settled(confirmed).await?;
    scene.cancel(confirmed).await?;
    scene.cancel(confirmed).await?;
    scene.has_stock("tea", 5).await?;
    // Cancelled at once: whether it took anything is a race, and in either case all of it is there in the end.
    let hasty = scene.order("Ada", "tea", 3).await?.id;
    scene.cancel(hasty).await?;
    let held = "SELECT COUNT(*) FROM orders WHERE holds_stock";
    while scene.db.read(held).one::<i64>(&Context::background()).await? > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let all = scene.order("Ada", "tea", 5).await?.id;
    assert_eq!(scene.settled(all).await?.status, OrderStatus::Confirmed);
    assert_eq!(scene.stock("tea").await?, 0);
    scene.end().await
}

async fn a_watcher_sees_every_change_and_goes_on_where_it_was(scene: Scene) -> Result<()> {
    scene.product("tea", 450, 5).await?;
    let id = scene.order("Ada", "tea", 1).await?.id;
    let mut watched = Watched::open(&scene.app, id, None).await?;
    watched.expect(&[("1", "pending"), ("2", "confirmed")]).await?;
    drop(watched);
    let mut early = Watched::open(&scene.app, id, Some("1")).await?;
    early.expect(&[("2", "confirmed")]).await?;
    let mut late = Watched::open(&scene.app, id, Some("2")).await?;
    scene.cancel(id).await?;
    for watched in [&mut early, &mut late] {
        watched.expect(&[("3", "cancelled")]).await?;
        assert_eq!(watched.next().await?, None, "it is the end");
    }
    let mut afterwards = Watched::open(&scene.app, id, None).await?;
    afterwards.expect(&[("1", "pending"), ("2", "confirmed"), ("3", "cancelled")]).await?;
    assert_eq!(afterwards.next().await?, None);
    scene.end().await
}

async fn a_watcher_is_told_when_there_is_no_more(scene: Scene) -> Result<()> {
    scene.product("tea", 450, 5).await?;
    let id = scene.order("Ada", "tea", 6).await?.id;
    let mut watched = Watched::open(&scene.app, id, None).await?;
    watched.expect(&[("1", "pending"), ("2", "rejected")]).await?;
    assert_eq!(watched.next().await?, None);
    for (id, last, status) in [(id, Some("2"), "204"), (id, Some("two"), "400"), (Uuid::now_v7(), None, "404")] {
        assert_eq!(Watched::open(&scene.app, id, last).await?.status, status, "{last:?}");
    }
    scene.end().await
}

async fn a_watcher_is_let_go_when_the_shop_ends(scene: Scene) -> Result<()> {
    scene.product("tea", 450, 5).await?;
    let id = scene.order("Ada", "tea", 1).await?.id;
    let mut watched = Watched::open(&scene.app, id, None).await?;
    watched.expect(&[("1", "pending"), ("2", "confirmed")]).await?;
    scene.end().await?;
    assert_eq!(watched.next().await?, None);
    Ok(())
}

async fn what_is_wrong_with_a_request_is_told_by_path(scene: Scene) -> Result<()> {
    scene.product("tea", 450, 5).await?;
    let line = |sku: &str, quantity: i64| json!({ "sku": sku, "quantity": quantity });
    for (body, paths) in [
        (json!({ "customer": "", "lines": [] }), vec!["customer", "lines"]),
        (
            json!({ "customer": "Ada", "lines": [line("tea", 0), line("no spaces", 1)] }),
            vec!["lines[0].quantity", "lines[1].sku"],
        ),
        (json!({ "customer": "Ada", "lines": [line("tea", 1), line("gin", 1)] }), vec!["lines[1].sku"]),
        (json!({ "customer": "Ada", "lines": [{ "sku": "tea", "quantity": "two" }] }), vec!["lines[0].quantity"]),
    ] {
        let answer = scene.app.post("/v1/orders", &body).await?;
        assert_eq!(answer.status(), 400, "{}", answer.text());
        let problem: Value = answer.json()?;
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        let named: Vec<_> = errors.iter().map(|error| error["path"].as_str().unwrap_or_default()).collect();
        assert_eq!(named, paths, "{problem}");
        assert!(errors.iter().all(|error| error["message"].is_string()) && problem["request_id"].is_string());
    }
    scene.end().await
}

async fn every_refusal_is_a_problem(scene: Scene) -> Result<()> {
    let app = &scene.app;
    let product = json!({ "name": "x", "price_cents": 1, "stock": 0 });
    for (answer, status, code) in [
        (app.get("/v1/nothing").await?, 404, "NOT_FOUND"),
        (app.get("/v1/products/lost").await?, 404, "NOT_FOUND"),
        (app.get(&format!("/v1/orders/{}", Uuid::now_v7())).await?, 404, "NOT_FOUND"),
        (app.get("/v1/orders/7").await?, 400, "INVALID_ARGUMENT"),
        (app.get("/v1/orders?limit=0").await?, 400, "INVALID_ARGUMENT"),
        (app.get("/v1/orders?limit=many").await?, 400, "INVALID_ARGUMENT"),
        (app.get("/v1/orders?cursor=x").await?, 400, "INVALID_ARGUMENT"),
        (app.get("/v1/orders?status=lost").await?, 400, "INVALID_ARGUMENT"),
        (app.put("/v1/products/no%20spaces", &product).await?, 400, "INVALID_ARGUMENT"),
        (app.put("/v1/orders", &product).await?, 405, "UNIMPLEMENTED"),
        (app.post("/v1/orders", &json!({ "customer": "x".repeat(2 << 20) })).await?, 413, "RESOURCE_EXHAUSTED"),
    ] {
        let shown = answer.text().to_owned();
        assert_eq!(answer.status(), status, "{shown}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{shown}");
        let problem: Value = answer.json()?;
        assert_eq!((&problem["code"], &problem["status"]), (&json!(code), &json!(status)), "{shown}");
        assert_eq!(problem["request_id"].as_str(), answer.header("x-request-id"), "{shown}");
    }
    scene.end().await
}

async fn idempotency_keys_are_refused_until_they_are_honoured(scene: Scene) -> Result<()> {
    scene.product("tea", 450, 5).await?;
    let ctx = Context::background().with_timeout(Duration::from_secs(30));
    let body = json!({ "customer": "Ada", "lines": [{ "sku": "tea", "quantity": 1 }] });
    let call =
        mainstay::http::Client::new()?.post(scene.app.url("/v1/orders")).header("idempotency-key", "k1").json(&body);
    assert_eq!(call.exchange(&ctx).await?.status().as_u16(), 501);
    let page: Page<Order> = scene.app.get("/v1/orders").await?.json()?;
    assert!(page.items.is_empty(), "refused and stored");
    scene.end().await
}

async fn orders_placed_at_once_get_what_there_is(scene: Scene) -> Result<()> {
    scene.product("tea", 450, 5).await?;
    let scene = std::sync::Arc::new(scene);
    let ctx = Context::background();
    let mut group = Group::new(&ctx);
    for _ in 0..40 {
        let scene = scene.clone();
        group.spawn(move |_| async move { scene.order("Ada", "tea", 1).await.map(|order| order.id) }).await;
    }
    let mut placed = group.wait().await?;
    placed.sort();
    placed.dedup();
    assert_eq!(placed.len(), 40);
    for id in &placed {
        scene.settled(*id).await?;
    }
    let count = "SELECT COUNT(*) FROM orders WHERE status = $1";
    for (status, expected) in [("confirmed", 5), ("rejected", 35)] {
        assert_eq!(scene.db.read(count).bind(status).one::<i64>(&ctx).await?, expected, "{status}");
    }
    assert_eq!(scene.stock("tea").await?, 0);
    let Some(scene) = std::sync::Arc::into_inner(scene) else {
        return Err(Error::internal("a task outlived its group"));
    };
    scene.end().await
}

async fn a_request_is_logged_and_counted_once(scene: Scene) -> Result<()> {
    let answer = scene.app.get("/v1/products/lost").await?;
    let id = answer.header("x-request-id").unwrap_or_default();
    let lines = scene.app.logs().with_target("mainstay::access");
    let lines: Vec<_> = lines.filter(|line| line.fields["request_id"] == id).collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let line = &lines[0];
    assert_eq!((line.fields["route"].as_str(), line.fields["status"].as_str()), ("/v1/products/{sku}", "404"));
    let labels = [("http_route", "/v1/products/{sku}"), ("http_response_status_code", "404")];
    assert_eq!(scene.app.samples().sum("http_server_request_duration_seconds_count", &labels), 1.0);
    assert!(scene.app.admin("/metrics").await?.text().contains("sql_client_connections"));
    scene.end().await
}

async fn the_api_document_matches_the_routes(scene: Scene) -> Result<()> {
    let document: Value = scene.app.admin("/openapi.json").await?.json()?;
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1.")), "{document}");
    let paths = document["paths"].as_object().cloned().unwrap_or_default();
    let described: Vec<String> = paths.keys().cloned().collect();
    let expected = [
        "/v1/orders",
        "/v1/orders/{id}",
        "/v1/orders/{id}/cancel",
        "/v1/orders/{id}/events",
        "/v1/products",
        "/v1/products/{sku}",
    ];
    assert_eq!(described, expected);
    let put = &document["paths"]["/v1/products/{sku}"]["put"];
    assert!(put["responses"]["200"].is_object() && put["responses"]["201"].is_object(), "{put}");
    assert_eq!(put["parameters"][0]["name"], "sku");
    scene.end().await
}
