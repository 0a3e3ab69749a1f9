//! What a service manager is told, and what it learns from hearing nothing.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which the lint's allowance for tests does not reach")]

use std::net::TcpListener;
use std::path::Path;

use conformance::load::Wire;
use conformance::process::{Place, Process};
use tokio::net::UnixDatagram;
use tokio::process::Command;

const FIXTURE: &str = env!("CARGO_BIN_EXE_fixture");

/// The manager's end of `NOTIFY_SOCKET`.
struct Manager(UnixDatagram);

impl Manager {
    fn at(path: &Path) -> Self {
        Self(UnixDatagram::bind(path).unwrap())
    }

    async fn hears(&self) -> String {
        let mut word = [0; 64];
        let length = self.0.recv(&mut word).await.unwrap();
        String::from_utf8(word[..length].to_vec()).unwrap()
    }

    /// How many words wait to be heard; afterwards none does.
    fn waiting(&self) -> usize {
        std::iter::from_fn(|| self.0.try_recv(&mut [0; 64]).ok()).count()
    }
}

/// A fixture with one thread for its tasks, whose manager waits for a sign of life each 400 ms.
fn watched<'a>(command: &'a mut Command, notify: &Path) -> &'a mut Command {
    command.env("NOTIFY_SOCKET", notify).env("WATCHDOG_USEC", "400000").env("TOKIO_WORKER_THREADS", "1")
}

#[tokio::test]
async fn it_is_told_when_the_service_is_ready_and_when_it_stops() {
    let place = Place::new();
    let path = place.folder.path().join("notify");
    let manager = Manager::at(&path);
    let service = Process::start(place.command(FIXTURE).env("NOTIFY_SOCKET", &path));
    assert_eq!(manager.hears().await, "READY=1");
    service.terminate();
    assert_eq!(manager.hears().await, "STOPPING=1");
    assert_eq!(service.ended().await.0.code(), Some(0));
    assert_eq!(manager.waiting(), 0, "a watchdog that nobody asked for");
}

#[tokio::test]
async fn it_hears_that_the_service_lives_until_nobody_gets_an_answer() {
    let place = Place::new();
    let path = place.folder.path().join("notify");
    let manager = Manager::at(&path);
    let service = Process::start(watched(&mut place.command(FIXTURE), &path));
    assert_eq!(manager.hears().await, "READY=1");
    assert_eq!(manager.hears().await, "WATCHDOG=1");

    let mut wire = Wire::connect(place.http).await.unwrap();
    manager.waiting();
    assert_eq!(wire.ask("GET", "/block?ms=2000", true).await.unwrap().status, 200);
    // One may have been said before the handler began and one after it ended; a runtime that lived would have said ten.
    let said = manager.waiting();
    assert!(said <= 2, "{said} signs of life from a runtime that was held for five periods");

    assert_eq!(manager.hears().await, "WATCHDOG=1");
    service.terminate();
    while manager.hears().await != "STOPPING=1" {}
    assert_eq!(service.ended().await.0.code(), Some(0));
}

#[tokio::test]
async fn an_admin_socket_of_the_manager_that_others_can_reach_asks_for_a_token() {
    let place = Place::new();
    let socket = TcpListener::bind(("0.0.0.0", place.admin.port())).unwrap();
    // The settings say loopback; where the port really is decides.
    let mut command = place.command_on(&socket, FIXTURE);
    // Not just "ready": the warning names /readyz before the service is.
    let service = Process::prepared(command.env("LISTEN_FDNAMES", "admin"), "\"message\":\"ready\"").await;
    service.says("off loopback without a token").await;
    assert_eq!(place.admin_status("/readyz").await.unwrap(), 200);
    assert_eq!(place.admin_status("/openapi.json").await.unwrap(), 401);
    service.terminate();
    assert_eq!(service.ended().await.0.code(), Some(0));
}
