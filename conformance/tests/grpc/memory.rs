//! A thousand streams, and readers that don't read.

use std::time::Duration;

use conformance::calls::v1::{CountRequest, Number, WorkRequest};
use conformance::process::{Place, Process};
use futures_util::future::join_all;
use futures_util::stream;

use crate::{FIXTURE, client, patient};

const MIB: u64 = 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_of_which_some_are_not_read_cost_little_and_others_are_served() {
    // A connection has 200 calls at most.
    const CONNECTIONS: usize = 10;
    const STREAMS: usize = 100;
    let (place, ctx) = (Place::new(), patient());
    let service = Process::ready(&mut place.command(FIXTURE)).await;
    let others = client(place.http);
    others.work(&ctx, WorkRequest::default()).await.unwrap();
    let before = service.resident();

    // As much as the reader lets through, and as much again as the server would like to send.
    let firehose = CountRequest { count: 0, pause_ms: 0, padding: 64 * 1024 };
    let clients: Vec<_> = (0..CONNECTIONS).map(|_| client(place.http)).collect();
    let open = |index: usize| {
        let (client, ctx) = (&clients[index % CONNECTIONS], &ctx);
        async move {
            let mut numbers = client.count(ctx, firehose).await.unwrap();
            // The first of each connection reads something and stops; the others never begin.
            if index < CONNECTIONS {
                numbers.message().await.unwrap();
            }
            numbers
        }
    };
    let mut unread = join_all((0..CONNECTIONS).map(open)).await;
    unread.extend(join_all((CONNECTIONS..CONNECTIONS * STREAMS).map(open)).await);
    let mut grown = 0;
    for _ in 0..200 {
        others.work(&ctx, WorkRequest { ms: 1, id: 0 }).await.unwrap();
        grown = grown.max(service.resident().saturating_sub(before));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    print(&format!("{} streams that nobody reads: {} MiB more", unread.len(), grown / MIB));
    assert!(grown <= 160 * MIB, "{} MiB more", grown / MIB);
    drop(unread);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_is_slowed_down_to_the_pace_of_the_handler() {
    let (place, ctx) = (Place::new(), patient());
    let service = Process::ready(&mut place.command(FIXTURE)).await;
    let client = client(place.http);
    client.work(&ctx, WorkRequest::default()).await.unwrap();
    let before = service.resident();
    // Echoes that nobody takes: what is sent waits for what is read.
    let flood = || stream::repeat_with(|| Number { value: 1, padding: vec![1; 64 * 1024] });
    let echoes = join_all((0..100).map(|_| client.echo(&ctx, flood()))).await;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(service.resident().saturating_sub(before) <= 160 * MIB);
    }
    drop(echoes);
    client.work(&ctx, WorkRequest::default()).await.unwrap();
}

#[expect(clippy::print_stdout, reason = "the figures in docs/guarantees.md")]
fn print(text: &str) {
    println!("{text}");
}
