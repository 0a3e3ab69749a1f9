use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use mainstay_core::{Code, Context, Error, FieldViolation, RequestId, Result, Singleflight};
use tokio::sync::{mpsc, oneshot};

use crate::chaos::{quiet_panic, rounds};

/// The contexts of the work that runs for a key.
type Running = Arc<Mutex<BTreeMap<usize, Context>>>;

struct Leave(Running, usize);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.lock().unwrap().remove(&self.1);
    }
}

#[test]
fn a_key_is_worked_on_once_at_a_time_whoever_leaves() {
    rounds(|mut chaos| async move {
        let flights: Singleflight<usize, usize> = Singleflight::new();
        let running: [Running; 2] = Default::default();
        let runs = Arc::new(AtomicUsize::new(0));
        let mut callers = Vec::new();
        for _ in 0..1 + chaos.below(7) {
            let (mut chaos, flights, runs, running) = (chaos.fork(), flights.clone(), runs.clone(), running.clone());
            callers.push(tokio::spawn(async move {
                chaos.step().await;
                let key = chaos.below(2);
                let (ctx, canceler) = Context::background().with_cancel();
                let leaves = chaos.below(3) == 0;
                let (mut inner, running) = (chaos.fork(), running[key].clone());
                let work = move |ctx: Context| async move {
                    let run = runs.fetch_add(1, SeqCst);
                    // Work that all callers have left may still be in its last poll, but it is done.
                    let alone = running.lock().unwrap().values().all(Context::is_done);
                    assert!(alone, "two runs of a key are wanted at once");
                    running.lock().unwrap().insert(run, ctx);
                    let _leave = Leave(running, run);
                    inner.step().await;
                    Ok(run)
                };
                let call = flights.run(&ctx, key, work);
                let leave = async {
                    chaos.step().await;
                    if leaves {
                        canceler.cancel();
                    }
                };
                match tokio::join!(call, leave).0 {
                    Ok(_) => {}
                    Err(error) => assert!(leaves && error.code() == Code::Cancelled, "{error:?}"),
                }
            }));
        }
        for caller in callers {
            caller.await.unwrap();
        }
        assert_eq!(format!("{flights:?}"), "Singleflight(0 under way)");
    });
}

#[test]
fn callers_that_stay_share_one_run() {
    rounds(|mut chaos| async move {
        let flights: Singleflight<&str, usize> = Singleflight::new();
        let runs = AtomicUsize::new(0);
        let (release, gate) = oneshot::channel::<()>();
        let mut gate = Some(gate);
        let ctx = Context::background();
        let calls: Vec<_> = (0..1 + chaos.below(5))
            .map(|_| {
                let (gate, runs, flights, ctx) = (gate.take(), &runs, &flights, &ctx);
                async move {
                    flights
                        .run(ctx, "key", move |_| async move {
                            // Only the first has the gate: a second run fails.
                            gate.ok_or_else(|| Error::internal("ran twice"))?.await.map_err(Error::from_any)?;
                            Ok(7)
                        })
                        .await
                        .inspect(|_| _ = runs.fetch_add(1, SeqCst))
                }
            })
            .collect();
        let expected = calls.len();
        let open = async {
            // `join_all` polls every call before this.
            chaos.step().await;
            release.send(()).unwrap();
        };
        let (results, ()) = tokio::join!(join_all(calls), open);
        assert!(results.iter().all(|result| matches!(result, Ok(7))), "{results:?}");
        assert_eq!(runs.load(SeqCst), expected);
    });
}

#[tokio::test(start_paused = true)]
async fn the_leader_may_leave_and_the_followers_are_answered() {
    let flights: Singleflight<u8, u8> = Singleflight::new();
    let short = Context::background().with_timeout(Duration::from_secs(1));
    let patient = Context::background().with_timeout(Duration::from_secs(10));
    let slow = |_| async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        Ok(7)
    };
    let leader = flights.run(&short, 1, slow);
    let follower = flights.run(&patient, 1, |_| async { unreachable!("it follows") });
    let (leader, follower) = tokio::join!(leader, follower);
    assert_eq!(leader.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(follower.unwrap(), 7);
}

#[tokio::test]
async fn work_that_everyone_has_left_is_dropped_and_the_next_caller_starts_anew() {
    let flights: Singleflight<u8, u8> = Singleflight::new();
    let ctx = Context::background();
    let (sender, mut receiver) = mpsc::channel::<()>(1);
    let mut call = Box::pin(flights.run(&ctx, 1, |_| async move {
        let _sender = sender;
        pending().await
    }));
    assert!(futures_util::poll!(&mut call).is_pending());
    drop(call);
    assert_eq!(receiver.recv().await, None);
    assert_eq!(flights.run(&ctx, 1, |_| async { Ok(2) }).await.unwrap(), 2);
}

#[test]
fn results_are_not_kept() {
    rounds(|mut chaos| async move {
        let flights: Singleflight<u8, u8> = Singleflight::default();
        for number in 0..5 {
            assert_eq!(
                flights.run(&Context::background(), 1, move |_| async move { Ok(number) }).await.unwrap(),
                number
            );
            chaos.step().await;
        }
    });
}

#[tokio::test]
async fn an_error_is_the_same_for_all_and_keeps_what_it_carries() {
    let flights: Singleflight<u8, u8> = Singleflight::new();
    let ctx = Context::background();
    let fail = |_| async {
        Err(Error::invalid_argument("no such price")
            .with_detail(FieldViolation::new("sku", "unknown"))
            .retry_after(Duration::from_secs(3))
            .with_source(std::io::Error::other("disk"))
            .context("loading the price"))
    };
    let (first, second) = tokio::join!(flights.run(&ctx, 1, fail), flights.run(&ctx, 1, fail));
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert_eq!((error.code(), error.message()), (Code::InvalidArgument, "no such price"));
        assert_eq!(error.field_violations().count(), 1);
        assert_eq!(error.retry_delay(), Some(Duration::from_secs(3)));
        assert!(error.is::<std::io::Error>());
        let report = error.report().to_string();
        assert!(report.contains("loading the price") && report.ends_with("disk"), "{report}");
    }
}

#[tokio::test]
async fn a_panic_is_an_error_for_all() {
    let flights: Singleflight<u8, u8> = Singleflight::new();
    let ctx = Context::background();
    let boom = |_| async { quiet_panic("boom") };
    let (first, second) = tokio::join!(flights.run(&ctx, 1, boom), flights.run(&ctx, 1, boom));
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert_eq!(error.code(), Code::Internal);
        assert!(error.report().to_string().contains("singleflight.rs:"), "{error:?}");
        assert!(error.report().to_string().ends_with("panicked: boom"), "{error:?}");
    }
    assert_eq!(flights.run(&ctx, 1, |_| async { Ok(1) }).await.unwrap(), 1);
}

#[tokio::test]
async fn the_work_carries_the_request_but_not_its_end() {
    let flights: Singleflight<u8, (bool, bool)> = Singleflight::new();
    let ctx = Context::background().with_request_id(RequestId::generate()).with_timeout(Duration::from_secs(60));
    let look = |ctx: Context| async move { Ok((ctx.request_id().is_some(), ctx.deadline().is_none())) };
    assert_eq!(flights.run(&ctx, 1, look).await.unwrap(), (true, true));
}

#[test]
fn the_end_of_the_runtime_leaves_no_flight_behind() {
    let flights: Singleflight<u8, u8> = Singleflight::new();
    let ctx = Context::background();
    let first = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut call = Box::pin(flights.run(&ctx, 1, |_| pending::<Result<u8>>()));
    first.block_on(async { assert!(futures_util::poll!(&mut call).is_pending()) });
    drop(first);
    let second = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(second.block_on(call).unwrap_err().code(), Code::Unavailable);
    assert_eq!(second.block_on(flights.run(&ctx, 1, |_| async { Ok(3) })).unwrap(), 3);
}
