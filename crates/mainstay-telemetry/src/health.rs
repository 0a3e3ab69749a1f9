//! [`Health`]: whether the service lives, is started, and is ready for traffic.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use mainstay_core::{BoxFuture, Context, Phase, Result};
use serde::{Serialize, Serializer};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Metrics;

/// A probe that takes longer has failed. Orchestrators give a readiness probe 1 s by default; half of it leaves room
/// for the answer.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// A result is given again for this long, so that a storm of probes is no storm of queries. It is also how often
/// [`Health::watch`] looks.
const KEPT_FOR: Duration = Duration::from_secs(1);

/// How many looks in a row have to find a dependency changed before that is believed: one lost packet takes no service
/// out of rotation, and a database that comes back and goes again doesn't have it flap.
const BELIEVED_AFTER: u32 = 2;

type Probe = Arc<dyn Fn(Context) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// The health of one service: its phase and the probes of what it depends on. A clone is the same health.
#[derive(Clone)]
pub struct Health(Arc<Inner>);

struct Inner {
    phase: watch::Receiver<Phase>,
    dependencies: Mutex<Vec<Dependency>>,
    last: tokio::sync::Mutex<Last>,
}

#[derive(Clone)]
struct Dependency {
    name: String,
    importance: Importance,
    probe: Probe,
}

/// What the last look found, in the order of the dependencies.
#[derive(Default)]
struct Last {
    at: Option<Instant>,
    standings: Vec<Standing>,
}

/// What is believed of a dependency, and what speaks against it.
struct Standing {
    check: Check,
    changed: Instant,
    doubts: u32,
}

/// What a failed dependency means.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Importance {
    /// Without it the service is not ready.
    Critical,
    /// Without it the service is ready and degraded.
    Optional,
}

/// The state of one dependency.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// What its failure means.
    pub importance: Importance,
    /// Whether it works, as two looks in a row have found.
    pub up: bool,
    /// Why the last look failed, or `None`.
    pub error: Option<String>,
    /// For how long it has been up or down.
    #[serde(rename = "for_seconds", serialize_with = "seconds")]
    pub since: Duration,
    /// How long the last look took.
    #[serde(rename = "took_seconds", serialize_with = "seconds")]
    pub took: Duration,
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1e3).round() / 1e3)
}

/// The answer to a readiness probe.
#[derive(Clone, Debug, Serialize)]
pub struct HealthReport {
    /// `ready`, `degraded`, `starting`, `draining`, `stopped`, or `unready`.
    pub status: &'static str,
    /// Whether traffic is welcome.
    pub ready: bool,
    /// The dependencies that were looked at.
    pub checks: Vec<Check>,
}

impl Health {
    /// Health that follows `phase`.
    pub fn new(phase: watch::Receiver<Phase>) -> Self {
        Self(Arc::new(Inner { phase, dependencies: Mutex::default(), last: tokio::sync::Mutex::default() }))
    }

    /// Adds a dependency. `probe` is asked at most once a second and has half a second to answer.
    pub fn depend<F>(
        &self,
        name: impl Into<String>,
        importance: Importance,
        probe: impl Fn(Context) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let probe: Probe = Arc::new(move |ctx| Box::pin(probe(ctx)));
        let dependency = Dependency { name: name.into(), importance, probe };
        self.0.dependencies.lock().unwrap_or_else(PoisonError::into_inner).push(dependency);
    }

    /// Looks once a second until `ctx` is done, so that what is down is known before anybody asks, and keeps
    /// `health_ready` and `health_dependency_up` in `metrics` true.
    pub async fn watch(&self, ctx: &Context, metrics: &Metrics) {
        let ready = metrics.gauge("health_ready", "Whether traffic is welcome: 1 or 0");
        let up = metrics.gauges("health_dependency_up", "Whether the dependency works: 1 or 0", &["dependency"]);
        loop {
            let report = self.readiness().await;
            ready.set(i64::from(report.ready));
            for check in &report.checks {
                up.with(&[&check.name]).set(i64::from(check.up));
            }
            if ctx.run(tokio::time::sleep(KEPT_FOR)).await.is_err() {
                return;
            }
        }
    }

    /// Where the service stands.
    pub fn phase(&self) -> Phase {
        *self.0.phase.borrow()
    }

    /// Whether the service has started once: what a startup probe asks.
    pub fn has_started(&self) -> bool {
        self.phase() > Phase::Starting
    }

    /// Looks at the phase and, if that is [`Phase::Ready`], at every dependency.
    ///
    /// Cancel safe: a probe that is dropped is asked again next time.
    pub async fn readiness(&self) -> HealthReport {
        let standing = match self.phase() {
            Phase::Starting => "starting",
            Phase::Draining => "draining",
            Phase::Stopped => "stopped",
            Phase::Ready => "ready",
        };
        if standing != "ready" {
            return HealthReport { status: standing, ready: false, checks: Vec::new() };
        }
        let checks = self.checks().await;
        // A stop that began while the probes were out wins over what they found.
        if self.phase() != Phase::Ready {
            return HealthReport { status: "draining", ready: false, checks };
        }
        let failed = |importance| checks.iter().any(|check| check.importance == importance && !check.up);
        let (status, ready) = match (failed(Importance::Critical), failed(Importance::Optional)) {
            (true, _) => ("unready", false),
            (false, true) => ("degraded", true),
            (false, false) => ("ready", true),
        };
        HealthReport { status, ready, checks }
    }

    async fn checks(&self) -> Vec<Check> {
        // One caller asks, the others wait for what it hears.
        let mut last = self.0.last.lock().await;
        if last.at.is_none_or(|at| at.elapsed() >= KEPT_FOR) {
            let dependencies = self.0.dependencies.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let seen = join_all(dependencies.into_iter().map(look)).await;
            let mut before = std::mem::take(&mut last.standings).into_iter();
            last.standings = seen.into_iter().map(|check| Standing::after(before.next(), check)).collect();
            last.at = Some(Instant::now());
        }
        let now = |standing: &Standing| Check { since: standing.changed.elapsed(), ..standing.check.clone() };
        last.standings.iter().map(now).collect()
    }
}

async fn look(dependency: Dependency) -> Check {
    let Dependency { name, importance, probe } = dependency;
    let (began, ctx) = (Instant::now(), Context::background().with_timeout(PROBE_TIMEOUT));
    let error = match ctx.run(probe(ctx.clone())).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer within {PROBE_TIMEOUT:?}")),
    };
    Check { name, importance, up: error.is_none(), error, since: Duration::ZERO, took: began.elapsed() }
}

impl Standing {
    /// What is believed after another look. The first is believed as it is.
    fn after(before: Option<Standing>, seen: Check) -> Self {
        let Some(before) = before else { return Self { check: seen, changed: Instant::now(), doubts: 0 } };
        let (was, is) = (before.check.up, seen.up);
        if was == is {
            return Self { check: seen, changed: before.changed, doubts: 0 };
        }
        let doubts = before.doubts + 1;
        if doubts < BELIEVED_AFTER {
            return Self { check: Check { up: was, ..seen }, changed: before.changed, doubts };
        }
        let Check { name, importance, error, .. } = &seen;
        match error {
            Some(error) => tracing::warn!(target: "mainstay::health", dependency = name, ?importance, error, "down"),
            None => tracing::info!(target: "mainstay::health", dependency = name, ?importance, "up again"),
        }
        Self { check: seen, changed: Instant::now(), doubts: 0 }
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Health").field(&self.phase()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use mainstay_core::Error;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn readiness_follows_the_phase() {
        let (phase, watch) = watch::channel(Phase::Starting);
        let health = Health::new(watch);
        for (now, status, ready, started) in [
            (Phase::Starting, "starting", false, false),
            (Phase::Ready, "ready", true, true),
            (Phase::Draining, "draining", false, true),
            (Phase::Stopped, "stopped", false, true),
        ] {
            phase.send_replace(now);
            let report = health.readiness().await;
            assert_eq!((report.status, report.ready, health.has_started()), (status, ready, started));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_critical_failure_is_unready_and_an_optional_one_degraded() {
        let (_phase, watch) = watch::channel(Phase::Ready);
        let health = Health::new(watch);
        let up = Arc::new(AtomicBool::new(true));
        let database = up.clone();
        health.depend("database", Importance::Critical, move |_| {
            let up = database.load(Ordering::SeqCst);
            async move { if up { Ok(()) } else { Err(Error::unavailable("the database can't be reached")) } }
        });
        health.depend("cache", Importance::Optional, |_| async { Err(Error::unavailable("no cache")) });
        assert_eq!(health.readiness().await.status, "degraded");
        up.store(false, Ordering::SeqCst);
        tokio::time::advance(KEPT_FOR).await;
        let report = health.readiness().await;
        assert_eq!((report.status, report.ready), ("degraded", true), "one failure may be a lost packet");
        assert_eq!(
            report.checks[0].error.as_deref(),
            Some("the database can't be reached"),
            "and is told all the same"
        );
        tokio::time::advance(KEPT_FOR).await;
        let report = health.readiness().await;
        assert_eq!((report.status, report.ready), ("unready", false));
        assert_eq!(report.checks[0].error.as_deref(), Some("the database can't be reached"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_back_for_one_look_is_not_back() {
        let (_phase, watch) = watch::channel(Phase::Ready);
        let health = Health::new(watch);
        let up = Arc::new(AtomicBool::new(false));
        let database = up.clone();
        health.depend("database", Importance::Critical, move |_| {
            let up = database.load(Ordering::SeqCst);
            async move { if up { Ok(()) } else { Err(Error::unavailable("down")) } }
        });
        let mut seen = Vec::new();
        for now in [false, true, false, true, true, true] {
            up.store(now, Ordering::SeqCst);
            seen.push(health.readiness().await.ready);
            tokio::time::advance(KEPT_FOR).await;
        }
        assert_eq!(seen, [false, false, false, false, true, true]);
        assert_eq!(health.readiness().await.checks[0].since, KEPT_FOR * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_of_probes_asks_once_and_a_silent_dependency_is_given_up() {
        let (_phase, watch) = watch::channel(Phase::Ready);
        let health = Health::new(watch);
        let asked = Arc::new(AtomicU32::new(0));
        let count = asked.clone();
        health.depend("silent", Importance::Critical, move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            std::future::pending()
        });
        let reports = join_all((0..100).map(|_| health.readiness())).await;
        assert!(reports.iter().all(|report| !report.ready));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert_eq!(reports[0].checks[0].error.as_deref(), Some("no answer within 500ms"));
    }
}
