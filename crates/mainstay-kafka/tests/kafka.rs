//! What events promise, through Kafka: a real one at `KAFKA_TEST_URL`, or else the cluster that librdkafka keeps in this
//! process. That one can't make topics by the protocol or show their settings, so they are made for it by its own call and
//! not verified; nothing else here knows which it is.

#![allow(clippy::unwrap_used, reason = "a case fails by panicking, and its helpers are no `#[test]` functions")]

use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use mainstay_core::Result;
use mainstay_events::testing::{
    Probe, Service, Setup, Step, applied_count, assert_in_order, broker_suite, outside_suite, prepare, publish, quick,
    quiet,
};
use mainstay_kafka::Kafka;
use mainstay_sql::Dialect;
use mainstay_sql::testing::{Harness, Scene};
use rdkafka::mocking::MockCluster;

const ALL: [Dialect; 3] = [Dialect::Sqlite, Dialect::Postgres, Dialect::Mysql];

/// The topics of the suite, and how many streams they have where a case doesn't say.
const TOPICS: [&str; 2] = ["test.step", "test.echo"];
const STREAMS: i32 = 4;

fn main() -> ExitCode {
    let harness = broker_suite(Harness::new(), "kafka", &ALL, setup);
    let harness = outside_suite(harness, "kafka", &ALL, setup);
    harness.on_each(&ALL, "kafka::servers_that_are_down_delay_and_lose_nothing", servers_that_are_down).run()
}

/// A broker for each case, with topics that no other case uses.
fn setup() -> Setup {
    static CASES: AtomicU32 = AtomicU32::new(0);
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    let prefix = format!("mainstay-test-{}-{}", std::process::id(), CASES.fetch_add(1, Ordering::Relaxed));
    let url = match std::env::var("KAFKA_TEST_URL") {
        Ok(url) => format!("{url}?prefix={prefix}"),
        Err(_) => CLUSTER.get_or_init(Cluster::start).url(&prefix),
    };
    Setup::through(Kafka::new(&url).unwrap(), quick())
}

/// Always in a cluster of its own: one that others use is nobody's to end.
async fn servers_that_are_down(scene: Scene) -> Result<()> {
    prepare(&scene).await?;
    let cluster = Cluster::start();
    let setup = Setup::through(Kafka::new(&cluster.url("down")).unwrap(), quick());
    let service = Service::start(&scene, setup, |events| events.consume(Probe::new())).await?;
    let steps = |from| (from..from + 10).flat_map(|number| ["a", "b"].map(|key| Step::new(key, number)));
    publish(&scene.ctx, &service.db, steps(0)).await?;
    applied_count(&scene, "probe", 20).await?;
    quiet(&scene, &service.events).await?;
    cluster.give(Order::Down);
    publish(&scene.ctx, &service.db, steps(10)).await?;
    publish(&scene.ctx, &service.db, steps(20)).await?;
    assert_eq!(service.events.outbox(&scene.ctx).await?.depth, 40, "it waits where it was published");
    cluster.give(Order::Up);
    assert_in_order(&applied_count(&scene, "probe", 60).await?, &["a", "b"], 30);
    quiet(&scene, &service.events).await?;
    service.stop(Duration::from_secs(20)).await;
    Ok(())
}

/// A cluster in this process. It stays on the thread that has made it.
struct Cluster {
    servers: String,
    orders: Sender<(Order, Sender<()>)>,
}

enum Order {
    Make(String),
    Down,
    Up,
}

impl Cluster {
    fn start() -> Self {
        let (started, servers) = channel();
        let (orders, given) = channel::<(Order, Sender<()>)>();
        std::thread::spawn(move || {
            let cluster = MockCluster::new(1).unwrap();
            started.send(cluster.bootstrap_servers()).unwrap();
            for (order, done) in given {
                match order {
                    Order::Make(topic) => cluster.create_topic(&topic, STREAMS, 1),
                    Order::Down => cluster.broker_down(1),
                    Order::Up => cluster.broker_up(1),
                }
                .unwrap();
                done.send(()).unwrap();
            }
        });
        Self { servers: servers.recv().unwrap(), orders }
    }

    fn give(&self, order: Order) {
        let (done, is_done) = channel();
        self.orders.send((order, done)).unwrap();
        is_done.recv().unwrap();
    }

    /// Where it is, with the topics of the suite under `prefix`.
    fn url(&self, prefix: &str) -> String {
        TOPICS.into_iter().for_each(|topic| self.give(Order::Make(format!("{prefix}.{topic}"))));
        format!("kafka://{}?prefix={prefix}&verify=false", self.servers)
    }
}
