use std::future::pending;
use std::time::Duration;

use mainstay_core::{Cause, Code, Context, Error, Group, Result};
use tokio::sync::mpsc;

use crate::chaos::{Gauge, quiet_panic, rounds};

#[tokio::test]
async fn results_come_in_the_order_of_spawn() {
    let mut group = Group::new(&Context::background()).limit(3);
    for n in 0..100_u64 {
        let started = group
            .spawn(move |_| async move {
                for _ in 0..n % 7 {
                    tokio::task::yield_now().await;
                }
                Ok(n)
            })
            .await;
        assert!(started);
    }
    assert_eq!(group.wait().await.unwrap(), (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_group_without_tasks_has_nothing_to_wait_for() {
    assert_eq!(Group::<u8>::new(&Context::background()).wait().await.unwrap(), Vec::<u8>::new());
    Group::<u8>::new(&Context::background()).cancel().await;
}

#[test]
fn the_first_error_ends_all_siblings_before_wait_returns() {
    rounds(|mut chaos| async move {
        let alive = Gauge::default();
        let mut group = Group::new(&Context::background());
        let (tasks, failing) = (2 + chaos.below(6), 1 + chaos.below(2));
        let panicking = chaos.below(2) == 0;
        for index in 0..tasks {
            let (mut chaos, alive) = (chaos.fork(), alive.clone());
            let work = move |ctx: Context| async move {
                let _alive = alive.enter();
                chaos.step().await;
                match index {
                    _ if index < failing && panicking => quiet_panic("out of stock"),
                    _ if index < failing => Err(Error::failed_precondition("out of stock")),
                    _ if index % 2 == 0 => pending().await, // doesn't listen, and is dropped
                    _ => {
                        // Listens, and has its own word about it, which must not hide the first error.
                        ctx.done().await;
                        Err(Error::internal("a sibling complains"))
                    }
                }
            };
            if !group.spawn(work).await {
                break;
            }
        }
        let ctx = group.context().clone();
        let error: Result<Vec<()>> = group.wait().await;
        let error = error.unwrap_err();
        assert_eq!(alive.now(), 0, "a task has outlived its group");
        assert_eq!(ctx.cause(), Some(Cause::Canceled));
        let report = error.report().to_string();
        assert!(report.contains("out of stock"), "{report}");
        assert_eq!(error.code() == Code::Internal, panicking);
        assert!(!panicking || report.contains("group.rs:"), "{report}");
    });
}

#[test]
fn no_more_run_at_once_than_the_limit_says() {
    rounds(|mut chaos| async move {
        let running = Gauge::default();
        let limit = chaos.below(4);
        let mut group = Group::new(&Context::background()).limit(limit);
        for _ in 0..chaos.below(10) {
            let (mut chaos, running) = (chaos.fork(), running.clone());
            let work = move |_| async move {
                let _running = running.enter();
                chaos.step().await;
                Ok(())
            };
            assert!(group.spawn(work).await);
        }
        group.wait().await.unwrap();
        assert!(running.peak() <= limit.max(1), "{} of {limit}", running.peak());
    });
}

#[test]
fn cancelling_a_group_ends_every_task_before_it_returns() {
    rounds(|mut chaos| async move {
        let alive = Gauge::default();
        let mut group = Group::<()>::new(&Context::background());
        for _ in 0..chaos.below(6) {
            let (mut chaos, alive) = (chaos.fork(), alive.clone());
            group
                .spawn(move |_| async move {
                    let _alive = alive.enter();
                    loop {
                        chaos.step().await;
                        tokio::task::yield_now().await;
                    }
                })
                .await;
        }
        chaos.step().await;
        group.cancel().await;
        assert_eq!(alive.now(), 0, "a task has outlived its group");
    });
}

#[test]
fn dropping_the_wait_drops_every_task() {
    rounds(|mut chaos| async move {
        // Every task holds a sender: the channel ends when the last one is gone, however long that takes.
        let (sender, mut receiver) = mpsc::channel::<()>(1);
        let mut group = Group::<()>::new(&Context::background());
        let ctx = group.context().clone();
        for _ in 0..1 + chaos.below(5) {
            let (mut chaos, sender) = (chaos.fork(), sender.clone());
            group
                .spawn(move |_| async move {
                    let _sender = sender;
                    loop {
                        chaos.step().await;
                        tokio::task::yield_now().await;
                    }
                })
                .await;
        }
        drop(sender);
        let patience = async {
            chaos.step().await;
        };
        tokio::select! {
            biased;
            () = patience => {}
            _ = group.wait() => unreachable!("the tasks never end"),
        }
        assert_eq!(receiver.recv().await, None);
        assert!(ctx.is_done());
    });
}

#[tokio::test]
async fn after_a_drop_no_task_is_polled_again() {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let mut group = Group::<()>::new(&Context::background());
    group
        .spawn(move |_| async move {
            loop {
                let _ = sender.send(());
                tokio::task::yield_now().await;
            }
        })
        .await;
    receiver.recv().await.unwrap();
    drop(group); // on this single thread no task is being polled now
    let mut polled = 0;
    while receiver.try_recv().is_ok() {
        polled += 1;
    }
    assert_eq!((receiver.recv().await, polled), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_parent_ends_the_group_with_its_cause() {
    let ctx = Context::background().with_timeout(Duration::from_secs(1));
    let mut group = Group::<()>::new(&ctx);
    group.spawn(|_| pending()).await;
    assert_eq!(group.wait().await.unwrap_err().code(), Code::DeadlineExceeded);

    let (ctx, canceler) = Context::background().with_cancel();
    let mut group = Group::<()>::new(&ctx).limit(1);
    assert!(group.spawn(|_| pending()).await);
    canceler.cancel_because(Cause::ShuttingDown);
    assert!(!group.spawn(|_| async { unreachable!("the group is done") }).await);
    assert_eq!(group.wait().await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_full_group_stops_waiting_for_a_slot_when_a_task_fails() {
    let mut group = Group::<()>::new(&Context::background()).limit(2);
    group.spawn(|_| pending()).await;
    group
        .spawn(|_| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Err(Error::not_found("order"))
        })
        .await;
    assert!(!group.spawn(|_| async { unreachable!("there never is a slot") }).await);
    assert_eq!(group.wait().await.unwrap_err().message(), "order not found");
}

#[tokio::test]
async fn a_panic_in_a_destructor_is_an_error_too() {
    struct Loud;
    impl Drop for Loud {
        fn drop(&mut self) {
            quiet_panic("from a destructor");
        }
    }
    let mut group = Group::<()>::new(&Context::background());
    group
        .spawn(|_| async {
            let _loud = Loud;
            tokio::task::yield_now().await;
            Ok(())
        })
        .await;
    let error = group.wait().await.unwrap_err();
    assert!(error.report().to_string().ends_with("panicked: from a destructor"), "{error:?}");
}

#[tokio::test]
async fn a_group_works_inside_a_spawned_task() {
    // It compiles only if all futures are `Send`.
    let task = tokio::spawn(async {
        let mut group = Group::new(&Context::background()).limit(1);
        group.spawn(|_| async { Ok(1) }).await;
        group.wait().await
    });
    assert_eq!(task.await.unwrap().unwrap(), [1]);
}
