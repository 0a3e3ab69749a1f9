//! Every query of the shop walks along its index, on each database, by the database's own `EXPLAIN`.

use std::process::ExitCode;

use mainstay::prelude::*;
use mainstay::sql::migrate::Migrator;
use mainstay::sql::{Dialect, Query, Statement, Value};
use mainstay_testing::{Harness, Scene};
use shop::domain::{Line, OrderStatus};
use shop::repository::OrderFilter;
use shop::repository::statements::{CHANGES, FIND_ORDER, FIND_PRODUCT, list_orders, list_products, prices};

fn main() -> ExitCode {
    mainstay::sql::cases![Harness::new(); Sqlite, Postgres, Mysql; every_query_uses_its_index].run()
}

async fn every_query_uses_its_index(Scene { db, ctx, .. }: Scene) -> Result<()> {
    Migrator::new(&db, migrations!("migrations")).up(&ctx).await?;
    let id = fill(&db, &ctx).await?;
    let filter = |customer: Option<&str>, status| OrderFilter { customer: customer.map(str::to_owned), status };
    let pending = Some(OrderStatus::Pending);
    let lines: Vec<_> = ["p1", "p2"].map(|sku| Line { sku: sku.to_owned(), quantity: 1 }).into();

    // What the plan has to name; a primary key is called otherwise by each database.
    let (products, orders, changes) = match db.dialect() {
        Dialect::Mysql => ("PRIMARY", "PRIMARY", "PRIMARY"),
        Dialect::Postgres => ("products_pkey", "orders_pkey", "order_changes_pkey"),
        Dialect::Sqlite => ("PRIMARY KEY", "PRIMARY KEY", "PRIMARY KEY"),
    };
    let checks: Vec<(&str, Query, &str)> = vec![
        ("a product", with(&db, FIND_PRODUCT).bind("p1"), products),
        ("products after a key", with(&db, list_products(Some("p1".to_owned()), 10)), products),
        ("prices", with(&db, prices(&lines)), products),
        ("an order", with(&db, FIND_ORDER).bind(id), orders),
        ("an order's changes", with(&db, CHANGES).bind(id).bind(1), changes),
        ("all orders", with(&db, list_orders(&filter(None, None), Some(id), 10)), orders),
        ("a customer's orders", with(&db, list_orders(&filter(Some("c1"), None), Some(id), 10)), "orders_customer"),
        ("pending orders", with(&db, list_orders(&filter(None, pending), Some(id), 10)), "orders_status"),
        (
            "a customer's pending orders",
            with(&db, list_orders(&filter(Some("c1"), pending), Some(id), 10)),
            "orders_customer_status",
        ),
    ];
    for (name, query, index) in checks {
        let plan = query.explain(&ctx).await?;
        assert!(plan.contains(index), "{name}: no {index} in\n{plan}");
        let scans = ["Seq Scan", "SCAN products", "SCAN orders", "SCAN order_lines", "SCAN order_changes", " ALL NULL"];
        // The rows that are already cut to a page may be scanned; tables may not.
        let scanned =
            scans.iter().find(|scan| plan.lines().any(|line| line.contains(*scan) && !line.contains("<derived")));
        assert_eq!(scanned, None, "{name}:\n{plan}");
    }
    Ok(())
}

fn with(db: &Db, statement: impl Into<Statement>) -> Query {
    db.read(statement)
}

/// Enough rows that a planner prefers an index where it has one, with fresh statistics. Returns an order's id.
async fn fill(db: &Db, ctx: &Context) -> Result<Uuid> {
    let products = (0..5000).map(|n| values![format!("p{n}"), "tea", 450, 5]).collect();
    insert(db, ctx, "INSERT INTO products (sku, name, price_cents, stock)", products).await?;
    let ids: Vec<Uuid> = (0..5000).map(|_| Uuid::now_v7()).collect();
    // Few orders are pending, as in a shop that works; were they many, walking the primary key would be right.
    let status = |n: usize| if n.is_multiple_of(70) { "pending" } else { "confirmed" };
    let order = |(n, id): (usize, &Uuid)| values![*id, format!("c{}", n % 100), status(n), 450, Timestamp::now()];
    let orders = ids.iter().enumerate().map(order).collect();
    insert(db, ctx, "INSERT INTO orders (id, customer, status, total_cents, created_at)", orders).await?;
    let lines = ids.iter().flat_map(|id| [values![*id, 1, "p1", 1, 450], values![*id, 2, "p2", 1, 450]]).collect();
    insert(db, ctx, "INSERT INTO order_lines (order_id, line, sku, quantity, price_cents)", lines).await?;
    let change = |(n, id): (usize, &Uuid)| values![*id, 1, status(n), Timestamp::now()];
    let changes = ids.iter().enumerate().map(change).collect();
    insert(db, ctx, "INSERT INTO order_changes (order_id, number, status, changed_at)", changes).await?;
    for table in ["products", "orders", "order_lines", "order_changes"] {
        let analyze = match (db.dialect(), table) {
            (Dialect::Mysql, "products") => "ANALYZE TABLE products",
            (Dialect::Mysql, "orders") => "ANALYZE TABLE orders",
            (Dialect::Mysql, "order_lines") => "ANALYZE TABLE order_lines",
            (Dialect::Mysql, _) => "ANALYZE TABLE order_changes",
            (_, "products") => "ANALYZE products",
            (_, "orders") => "ANALYZE orders",
            (_, "order_lines") => "ANALYZE order_lines",
            (_, _) => "ANALYZE order_changes",
        };
        db.query(analyze).execute(ctx).await?;
    }
    Ok(ids[2500])
}

async fn insert(db: &Db, ctx: &Context, into: &'static str, rows: Vec<Vec<Value>>) -> Result<()> {
    for rows in rows.chunks(500) {
        db.query(Sql::new(into).push_values(rows.to_vec())).execute(ctx).await?;
    }
    Ok(())
}
