use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use mainstay_core::{Code, Component, Context, Error, JobHandle, Result, WorkerPool};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::chaos::{Gauge, quiet_panic, rounds};

#[test]
fn bounds_hold_and_every_job_gets_its_own_answer() {
    rounds(|mut chaos| async move {
        let (workers, queue) = (1 + chaos.below(3), chaos.below(3));
        let pool = WorkerPool::new("test", workers, queue);
        let (running, in_hand) = (Gauge::default(), Gauge::default());
        let mut submitters = Vec::new();
        for number in 0..chaos.below(8) {
            let (mut chaos, pool) = (chaos.fork(), pool.clone());
            let (running, in_hand) = (running.clone(), in_hand.clone());
            submitters.push(tokio::spawn(async move {
                chaos.step().await;
                let (mut inner, counted) = (chaos.fork(), in_hand.clone());
                let job = move |_| async move {
                    let _in_hand = counted.enter();
                    let _running = running.enter();
                    inner.step().await;
                    match number % 3 {
                        0 => Ok(number),
                        1 => Err(Error::not_found(number)),
                        _ => quiet_panic("in a job"),
                    }
                };
                let handle = pool.submit(&Context::background(), job).await.unwrap();
                match (number % 3, handle.await) {
                    (0, Ok(answer)) => assert_eq!(answer, number),
                    (1, Err(error)) => assert_eq!(error.message(), format!("{number} not found")),
                    (2, Err(error)) => assert!(error.report().to_string().contains("panicked: in a job")),
                    (_, other) => panic!("{number}: {other:?}"),
                }
            }));
        }
        for submitter in submitters {
            submitter.await.unwrap();
        }
        assert!(running.peak() <= workers, "{} of {workers}", running.peak());
        assert_eq!(pool.drain(&Context::background()).await, Vec::<String>::new());
        assert_eq!(in_hand.now(), 0);
    });
}

#[tokio::test]
async fn submitting_waits_for_room_and_trying_does_not() {
    let pool = WorkerPool::new("test", 1, 1);
    let ctx = Context::background();
    let (release, gate) = oneshot::channel::<()>();
    let running = pool.submit(&ctx, |_| async { gate.await.map_err(Error::from_any) }).await.unwrap();
    let waiting = pool.try_submit(&ctx, |_| async { Ok(2) }).unwrap();
    let error = pool.try_submit(&ctx, |_| async { Ok(3) }).unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);

    let mut third = Box::pin(pool.submit(&ctx, |_| async { Ok(3) }));
    assert!(futures_util::poll!(&mut third).is_pending());
    release.send(()).unwrap();
    let third = third.await.unwrap();
    running.await.unwrap();
    assert_eq!((waiting.await.unwrap(), third.await.unwrap()), (2, 3));
}

#[test]
fn who_has_a_result_finds_the_room_of_its_job_free() {
    rounds(|mut chaos| async move {
        let pool = WorkerPool::new("test", 1, 0);
        for _ in 0..5 {
            pool.try_submit(&Context::background(), |_| async { Ok(()) }).unwrap().await.unwrap();
            chaos.step().await;
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn one_worker_runs_jobs_in_the_order_of_submission() {
    let pool = WorkerPool::new("test", 1, 1000);
    let (sender, mut receiver) = mpsc::unbounded_channel();
    for number in 0..1000 {
        let sender = sender.clone();
        let job = move |_| async move { sender.send(number).map_err(Error::from_any) };
        drop(pool.submit(&Context::background(), job).await.unwrap());
    }
    for number in 0..1000 {
        assert_eq!(receiver.recv().await, Some(number));
    }
}

#[tokio::test]
async fn a_panicking_job_does_not_take_its_worker_along() {
    let pool = WorkerPool::new("thumbnails", 1, 0);
    let ctx = Context::background();
    for _ in 0..10 {
        let handle = pool.submit(&ctx, |_| async { quiet_panic("boom") }).await.unwrap();
        let error: Result<()> = handle.await;
        let report = error.unwrap_err().report().to_string();
        assert!(report.starts_with("thumbnails started at ") && report.ends_with("panicked: boom"), "{report}");
    }
    assert_eq!(pool.submit(&ctx, |_| async { Ok(1) }).await.unwrap().await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_drain_finishes_what_is_in_hand_and_takes_nothing_new() {
    let pool = WorkerPool::new("test", 1, 5);
    let ctx = Context::background();
    let finished = Arc::new(AtomicUsize::new(0));
    for _ in 0..4 {
        let finished = finished.clone();
        let job = move |_| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            finished.fetch_add(1, SeqCst);
            Ok(())
        };
        drop(pool.submit(&ctx, job).await.unwrap());
    }
    let drain = pool.drain(&ctx);
    let late = async {
        tokio::task::yield_now().await;
        assert_eq!(pool.submit(&ctx, |_| async { Ok(()) }).await.unwrap_err().code(), Code::Unavailable);
        assert_eq!(pool.try_submit(&ctx, |_| async { Ok(()) }).unwrap_err().code(), Code::Unavailable);
    };
    let (cut, ()) = tokio::join!(drain, late);
    assert_eq!((cut.len(), finished.load(SeqCst)), (0, 4));
    assert!(pool.drain(&ctx).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_drain_out_of_time_names_what_it_cuts() {
    let pool = WorkerPool::new("thumbnails", 2, 5);
    let ctx = Context::background();
    let alive = Gauge::default();
    let mut handles = Vec::new();
    for number in 0..4 {
        let alive = alive.enter();
        let job = move |ctx: Context| async move {
            let _alive = alive;
            if number == 0 {
                ctx.done().await; // saves its work in time, so that nothing is cut
                return Ok(());
            }
            pending().await
        };
        handles.push(pool.submit(&ctx, job).await.unwrap());
    }
    let cut = pool.stop(&ctx.with_timeout(Duration::from_secs(5))).await;
    assert_eq!(cut.len(), 3, "{cut:?}");
    assert!(cut.iter().all(|line| line.starts_with("thumbnails: a job submitted at ") && line.contains("pool.rs:")));
    assert_eq!(alive.now(), 0);
    let mut results = Vec::new();
    for handle in handles {
        results.push(handle.await.map_err(|error| error.code()));
    }
    let cut = Err(Code::Unavailable);
    assert_eq!(results, [Ok(()), cut, cut, cut]);
}

#[test]
fn dropping_the_last_handle_drops_every_job() {
    rounds(|mut chaos| async move {
        let (sender, mut receiver) = mpsc::channel::<()>(1);
        let pool = WorkerPool::new("test", 1 + chaos.below(2), 3);
        for _ in 0..1 + chaos.below(4) {
            let (mut chaos, sender) = (chaos.fork(), sender.clone());
            let job = move |_| async move {
                let _sender = sender;
                loop {
                    chaos.step().await;
                    tokio::task::yield_now().await;
                }
            };
            drop::<JobHandle<()>>(pool.submit(&Context::background(), job).await.unwrap());
        }
        drop(sender);
        chaos.step().await;
        drop(pool);
        assert_eq!(receiver.recv().await, None);
    });
}

#[tokio::test(start_paused = true)]
async fn a_job_ends_with_the_context_it_was_submitted_under() {
    let pool = WorkerPool::new("test", 1, 5);
    let short = Context::background().with_timeout(Duration::from_secs(1));
    let running = pool.submit(&short, |_| pending::<Result<()>>()).await.unwrap();
    let started = Arc::new(Notify::new());
    let notify = started.clone();
    let waiting = pool
        .submit(&short, move |_| async move {
            notify.notify_one();
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(running.await.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(waiting.await.unwrap_err().code(), Code::DeadlineExceeded);
    assert!(futures_util::FutureExt::now_or_never(started.notified()).is_none(), "it never ran");

    let full = WorkerPool::new("full", 1, 0);
    let _running = full.submit(&Context::background(), |_| pending::<Result<()>>()).await.unwrap();
    let short = Context::background().with_timeout(Duration::from_secs(1));
    let error = full.submit(&short, |_| async { Ok(()) }).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
}

#[test]
fn outside_a_runtime_trying_is_an_error() {
    let error = WorkerPool::new("test", 1, 1).try_submit(&Context::background(), |_| async { Ok(()) }).unwrap_err();
    assert!(error.report().to_string().contains("outside a tokio runtime"), "{error:?}");
}
