//! What events promise, through a real NATS server: `NATS_TEST_URL`, or the usual port on this machine.

#![allow(clippy::unwrap_used, reason = "a case fails by panicking, and its helpers are no `#[test]` functions")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use mainstay_events::testing::{Setup, broker_suite, outside_suite, quick};
use mainstay_nats::Nats;
use mainstay_sql::Dialect;
use mainstay_sql::testing::Harness;

const ALL: [Dialect; 3] = [Dialect::Sqlite, Dialect::Postgres, Dialect::Mysql];

/// What the streams of one run of this program begin with.
const PREFIX: &str = "mainstay-test-";

fn main() -> ExitCode {
    let answers = on_a_runtime(async {
        let connected = tokio::time::timeout(Duration::from_secs(2), async_nats::connect(url())).await;
        match connected {
            Ok(Ok(_)) => Ok(()),
            // Without the user and the password that may stand before it.
            _ => Err(format!("no NATS at {}", url().rsplit(['@', '/']).next().unwrap_or_default())),
        }
    });
    let there = answers.is_ok();
    let harness = broker_suite(Harness::new().given(answers), "nats", &ALL, setup);
    let code = outside_suite(harness, "nats", &ALL, setup).run();
    if there {
        on_a_runtime(remove_streams());
    }
    code
}

fn url() -> String {
    std::env::var("NATS_TEST_URL").unwrap_or_else(|_| "nats://127.0.0.1:4222".to_owned())
}

/// A broker for each case, with streams that no other case uses.
fn setup() -> Setup {
    static CASES: AtomicU32 = AtomicU32::new(0);
    let case = CASES.fetch_add(1, Ordering::Relaxed);
    let url = format!("{}?prefix={PREFIX}{}-{case}", url(), std::process::id());
    Setup::through(Nats::new(&url).unwrap(), quick())
}

/// Removes the streams of this process, and those of others that were killed.
async fn remove_streams() {
    let js = async_nats::jetstream::new(async_nats::connect(url()).await.unwrap());
    let names: Vec<String> = js.stream_names().try_collect().await.unwrap();
    let over = names.into_iter().filter(|name| {
        let process = name.strip_prefix(PREFIX).and_then(|name| name.split('-').next()).unwrap_or_default();
        name.starts_with(PREFIX) && (process == std::process::id().to_string() || !is_running(process))
    });
    futures_util::stream::iter(over)
        .for_each(async |name| {
            // Another process may have found it as well.
            let _ = js.delete_stream(name).await;
        })
        .await;
}

/// Where that can't be told, everything runs.
fn is_running(process: &str) -> bool {
    let processes = std::path::Path::new("/proc");
    !processes.join("self").exists() || processes.join(process).exists()
}

fn on_a_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(work)
}
