//! What events promise, through a real RabbitMQ server: `RABBITMQ_TEST_URL`, or the usual port on this machine.

#![allow(clippy::unwrap_used, reason = "a case fails by panicking, and its helpers are no `#[test]` functions")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lapin::options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use mainstay_core::{Code, Context, Result};
use mainstay_events::Message;
use mainstay_events::broker::{Broker, Outcome, Outgoing, Resume, Stream, Subscription};
use mainstay_events::testing::{Setup, broker_suite, outside_suite, quick};
use mainstay_rabbitmq::RabbitMq;
use mainstay_sql::Dialect;
use mainstay_sql::testing::{Harness, Needs};
use tokio::net::{TcpListener, TcpStream};

const ALL: [Dialect; 3] = [Dialect::Sqlite, Dialect::Postgres, Dialect::Mysql];

/// What the streams of one run of this program begin with.
const PREFIX: &str = "mainstay-test-";

/// How many brokers there have been.
static CASES: AtomicU32 = AtomicU32::new(0);

fn main() -> ExitCode {
    let answers = on_a_runtime(async {
        match tokio::time::timeout(Duration::from_secs(2), connect()).await {
            Ok(Ok(_)) => Ok(()),
            // Without the user and the password that may stand before it.
            _ => Err(format!("no RabbitMQ at {}", url().rsplit(['@', '/']).next().unwrap_or_default())),
        }
    });
    let there = answers.is_ok();
    let harness = broker_suite(Harness::new().given(answers), "rabbitmq", &ALL, setup);
    let harness = outside_suite(harness, "rabbitmq", &ALL, setup)
        .case("what_is_too_large_is_refused_and_nothing_beside_it", Needs::Nothing, what_is_too_large)
        .case("a_queue_that_is_no_stream_is_refused_with_what_to_do", Needs::Nothing, a_queue_that_is_no_stream)
        .case("streams_are_found_by_those_who_want_another_number", Needs::Nothing, another_number)
        .case("reading_begins_where_it_says", Needs::Nothing, reading_begins_where_it_says)
        .case("what_has_no_queue_any_more_is_not_stored", Needs::Nothing, what_has_no_queue)
        .case("a_silent_connection_that_is_given_up_leaves_no_socket", Needs::Nothing, silent_connection);
    let code = harness.run();
    if there {
        on_a_runtime(remove_streams());
    }
    code
}

fn url() -> String {
    std::env::var("RABBITMQ_TEST_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672".to_owned())
}

async fn connect() -> lapin::Result<Connection> {
    Connection::connect(&url(), ConnectionProperties::default()).await
}

/// A broker for each case, with streams that no other case uses.
fn setup() -> Setup {
    Setup::through(broker().0, quick())
}

/// A broker with streams that no other case uses, and what their names begin with.
fn broker() -> (RabbitMq, String) {
    let case = CASES.fetch_add(1, Ordering::Relaxed);
    let prefix = format!("{PREFIX}{}-{case}", std::process::id());
    (RabbitMq::new(&format!("{}?prefix={prefix}", url())).unwrap(), prefix)
}

/// The topic of the cases that publish by themselves.
const TOPIC: &str = "test.step";

fn message(number: i64, payload: Vec<u8>) -> Outgoing {
    let id = number.to_string();
    let attributes = [("specversion", "1.0"), ("id", id.as_str()), ("source", "test"), ("type", TOPIC)];
    Outgoing { stream: 0, message: Message::from_attributes(TOPIC, attributes, Default::default(), payload).unwrap() }
}

async fn publish(broker: &RabbitMq, numbers: std::ops::Range<i64>) {
    let messages: Vec<Outgoing> = numbers.map(|number| message(number, number.to_string().into())).collect();
    let outcomes = broker.publish(&Context::background(), &messages).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Stored)), "{outcomes:?}");
}

async fn subscribe(broker: &RabbitMq, from: Resume) -> Box<dyn Subscription> {
    let stream = Stream { service: "test".to_owned(), topic: TOPIC.to_owned(), number: 0 };
    broker.subscribe(&Context::background(), &stream, from).await.unwrap()
}

/// The payloads of the next `count` messages.
async fn read(subscription: &mut dyn Subscription, count: usize) -> Vec<i64> {
    let mut read = Vec::new();
    while read.len() < count {
        let deliveries = subscription.fetch(count - read.len()).await.unwrap();
        subscription.settle(deliveries.last().unwrap().place).await.unwrap();
        let payloads = deliveries.into_iter().map(|delivery| delivery.message.unwrap().payload);
        read.extend(payloads.map(|payload| String::from_utf8(payload).unwrap().parse::<i64>().unwrap()));
    }
    read
}

async fn what_is_too_large() -> Result<()> {
    /// What the server takes unless it is told otherwise, by version, and more.
    const LARGE: usize = (128 << 20) + 1;
    let (broker, _) = broker();
    broker.open(&Context::background(), TOPIC, 1).await?;
    let messages = [message(0, b"0".into()), message(1, vec![b' '; LARGE]), message(2, b"2".into())];
    let outcomes = broker.publish(&Context::background(), &messages).await;
    assert!(matches!(outcomes[..], [Outcome::Stored, Outcome::Refused(_), Outcome::Stored]), "{outcomes:?}");
    Ok(())
}

async fn a_queue_that_is_no_stream() -> Result<()> {
    let (broker, prefix) = broker();
    let connection = connect().await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let (queue, durable) = (format!("{prefix}.{TOPIC}.0"), QueueDeclareOptions::durable());
    channel.queue_declare(queue.clone().into(), durable, FieldTable::default()).await.unwrap();
    let refused = broker.open(&Context::background(), TOPIC, 1).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let told = refused.report().to_string();
    assert!(told.contains(&queue) && told.contains("x-queue-type") && told.contains("delete it"), "{told}");
    Ok(())
}

async fn another_number() -> Result<()> {
    let ((broker, prefix), ctx) = (broker(), Context::background());
    let other = RabbitMq::new(&format!("{}?prefix={prefix}", url())).unwrap();
    // Whoever is first decides.
    let (one, two) = futures_util::join!(broker.open(&ctx, TOPIC, 4), other.open(&ctx, TOPIC, 3));
    let (one, two) = (one?, two?);
    assert!(one == two && matches!(one, 3 | 4), "{one}, {two}");
    assert_eq!(RabbitMq::new(&format!("{}?prefix={prefix}", url())).unwrap().open(&ctx, TOPIC, 1).await?, one);
    Ok(())
}

async fn reading_begins_where_it_says() -> Result<()> {
    let (broker, _) = broker();
    broker.open(&Context::background(), TOPIC, 1).await?;
    assert_eq!(subscribe(&broker, Resume::Newest).await.place(), 0);
    publish(&broker, 0..700).await;
    let mut newest = subscribe(&broker, Resume::Newest).await;
    let place = newest.place();
    // In the last of the batches that the server makes of what it is sent.
    assert!((1..=700).contains(&place), "{place}");
    publish(&broker, 700..710).await;
    let rest: Vec<i64> = (place..710).collect();
    assert_eq!(read(&mut *newest, rest.len()).await, rest);
    // More than the server sends ahead.
    assert_eq!(read(&mut *subscribe(&broker, Resume::Oldest).await, 710).await, Vec::from_iter(0..710));
    for place in [1, 350, 709] {
        let mut after = subscribe(&broker, Resume::After(place)).await;
        assert_eq!(after.place(), place);
        let rest: Vec<i64> = (place..710).collect();
        assert_eq!(read(&mut *after, rest.len()).await, rest);
    }
    let mut anew = subscribe(&broker, Resume::After(711)).await;
    assert_eq!((anew.place(), read(&mut *anew, 1).await), (0, vec![0]), "a place that there is not");
    Ok(())
}

async fn what_has_no_queue() -> Result<()> {
    let ((broker, prefix), ctx) = (broker(), Context::background());
    broker.open(&ctx, TOPIC, 1).await?;
    publish(&broker, 0..1).await;
    let connection = connect().await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.queue_delete(format!("{prefix}.{TOPIC}.0").into(), QueueDeleteOptions::default()).await.unwrap();
    let outcomes = broker.publish(&ctx, &[message(1, b"1".into())]).await;
    assert!(matches!(outcomes[..], [Outcome::Unknown(_)]), "{outcomes:?}");
    // Opened again, as a relay does, it is made again.
    broker.open(&ctx, TOPIC, 1).await?;
    publish(&broker, 1..2).await;
    assert_eq!(read(&mut *subscribe(&broker, Resume::After(5)).await, 1).await, [1]);
    Ok(())
}

async fn silent_connection() -> Result<()> {
    let (url, prefix) = (url(), broker().1);
    let (user, rest) = url.rsplit_once('@').unwrap();
    let (host, vhost) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let between = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let broker = RabbitMq::new(&format!("{user}@{}{vhost}?prefix={prefix}", between.local_addr().unwrap())).unwrap();
    let ctx = Context::background();
    let mut opened = Box::pin(broker.open(&ctx, TOPIC, 1));
    let mut client = tokio::select! {
        _ = &mut opened => panic!("nobody has answered"),
        accepted = between.accept() => accepted.unwrap().0,
    };
    let mut server = TcpStream::connect(host).await.unwrap();
    tokio::select! {
        opened = opened => assert_eq!(opened?, 1),
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => panic!("it is open"),
    }
    // From here on nobody carries what the one says to the other.
    assert_eq!(broker.open(&ctx, "test.echo", 1).await.unwrap_err().code(), Code::Unavailable);
    tokio::time::timeout(Duration::from_secs(60), tokio::io::copy(&mut client, &mut tokio::io::sink()))
        .await
        .unwrap()
        .unwrap();
    Ok(())
}

/// Removes the streams of this process.
async fn remove_streams() {
    let connection = connect().await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    for case in 0..CASES.load(Ordering::Relaxed) {
        for topic in ["test.step", "test.echo"] {
            let exchange = format!("{PREFIX}{}-{case}.{topic}", std::process::id());
            for stream in 0..quick().partitions {
                let queue = format!("{exchange}.{stream}");
                channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
            }
            channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await.unwrap();
        }
    }
}

fn on_a_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(work)
}
