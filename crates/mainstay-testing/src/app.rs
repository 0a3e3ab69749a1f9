//! [`TestApp`]: a service that runs as it does in production, on free ports, with a database of its own.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use mainstay::core::settings::Loader;
use mainstay::core::{Context, Error, Phase, Report, Result, ResultExt, Stopper};
use mainstay::http::Client;
use mainstay::telemetry::Metrics;
use mainstay::telemetry::trace::Tracer;
use mainstay::{App, Configuration, Service};
use mainstay_sql::testing::TestDatabase;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{oneshot, watch};
use tracing::Dispatch;
use tracing_subscriber::layer::SubscriberExt;

use crate::logs::{Collector, Logs};
use crate::response::TestResponse;
use crate::samples::Samples;
use crate::spans::Spans;

/// How long one call of a test may take before it is a failure of the service.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A running service. It has a runtime of its own, so that its logs and metrics are its own too. Dropping it stops it.
pub struct TestApp {
    http: SocketAddr,
    admin: SocketAddr,
    client: Client,
    stopper: Stopper,
    phase: watch::Receiver<Phase>,
    thread: Option<JoinHandle<Report>>,
    logs: Logs,
    metrics: Metrics,
    tracer: Tracer,
    database: Option<TestDatabase>,
}

/// Makes a [`TestApp`].
pub struct TestAppBuilder<S: 'static> {
    name: &'static str,
    build: fn(&mut App<S>) -> Result<()>,
    loader: Loader,
    database: Option<TestDatabase>,
    folder: tempfile::TempDir,
}

impl TestApp {
    /// The service `name` as its `build` function declares it, with default settings, free ports and a SQLite file in a
    /// temporary folder. The environment and the files of the machine play no part.
    ///
    /// # Panics
    /// If no temporary folder can be made.
    pub fn of<S>(name: &'static str, build: fn(&mut App<S>) -> Result<()>) -> TestAppBuilder<S> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let loader = Loader::new(name)
            .environment(Vec::<(String, String)>::new())
            .directory(folder.path())
            .set("http.addr", "127.0.0.1:0")
            .set("admin.addr", "127.0.0.1:0")
            .set("database.url", format!("sqlite://{}", folder.path().join("test.db").display()))
            .set("shutdown.settle", "0s");
        TestAppBuilder { name, build, loader, database: None, folder }
    }

    /// GET `path` on the service's port.
    ///
    /// # Errors
    /// No answer. Every answer, whatever its status, is `Ok`.
    pub async fn get(&self, path: &str) -> Result<TestResponse> {
        let ctx = Context::background().with_timeout(CALL_TIMEOUT);
        TestResponse::read(self.client.get(self.url(path)).exchange(&ctx).await?).await
    }

    /// POST `body` as JSON.
    ///
    /// # Errors
    /// As [`TestApp::get`].
    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<TestResponse> {
        let ctx = Context::background().with_timeout(CALL_TIMEOUT);
        TestResponse::read(self.client.post(self.url(path)).json(body).exchange(&ctx).await?).await
    }

    /// PUT `body` as JSON.
    ///
    /// # Errors
    /// As [`TestApp::get`].
    pub async fn put(&self, path: &str, body: &impl Serialize) -> Result<TestResponse> {
        let ctx = Context::background().with_timeout(CALL_TIMEOUT);
        TestResponse::read(self.client.put(self.url(path)).json(body).exchange(&ctx).await?).await
    }

    /// GET `path` on the admin port.
    ///
    /// # Errors
    /// As [`TestApp::get`].
    pub async fn admin(&self, path: &str) -> Result<TestResponse> {
        let ctx = Context::background().with_timeout(CALL_TIMEOUT);
        let url = format!("http://{}{path}", self.admin);
        TestResponse::read(self.client.get(&url).exchange(&ctx).await?).await
    }

    /// The URL of `path` on the service's port, for a client of your own.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// The address of the service's port.
    pub fn http_addr(&self) -> SocketAddr {
        self.http
    }

    /// The address of the admin port.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// What the service has logged.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// The spans that have ended so far.
    pub fn spans(&self) -> Spans {
        Spans(self.tracer.collected())
    }

    /// The service's metrics as they stand now.
    pub fn samples(&self) -> Samples {
        Samples::parse(&self.metrics.render())
    }

    /// Where the service stands.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Stops the service in order and tells what it cut. The database is dropped.
    pub async fn stop(mut self) -> Report {
        self.stopper.stop();
        let report = match self.thread.take() {
            Some(thread) => tokio::task::spawn_blocking(move || join(thread)).await.unwrap_or_default(),
            None => Report::default(),
        };
        if let Some(database) = self.database.take()
            && let Err(error) = database.remove().await
        {
            tracing::warn!(error = %error.report(), "a test database was left behind");
        }
        report
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.stopper.stop();
        self.stopper.stop(); // a test that ended has no time for a drain
        if let Some(thread) = self.thread.take() {
            join(thread);
        }
    }
}

impl<S: Default + Serialize + DeserializeOwned + Send + 'static> TestAppBuilder<S> {
    /// Uses `database`, which is dropped when the app stops.
    #[must_use]
    pub fn database(mut self, database: TestDatabase) -> Self {
        self.loader = self.loader.set("database.url", database.url());
        self.database = Some(database);
        self
    }

    /// Sets a setting, written as in an environment variable: `("http.max_body_bytes", "1KiB")`.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.loader = self.loader.set(key, value);
        self
    }

    /// Starts the service and waits until it is ready.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn start(self) -> Result<TestApp> {
        let configuration = Configuration::from_loader(self.name, self.loader)?;
        let logs = Logs::default();
        let dispatch = Dispatch::new(tracing_subscriber::registry().with(Collector(logs.clone())));
        let (handles_to, handles) = oneshot::channel();
        let (build, folder) = (self.build, self.folder);
        let thread = std::thread::Builder::new().name(format!("test-{}", self.name)).spawn(move || {
            let _folder = folder; // removed when the service has ended
            tracing::dispatcher::with_default(&dispatch.clone(), || live(configuration, build, dispatch, handles_to))
        });
        let thread = thread.context("starting a thread")?;

        let Ok(handles) = handles.await else {
            let report = tokio::task::spawn_blocking(move || join(thread)).await.unwrap_or_default();
            return Err(report.error.unwrap_or_else(|| Error::internal("the service ended before it was built")));
        };
        let mut phase = handles.phase.clone();
        let _ = phase.wait_for(|phase| *phase >= Phase::Ready).await;
        let (Phase::Ready, Some((http, admin))) = (*handles.phase.borrow(), (handles.addresses)()) else {
            let report = tokio::task::spawn_blocking(move || join(thread)).await.unwrap_or_default();
            return Err(report.error.unwrap_or_else(|| Error::internal("the service ended before it was ready")));
        };
        Ok(TestApp {
            http,
            admin,
            client: Client::new()?,
            stopper: handles.stopper,
            phase: handles.phase,
            thread: Some(thread),
            logs,
            metrics: handles.metrics,
            tracer: handles.tracer,
            database: self.database,
        })
    }
}

/// What a test holds of the service in the other thread.
struct Handles {
    stopper: Stopper,
    phase: watch::Receiver<Phase>,
    metrics: Metrics,
    tracer: Tracer,
    addresses: Box<dyn Fn() -> Option<(SocketAddr, SocketAddr)> + Send + Sync>,
}

/// The service's whole life, on this thread and the workers of its own runtime.
fn live<S: Default + Serialize + DeserializeOwned>(
    configuration: Configuration<S>,
    build: fn(&mut App<S>) -> Result<()>,
    dispatch: Dispatch,
    handles: oneshot::Sender<Handles>,
) -> Report {
    thread_local! {
        static LOGS: RefCell<Option<tracing::dispatcher::DefaultGuard>> = const { RefCell::new(None) };
    }
    let failed = |error| Report { error: Some(error), ..Report::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        // Each worker logs into this app's lines and no other's.
        .on_thread_start(move || LOGS.set(Some(tracing::dispatcher::set_default(&dispatch))))
        .build();
    let runtime = match runtime.context("starting the runtime") {
        Ok(runtime) => runtime,
        Err(error) => return failed(error),
    };
    runtime.block_on(async {
        let service = match Service::new(configuration, build) {
            Ok(service) => service,
            Err(error) => return failed(error),
        };
        service.tracer().collect();
        let sent = handles.send(Handles {
            stopper: service.stopper(),
            phase: service.phase(),
            metrics: service.metrics(),
            tracer: service.tracer(),
            addresses: Box::new(service.addresses()),
        });
        match sent {
            Ok(()) => service.run(&Context::background()).await,
            Err(_) => Report::default(), // the test is gone
        }
    })
}

fn join(thread: JoinHandle<Report>) -> Report {
    thread.join().unwrap_or_else(|_| Report {
        error: Some(Error::internal("the service's thread panicked")),
        ..Report::default()
    })
}
