use std::future::pending;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use mainstay_core::{Code, Context, Error, Result, fan_in, fan_out, fan_out_unordered};
use tokio::sync::mpsc;

use crate::chaos::{Alive, Gauge, quiet_panic, rounds};

#[test]
fn order_limits_and_memory_hold() {
    rounds(|mut chaos| async move {
        let (count, limit, ordered) = (chaos.below(12), chaos.below(4), chaos.below(2) == 0);
        let (running, pulled) = (Gauge::default(), Gauge::default());
        let (seeds, pulled_items) = (chaos.fork(), pulled.clone());
        let items = (0..count).map(move |number| (number, pulled_items.enter()));
        let (work_running, seeds) = (running.clone(), std::sync::Mutex::new(seeds));
        let work = move |_, (number, alive): (usize, Alive)| {
            let (mut chaos, running) = (seeds.lock().unwrap().fork(), work_running.clone());
            async move {
                let _running = running.enter();
                // The first is the slowest: the others must not pile up behind it.
                for _ in 0..if number == 0 { 20 } else { 1 } {
                    chaos.step().await;
                }
                Ok((number, alive))
            }
        };
        let ctx = Context::background();
        let mut results = match ordered {
            true => fan_out(&ctx, items, limit, work),
            false => fan_out_unordered(&ctx, items, limit, work),
        };
        let mut numbers = Vec::new();
        while let Some(result) = results.next().await {
            let (number, alive) = result.unwrap();
            numbers.push(number);
            chaos.step().await;
            assert!(pulled.now() <= limit.max(1) + 1, "{} of {limit}", pulled.now()); // and the one in our hand
            drop(alive);
        }
        if !ordered {
            numbers.sort_unstable();
        }
        assert_eq!(numbers, (0..count).collect::<Vec<_>>());
        assert!(running.peak() <= limit.max(1));
        drop(results);
        assert_eq!(pulled.now(), 0);
    });
}

#[test]
fn dropping_the_stream_drops_every_task() {
    rounds(|mut chaos| async move {
        let (sender, mut receiver) = mpsc::channel::<()>(1);
        let work = move |_, number: usize| {
            let sender = sender.clone();
            async move {
                let _sender = sender;
                if number > 0 { pending().await } else { Ok(number) }
            }
        };
        let mut results = fan_out_unordered(&Context::background(), 0.., 1 + chaos.below(4), work);
        assert_eq!(results.next().await.unwrap().unwrap(), 0);
        chaos.step().await;
        drop(results);
        assert_eq!(receiver.recv().await, None);
    });
}

#[tokio::test]
async fn an_error_or_a_panic_is_the_result_of_its_item() {
    let work = |_, number: u32| async move {
        match number {
            1 => Err(Error::not_found("order")),
            2 => quiet_panic("boom"),
            _ => Ok(number),
        }
    };
    let results: Vec<Result<u32>> = fan_out(&Context::background(), 0..4, 2, work).collect().await;
    let told: Vec<String> = results
        .iter()
        .map(|result| match result {
            Ok(number) => number.to_string(),
            Err(error) => error.report().to_string(),
        })
        .collect();
    assert_eq!((&*told[0], &*told[1], &*told[3]), ("0", "order not found", "3"));
    assert!(told[2].starts_with("a fan-out task started at ") && told[2].ends_with(" panicked: boom"), "{}", told[2]);
    fan_out(&Context::background(), 0..4, 2, work).try_collect::<Vec<_>>().await.unwrap_err();
}

#[tokio::test]
async fn nothing_starts_before_the_stream_is_polled() {
    let pulled = Gauge::default();
    let counted = pulled.clone();
    let items = (0..10).map(move |_| counted.enter());
    let mut results = fan_out(&Context::background(), items, 3, |_, alive| async { Ok(alive) });
    assert_eq!(pulled.peak(), 0);
    let _first = results.next().await.unwrap().unwrap();
    assert_eq!(pulled.peak(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_context_ends_the_stream_with_its_cause() {
    for limit in [1, 3] {
        let ctx = Context::background().with_timeout(Duration::from_secs(1));
        let results: Vec<Result<()>> = fan_out(&ctx, 0_u64.., limit, |_, _| pending()).collect().await;
        // What was started, and one more: without it a stream that had nothing in hand would seem complete.
        assert_eq!(results.len(), limit + 1);
        assert!(results.iter().all(|result| result.as_ref().unwrap_err().code() == Code::DeadlineExceeded));
    }
}

#[tokio::test]
async fn a_stream_that_is_always_ready_does_not_starve_the_others() {
    let busy = |name: &'static str| stream::repeat(name).boxed();
    let merged: Vec<_> = fan_in([busy("a"), busy("b"), busy("c")]).take(300).collect().await;
    for window in merged.chunks(3) {
        let mut window = window.to_vec();
        window.sort_unstable();
        assert_eq!(window, ["a", "b", "c"]);
    }
}

#[tokio::test]
async fn merged_streams_lose_nothing_and_end_together() {
    let mut merged: Vec<_> = fan_in((0..10).map(|n| stream::iter(n * 10..n * 10 + 10))).collect().await;
    merged.sort_unstable();
    assert_eq!(merged, (0..100).collect::<Vec<_>>());
    assert_eq!(fan_in(Vec::<stream::Empty<u8>>::new()).next().await, None);
}
