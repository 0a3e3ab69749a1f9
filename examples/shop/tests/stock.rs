//! The stock adds up: 200 customers at once want 50 pieces of tea, some change their mind, and the shop is killed again
//! and again while they do. Each case prints what it counted.
//!
//! Beside the tea, every customer orders something that nobody else does: a box, of which there are two, on two lines
//! of the order. So what each single order took and gave back can be seen in the stock of its box, and one that took half
//! of what it is for could not hide behind the others. Half of the boxes come before the tea in the order in which stock is
//! taken, half after it.

#![expect(clippy::unwrap_used, reason = "a case fails by panicking, and its helpers are no `#[test]` functions")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what was counted is for people to read")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use customer::{CUSTOMERS, Customer, box_of};
use mainstay::events::EventsSettings;
use mainstay::http::Client;
use mainstay::prelude::*;
use mainstay::sql::Dialect;
use mainstay::telemetry::Metrics;
use mainstay_testing::{Harness, Scene};
use shop_process::ShopProcess;
use tokio::time::{Instant, sleep};

#[path = "stock/customer.rs"]
mod customer;
#[path = "stock/shop_process.rs"]
mod shop_process;

/// Pieces of tea.
const TEA: i64 = 50;
/// How many of each box there are: an order wants all of them.
const BOXES: i64 = 2;
/// From when a process of the shop is ready until it is killed.
const LIFE: Duration = Duration::from_millis(300);
/// As long as customers keep coming where the shop is killed: some fifteen lives of it.
const ARRIVALS: Duration = Duration::from_secs(6);
/// When the killing ends, though not all is settled: on a busy machine a process takes seconds to start.
const KILLS: u32 = 20;

/// Brokers: their name, where their URL is told, and where they usually are.
const BROKERS: [(&str, &str, &str); 2] = [
    ("nats", "NATS_TEST_URL", "nats://127.0.0.1:4222"),
    ("rabbitmq", "RABBITMQ_TEST_URL", "amqp://guest:guest@127.0.0.1:5672"),
];

fn main() -> ExitCode {
    let mut harness = mainstay::sql::cases![
        Harness::new().one_at_a_time(); Sqlite, Postgres, Mysql;
        as_many_orders_are_confirmed_as_there_is_tea,
        cancelled_orders_give_back_what_they_took,
        kills_change_nothing_about_that,
    ];
    for (name, variable, usual) in BROKERS {
        let url = std::env::var(variable).unwrap_or_else(|_| usual.to_owned());
        harness = harness.given(answers(name, &url));
        let case = async move |scene: Scene| {
            // Streams of its own. Those of a run that was killed are removed by the next run of the broker's own tests.
            let prefix = format!("mainstay-test-{}-{}", std::process::id(), scene.db.dialect());
            kills_change_nothing(scene, Some(format!("{url}?prefix={prefix}"))).await
        };
        let name = format!("{name}::kills_change_nothing_about_that");
        harness = harness.on_each(&[Dialect::Sqlite, Dialect::Postgres, Dialect::Mysql], &name, case);
    }
    harness.run()
}

/// Whether somebody is there.
fn answers(name: &str, url: &str) -> Result<(), String> {
    // Without the user and the password that may stand before it.
    let address = url.rsplit(['@', '/']).next().unwrap_or_default();
    std::net::TcpStream::connect(address).map(drop).map_err(|error| format!("no {name} at {address}: {error}"))
}

async fn as_many_orders_are_confirmed_as_there_is_tea(scene: Scene) -> Result<()> {
    let (shop, counts) = run(scene, None, false, false).await?;
    assert_eq!((counts.orders("confirmed"), counts.tea), (TEA, 0));
    // A customer who got no answer in time, on a machine that is busy, may have ordered twice.
    assert!(counts.orders("rejected") == 150 || counts.unknown > 0, "{counts:?}");
    shop.end().await;
    Ok(())
}

async fn cancelled_orders_give_back_what_they_took(scene: Scene) -> Result<()> {
    let (shop, counts) = run(scene, None, true, false).await?;
    assert!(counts.gave_back > 0, "{counts:?}");
    shop.end().await;
    Ok(())
}

async fn kills_change_nothing_about_that(scene: Scene) -> Result<()> {
    kills_change_nothing(scene, None).await
}

async fn kills_change_nothing(scene: Scene, broker: Option<String>) -> Result<()> {
    let (shop, counts) = run(scene, broker, true, true).await?;
    assert!(counts.gave_back > 0 && counts.kills >= 10 && counts.unknown > 0, "{counts:?}");
    shop.end().await;
    Ok(())
}

/// What came of it.
#[derive(Debug)]
struct Counts {
    kills: u32,
    /// By status.
    orders: BTreeMap<String, i64>,
    /// How many of the cancelled ones had been confirmed.
    gave_back: i64,
    /// How often a customer got no answer.
    unknown: u32,
    tea: i64,
}

impl Counts {
    fn orders(&self, status: &str) -> i64 {
        self.orders.get(status).copied().unwrap_or_default()
    }
}

/// Has all customers served, waits until everything is settled, and checks what holds in every case.
async fn run(scene: Scene, broker: Option<String>, cancels: bool, kills: bool) -> Result<(ShopProcess, Counts)> {
    let (Scene { db, ctx, settings, .. }, began) = (scene, Instant::now());
    let carrier = broker.as_deref().and_then(|url| url.split(':').next()).unwrap_or("embedded").to_owned();
    let shop = ShopProcess::start(settings.url.expose(), broker).await;
    let stock = (0..CUSTOMERS).map(|number| values![box_of(number), "A box", 100, BOXES]);
    let stock: Vec<_> = stock.chain([values!["tea", "Tea", 450, TEA]]).collect();
    let insert = Sql::new("INSERT INTO products (sku, name, price_cents, stock)").push_values(stock);
    db.query(insert).execute(&ctx).await?;
    let events = Events::new(&db, EventsSettings::default(), "test", &Metrics::new())?;

    let shop = Arc::new(shop);
    let (client, mut customers) = (Client::new()?, Group::new(&ctx));
    for number in 0..CUSTOMERS {
        let customer = Customer::new(number, shop.address(), client.clone(), cancels, kills.then_some(ARRIVALS));
        customers.spawn(move |ctx| async move { customer.live(&ctx).await }).await;
    }
    let settled = async {
        let unknown: u32 = customers.wait().await?.into_iter().sum();
        while !is_settled(&ctx, &db, &events).await? {
            sleep(Duration::from_millis(100)).await;
        }
        Ok::<_, Error>(unknown)
    };
    let mut settled = std::pin::pin!(settled);
    let mut killed = 0;
    let unknown = loop {
        tokio::select! {
            unknown = &mut settled => break unknown,
            () = sleep(LIFE), if kills && killed < KILLS => {
                shop.kill_and_start().await;
                killed += 1;
            }
        }
    };
    let unknown = unknown.inspect_err(|_| eprintln!("{}", shop.log()))?;
    let counts = count(&ctx, &db, killed, unknown).await?;
    println!("{}, {carrier}: {counts:?} in {:.1?}", db.dialect(), began.elapsed());
    check(&ctx, &db, &counts).await?;
    let shop = Arc::into_inner(shop).ok_or_else(|| Error::internal("a customer outlived the group"))?;
    Ok((shop, counts))
}

/// Whether every order is where it will stay, and every event was applied, so that nothing can change any more.
async fn is_settled(ctx: &Context, db: &Db, events: &Events) -> Result<bool> {
    let dead = events.dead_letters(ctx, None, 0, 10).await?;
    assert!(dead.is_empty(), "given up: {dead:#?}");
    let open = "SELECT COUNT(*) FROM orders WHERE status = 'pending' OR (status = 'cancelled' AND holds_stock)";
    let open: i64 = db.read(open).one(ctx).await?;
    let waits = events.outbox(ctx).await?.depth > 0
        || events.lag(ctx).await?.iter().any(|group| group.lag > 0 || group.retries > 0);
    Ok(open == 0 && !waits)
}

async fn count(ctx: &Context, db: &Db, kills: u32, unknown: u32) -> Result<Counts> {
    let orders = "SELECT status, COUNT(*) FROM orders GROUP BY status";
    let orders = db.read(orders).all::<(String, i64)>(ctx).await?.into_iter().collect();
    let gave_back = "SELECT COUNT(*) FROM orders o JOIN order_changes c ON c.order_id = o.id \
                     WHERE o.status = 'cancelled' AND c.status = 'confirmed'";
    let gave_back = db.read(gave_back).one(ctx).await?;
    let tea = db.read("SELECT stock FROM products WHERE sku = 'tea'").one(ctx).await?;
    Ok(Counts { kills, orders, gave_back, unknown, tea })
}

async fn check(ctx: &Context, db: &Db, counts: &Counts) -> Result<()> {
    assert_eq!(counts.orders("pending"), 0);
    assert!(counts.orders.values().sum::<i64>() >= i64::from(CUSTOMERS), "every customer has an order");
    assert_eq!(counts.tea + counts.orders("confirmed"), TEA);

    // Each order by its box: a confirmed one holds it, and everyone else has put back what they took, once.
    let boxes = "SELECT p.sku, p.stock, COUNT(DISTINCT CASE WHEN o.status = 'confirmed' THEN o.id END) \
                 FROM products p LEFT JOIN order_lines l ON l.sku = p.sku LEFT JOIN orders o ON o.id = l.order_id \
                 WHERE p.sku <> 'tea' GROUP BY p.sku, p.stock";
    let boxes: Vec<(String, i64, i64)> = db.read(boxes).all(ctx).await?;
    assert_eq!(boxes.len(), usize::try_from(CUSTOMERS).unwrap());
    for (sku, stock, confirmed) in boxes {
        assert_eq!(stock + BOXES * confirmed, BOXES, "{sku}: {confirmed} orders hold it");
    }

    // Who watched saw a way that there is, step by step.
    let changes = "SELECT order_id, number, status FROM order_changes ORDER BY order_id, number";
    let mut ways: BTreeMap<Uuid, Vec<(i64, String)>> = BTreeMap::new();
    for (id, number, status) in db.read(changes).all::<(Uuid, i64, String)>(ctx).await? {
        ways.entry(id).or_default().push((number, status));
    }
    let known = ["confirmed", "rejected", "cancelled", "confirmed cancelled"];
    for (id, way) in ways {
        assert!(way.iter().map(|(number, _)| *number).eq(1..=way.len() as i64), "{id}: {way:?}");
        let words: Vec<&str> = way.iter().map(|(_, status)| status.as_str()).collect();
        let known =
            words.split_first().is_some_and(|(first, rest)| *first == "pending" && known.contains(&&*rest.join(" ")));
        assert!(known, "{id}: {way:?}");
    }
    Ok(())
}
