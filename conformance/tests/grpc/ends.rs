//! How a service with open calls ends, and is replaced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use conformance::calls::v1::{CountRequest, WorkRequest};
use conformance::process::{Place, Process};
use futures_util::future::join_all;
use mainstay::prelude::*;

use crate::{FIXTURE, client, patient};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unary_calls_finish_and_streams_are_told_to_call_again() {
    const EACH: i64 = 100;
    let (place, ctx) = (Place::new(), patient());
    let service = Process::ready(&mut place.command(FIXTURE)).await;
    let client = client(place.http);
    let streams = (0..EACH).map(|_| async {
        let endless = CountRequest { count: 0, pause_ms: 50, padding: 0 };
        let mut numbers = client.count(&ctx, endless).await.unwrap();
        numbers.message().await.unwrap();
        numbers
    });
    let streams = join_all(streams).await;
    let calls: Vec<_> = (1..=EACH)
        .map(|id| {
            let (client, ctx) = (client.clone(), ctx.clone());
            tokio::spawn(async move { client.work(&ctx, WorkRequest { ms: 2000, id }).await })
        })
        .collect();
    while place.in_hand().await < 2 * EACH.unsigned_abs() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    service.terminate();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    for mut numbers in streams {
        let error = loop {
            match numbers.message().await {
                Ok(number) => assert!(number.is_some(), "a stream without end had one"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.code(), Code::Unavailable, "{error:?}");
        assert!(error.retry_delay().is_some(), "{error:?}");
    }
    let (status, log) = service.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(place.rows(), EACH.unsigned_abs());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_connections_are_replaced_without_a_failed_call_and_cut_after_their_grace() {
    let (place, ctx) = (Place::new(), patient());
    let mut command = place.command(FIXTURE);
    command.envs([("FIXTURE_HTTP__HTTP2_MAX_AGE", "500ms"), ("FIXTURE_HTTP__HTTP2_MAX_AGE_GRACE", "1s")]);
    let _service = Process::ready(&mut command).await;
    let (calls, streams) = (client(place.http), client(place.http));
    let mut endless = streams.count(&ctx, CountRequest { count: 0, pause_ms: 50, padding: 0 }).await.unwrap();
    let cut = async { while endless.message().await.is_ok() {} };
    let busy = async {
        loop {
            calls.work(&ctx, WorkRequest { ms: 5, id: 0 }).await.unwrap();
        }
    };
    tokio::select! {
        () = cut => {}
        () = busy => {}
    }
}

/// How often the service is replaced; `just grpc-handover` says 20.
fn rounds() -> usize {
    std::env::var("HANDOVERS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn across_hand_overs_no_call_fails_and_every_answer_is_true() {
    const CLIENTS: usize = 40;
    let (place, ctx) = (Place::new(), patient().detached());
    let mut service = Process::ready(&mut place.command(FIXTURE)).await;
    let (next_id, answered, ends) = <(Arc<AtomicI64>, Arc<AtomicI64>, Arc<AtomicBool>)>::default();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (client, ctx) = (client(place.http), ctx.clone());
            let (next_id, answered, ends) = (next_id.clone(), answered.clone(), ends.clone());
            tokio::spawn(async move {
                while !ends.load(Ordering::Relaxed) {
                    let id = next_id.fetch_add(1, Ordering::Relaxed) + 1;
                    let answer = client.work(&ctx, WorkRequest { ms: id % 100, id }).await;
                    answer.inspect_err(|error| print(&format!("{error:?}")))?;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, Error>(())
            })
        })
        .collect();
    let answers = async |more: i64| {
        let before = answered.load(Ordering::Relaxed);
        while answered.load(Ordering::Relaxed) < before + more {
            assert!(!clients.iter().any(|client| client.is_finished()), "a call failed");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    answers(100).await;
    for _ in 0..rounds() {
        let next = Process::ready(&mut place.command(FIXTURE)).await;
        let (status, log) = std::mem::replace(&mut service, next).ended().await;
        assert_eq!(status.code(), Some(0), "{log}");
        answers(100).await;
    }
    ends.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap().unwrap();
    }
    let answered = answered.load(Ordering::Relaxed);
    print(&format!("gRPC: {} hand-overs, {answered} calls, none failed", rounds()));
    assert_eq!(place.rows(), answered.unsigned_abs());
}

#[expect(clippy::print_stdout, reason = "the figures in docs/guarantees.md")]
fn print(text: &str) {
    println!("{text}");
}
