//! [`Health`]: whether the service lives, is started, and is ready for traffic.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use mainstay_core::{BoxFuture, Context, Phase, Result};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

/// A probe that takes longer has failed. Orchestrators give a readiness probe 1 s by default; half of it leaves room
/// for the answer.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// A result is given again for this long, so that a storm of probes is no storm of queries.
const KEPT_FOR: Duration = Duration::from_secs(1);

type Probe = Arc<dyn Fn(Context) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// The health of one service: its phase and the probes of what it depends on. A clone is the same health.
#[derive(Clone)]
pub struct Health(Arc<Inner>);

struct Inner {
    phase: watch::Receiver<Phase>,
    probes: Mutex<Vec<(String, Importance, Probe)>>,
    last: tokio::sync::Mutex<Option<(Instant, Vec<Check>)>>,
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
    /// Why it failed, or `None`.
    pub error: Option<String>,
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
        let last = tokio::sync::Mutex::new(None);
        Self(Arc::new(Inner { phase, probes: Mutex::default(), last }))
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
        self.0.probes.lock().unwrap_or_else(PoisonError::into_inner).push((name.into(), importance, probe));
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
        let failed = |importance| checks.iter().any(|check| check.importance == importance && check.error.is_some());
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
        if let Some((at, checks)) = &*last
            && at.elapsed() < KEPT_FOR
        {
            return checks.clone();
        }
        let probes = self.0.probes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ctx = Context::background().with_timeout(PROBE_TIMEOUT);
        let asked = probes.into_iter().map(|(name, importance, probe)| {
            let ctx = ctx.clone();
            async move {
                let error = match ctx.run(probe(ctx.clone())).await {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(error.to_string()),
                    Err(_) => Some(format!("no answer within {PROBE_TIMEOUT:?}")),
                };
                Check { name, importance, error }
            }
        });
        let checks = join_all(asked).await;
        *last = Some((Instant::now(), checks.clone()));
        checks
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
        assert_eq!((report.status, report.ready), ("unready", false));
        assert_eq!(report.checks[0].error.as_deref(), Some("the database can't be reached"));
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
