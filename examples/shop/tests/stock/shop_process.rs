//! [`ShopProcess`]: the shop as a process that can be killed, and is at another address each time it comes back.

use std::collections::VecDeque;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;

/// Lines of the log that are kept, to be read when a case fails.
const KEPT: usize = 200;

/// Where the shop is; `None` while it isn't.
pub(crate) type Address = watch::Receiver<Option<String>>;

/// The shop, one process after another.
pub(crate) struct ShopProcess {
    database: String,
    broker: Option<String>,
    folder: tempfile::TempDir,
    address: watch::Sender<Option<String>>,
    child: tokio::sync::Mutex<Option<Child>>,
    log: Arc<Mutex<VecDeque<String>>>,
}

impl ShopProcess {
    /// A shop on `database` that is ready, with its events through `broker`.
    pub(crate) async fn start(database: &str, broker: Option<String>) -> Self {
        let shop = Self {
            database: database.to_owned(),
            broker,
            folder: tempfile::tempdir().unwrap(),
            address: watch::Sender::new(None),
            child: tokio::sync::Mutex::default(),
            log: Arc::default(),
        };
        shop.kill_and_start().await;
        shop
    }

    pub(crate) fn address(&self) -> Address {
        self.address.subscribe()
    }

    /// Ends the process as `kill -9` does, starts the next one, and waits until that is ready.
    pub(crate) async fn kill_and_start(&self) {
        let mut slot = self.child.lock().await;
        // First, so that a customer who gets no answer waits for the next address.
        self.address.send_replace(None);
        if let Some(mut old) = slot.take() {
            old.kill().await.unwrap();
        }
        let mut child = Command::new(env!("CARGO_BIN_EXE_shop"))
            .current_dir(self.folder.path())
            .env_clear()
            .env("DATABASE_URL", &self.database)
            .envs(self.broker.as_ref().map(|url| ("EVENTS_URL", url)))
            .env("SHOP_HTTP__ADDR", "127.0.0.1:0")
            .env("SHOP_HTTP__HANDOVER", "off")
            .env("SHOP_ADMIN__ADDR", "127.0.0.1:0")
            .env("SHOP_SHUTDOWN__SETTLE", "0s")
            // The next process takes over what a killed one held after this time.
            .env("SHOP_EVENTS__LEASE", "1s")
            // An event that was in hand at a kill waits before it is tried again, up to minutes in a real service.
            .env("SHOP_EVENTS__RETRY_MAX", "1s")
            // Two hundred at once are patient; being told "busy, try again" would only have them come back.
            .env("SHOP_DATABASE__ACQUIRE_TIMEOUT", "30s")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = self.ready(&mut lines).await;
        let log = self.log.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                keep(&log, line);
            }
        });
        *slot = Some(child);
        self.address.send_replace(Some(format!("http://{address}")));
    }

    /// Ends it for good. It must have nothing to complain about.
    pub(crate) async fn end(self) {
        if let Some(mut child) = self.child.into_inner() {
            let command = format!("kill -TERM {}", child.id().expect("a process that was not waited for"));
            assert!(Command::new("sh").args(["-c", &command]).status().await.unwrap().success());
            let status = child.wait().await.unwrap();
            assert!(status.success(), "{status}\n{}", log_of(&self.log));
        }
    }

    /// What it logged last.
    pub(crate) fn log(&self) -> String {
        log_of(&self.log)
    }

    async fn ready(&self, lines: &mut Lines<BufReader<ChildStdout>>) -> String {
        while let Some(line) = lines.next_line().await.unwrap() {
            let said: Value = serde_json::from_str(&line).unwrap_or_default();
            keep(&self.log, line);
            if said["message"] == "ready" {
                return said["http"].as_str().expect("the shop says where it is").to_owned();
            }
        }
        panic!("the shop ended before it was ready:\n{}", self.log());
    }
}

fn keep(log: &Mutex<VecDeque<String>>, line: String) {
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    if log.len() == KEPT {
        log.pop_front();
    }
    log.push_back(line);
}

fn log_of(log: &Mutex<VecDeque<String>>) -> String {
    let log = log.lock().unwrap_or_else(PoisonError::into_inner);
    log.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
}
