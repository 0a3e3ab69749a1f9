use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

use super::*;
use crate::BoxFuture;

/// Writes what happens to it into a shared log.
struct Part {
    name: &'static str,
    log: Arc<Mutex<Vec<String>>>,
    failures: AtomicU32,
    failure: Code,
    ends: Option<Arc<Notify>>,
    overstays: bool,
}

impl Part {
    fn log(&self, what: &str) {
        self.log.lock().unwrap().push(format!("{what} {}", self.name));
    }
}

impl Component for Part {
    fn name(&self) -> &str {
        self.name
    }

    fn start<'a>(&'a self, _: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            let left = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if left.is_ok() {
                self.log("fail");
                return Err(Error::new(self.failure, "not yet"));
            }
            self.log("start");
            Ok(())
        })
    }

    fn run<'a>(&'a self, _: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            match &self.ends {
                Some(notify) => notify.notified().await,
                None => std::future::pending().await,
            }
            Ok(())
        })
    }

    fn stop<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async {
            self.log("stop");
            if !self.overstays {
                return Vec::new();
            }
            ctx.done().await;
            vec!["GET /slow".to_owned()]
        })
    }
}

struct Scene {
    lifecycle: Lifecycle,
    log: Arc<Mutex<Vec<String>>>,
}

impl Scene {
    fn new() -> Self {
        let seconds = Duration::from_secs;
        let budgets = Budgets { start: seconds(10), settle: seconds(5), stop: seconds(25) };
        Self { lifecycle: Lifecycle::new(budgets), log: Arc::default() }
    }

    fn part(&mut self, name: &'static str, change: impl FnOnce(&mut Part)) {
        let mut part = Part {
            name,
            log: self.log.clone(),
            failures: AtomicU32::new(0),
            failure: Code::Unavailable,
            ends: None,
            overstays: false,
        };
        change(&mut part);
        self.lifecycle.add(Arc::new(part));
    }
}

async fn until(mut phases: watch::Receiver<Phase>, phase: Phase) {
    phases.wait_for(|now| *now == phase).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn components_stop_in_the_opposite_order_after_the_settle_delay() {
    let mut scene = Scene::new();
    scene.part("database", |_| {});
    scene.part("http", |_| {});
    let (stopper, phases) = (scene.lifecycle.stopper(), scene.lifecycle.phase());
    let log = scene.log.clone();
    let run = tokio::spawn(async move { scene.lifecycle.run(&Context::background()).await });
    until(phases.clone(), Phase::Ready).await;
    let began = Instant::now();
    stopper.stop();
    until(phases, Phase::Draining).await;
    assert_eq!(*log.lock().unwrap(), ["start database", "start http"]);
    let report = run.await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    assert!(report.is_clean());
    assert_eq!(*log.lock().unwrap(), ["start database", "start http", "stop http", "stop database"]);
}

#[tokio::test(start_paused = true)]
async fn a_start_is_tried_again_while_what_it_needs_is_unavailable_or_others_are_in_its_way() {
    let mut scene = Scene::new();
    scene.part("database", |part| part.failures = AtomicU32::new(3));
    scene.part("events", |part| (part.failures, part.failure) = (AtomicU32::new(1), Code::Aborted));
    let (stopper, phases) = (scene.lifecycle.stopper(), scene.lifecycle.phase());
    let log = scene.log.clone();
    let run = tokio::spawn(async move { scene.lifecycle.run(&Context::background()).await });
    until(phases, Phase::Ready).await;
    stopper.stop();
    assert!(run.await.unwrap().is_clean());
    assert_eq!(
        *log.lock().unwrap(),
        [
            "fail database",
            "fail database",
            "fail database",
            "start database",
            "fail events",
            "start events",
            "stop events",
            "stop database"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_for_good_stops_what_had_started() {
    let mut scene = Scene::new();
    scene.part("database", |_| {});
    scene.part("http", |part| (part.failures, part.failure) = (AtomicU32::new(1), Code::FailedPrecondition));
    let log = scene.log.clone();
    let report = scene.lifecycle.run(&Context::background()).await;
    let error = report.error.as_ref().unwrap();
    assert_eq!(error.report().to_string(), "starting http: not yet");
    assert!(!report.is_clean());
    assert_eq!(*log.lock().unwrap(), ["start database", "fail http", "stop database"]);
}

#[tokio::test(start_paused = true)]
async fn the_start_budget_ends_retries_with_the_last_failure() {
    let mut scene = Scene::new();
    scene.part("database", |part| part.failures = AtomicU32::new(u32::MAX));
    let began = Instant::now();
    let report = scene.lifecycle.run(&Context::background()).await;
    let text = report.error.unwrap().report().to_string();
    assert_eq!(text, "starting database: gave up when the start budget was used up: not yet");
    assert!(began.elapsed() <= Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_component_that_ends_by_itself_ends_the_service() {
    let mut scene = Scene::new();
    let end = Arc::new(Notify::new());
    scene.part("database", |_| {});
    scene.part("consumer", |part| part.ends = Some(end.clone()));
    end.notify_one();
    let log = scene.log.clone();
    let report = scene.lifecycle.run(&Context::background()).await;
    assert_eq!(report.error.unwrap().report().to_string(), "consumer ended though nobody stopped it");
    assert_eq!(log.lock().unwrap()[2..], ["stop consumer", "stop database"]);
}

#[tokio::test(start_paused = true)]
async fn what_overstays_is_cut_named_and_leaves_time_for_the_rest() {
    let mut scene = Scene::new();
    scene.part("database", |_| {});
    scene.part("http", |part| part.overstays = true);
    let (stopper, phases) = (scene.lifecycle.stopper(), scene.lifecycle.phase());
    let run = tokio::spawn(async move { scene.lifecycle.run(&Context::background()).await });
    until(phases, Phase::Ready).await;
    stopper.stop();
    let report = run.await.unwrap();
    assert!(!report.is_clean());
    assert_eq!(report.to_string(), "http: cut GET /slow after 24.0s\n");
    assert_eq!(report.stopped.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_second_stop_ends_the_first_at_once() {
    let mut scene = Scene::new();
    scene.part("http", |part| part.overstays = true);
    let (stopper, phases) = (scene.lifecycle.stopper(), scene.lifecycle.phase());
    let run = tokio::spawn(async move { scene.lifecycle.run(&Context::background()).await });
    until(phases.clone(), Phase::Ready).await;
    let began = Instant::now();
    stopper.stop();
    until(phases, Phase::Draining).await;
    stopper.stop();
    let report = run.await.unwrap();
    assert!(report.hurried && !report.is_clean());
    assert_eq!(began.elapsed(), Duration::ZERO);
}

/// Ready only when told so.
struct Slow(Arc<Notify>);

impl Component for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn start<'a>(&'a self, _: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            self.0.notify_one();
            std::future::pending().await
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_the_start_stops_what_had_started_without_settling() {
    let mut scene = Scene::new();
    let starting = Arc::new(Notify::new());
    scene.part("database", |_| {});
    scene.lifecycle.add(Arc::new(Slow(starting.clone())));
    let stopper = scene.lifecycle.stopper();
    let log = scene.log.clone();
    let run = tokio::spawn(async move { scene.lifecycle.run(&Context::background()).await });
    starting.notified().await;
    let began = Instant::now();
    stopper.stop();
    let report = run.await.unwrap();
    assert!(report.cancelled && report.is_clean());
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(*log.lock().unwrap(), ["start database", "stop database"]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_was_replaced_drains_without_settling_and_may_be_asked_once_more() {
    let mut scene = Scene::new();
    scene.part("http", |_| {});
    let (stopper, phases) = (scene.lifecycle.stopper(), scene.lifecycle.phase());
    let began = Instant::now();
    let life = tokio::spawn(async move { scene.lifecycle.run(&Context::background()).await });
    until(phases, Phase::Ready).await;
    stopper.replaced();
    stopper.replaced();
    stopper.stop(); // the service manager's, which doesn't know of the successor
    let report = life.await.unwrap();
    assert!(report.is_clean());
    assert_eq!(began.elapsed(), Duration::ZERO);
}
