//! A new process takes over from the running one, under load: no request fails.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which the lint's allowance for tests does not reach")]

use std::time::Duration;

use conformance::load::{Load, Plan, Tally, Work};
use conformance::process::{Place, Process};
use rustix::process::Signal;

const FIXTURE: &str = env!("CARGO_BIN_EXE_fixture");

/// How often the service is replaced; `just handover` says 20.
fn rounds() -> usize {
    std::env::var("HANDOVERS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

/// The load of the issue: handlers of 0 to 2 s.
const SLOW: Duration = Duration::from_secs(2);

/// Twenty times as many requests and connections in the same time: what the queue of a socket is full of.
const FAST: Duration = Duration::from_millis(100);

fn load(place: &Place, longest: Duration) -> Load {
    Load::start(Plan {
        addr: place.http,
        keep_alive: 100,
        one_per_request: 100,
        work: Work::Rows(longest),
        first_id: 1,
    })
}

async fn answered_since(load: &Load, answers: u64) {
    let before = load.tally().answered;
    while load.tally().answered < before + answers {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[expect(clippy::print_stdout, reason = "the figures that `just handover` is run for")]
fn print(way: &str, longest: Duration, tally: &Tally) {
    println!(
        "{way}, handlers of 0 to {longest:?}: {} hand-overs, {} requests, {} failed ({} lost, {} reset, {} refused, {} of another status)",
        rounds(),
        tally.sent,
        tally.failed(),
        tally.lost.len(),
        tally.reset,
        tally.refused.len(),
        tally.other.len()
    );
}

async fn over_a_unix_socket(longest: Duration) {
    let place = Place::new();
    let mut service = Process::ready(&mut place.command(FIXTURE)).await;
    let load = load(&place, longest);
    answered_since(&load, 100).await;
    for _ in 0..rounds() {
        let next = Process::ready(&mut place.command(FIXTURE)).await;
        assert_eq!(next.log().matches("taking over").count(), 1, "{}", next.log());
        let old = std::mem::replace(&mut service, next);
        let (status, log) = old.ended().await;
        assert_eq!(status.code(), Some(0), "{log}");
        assert_eq!(place.admin_status("/readyz").await.unwrap(), 200);
        answered_since(&load, 50).await;
    }
    let tally = load.end().await;
    print("unix socket", longest, &tally);
    assert_eq!(tally.failed(), 0, "{tally:?}\n{}", service.log());
    assert_eq!(place.rows(), tally.answered);
    service.terminate();
    let (status, log) = service.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_unix_socket_no_request_fails_and_every_old_process_ends_clean() {
    over_a_unix_socket(SLOW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_unix_socket_no_request_of_a_crowd_in_a_hurry_fails() {
    over_a_unix_socket(FAST).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_socket_of_the_service_manager_a_restart_fails_no_request() {
    let place = Place::new();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(place.http).unwrap();
    let socket = socket.listen(4096).unwrap().into_std().unwrap();
    let mut service = Process::ready(&mut place.command_on(&socket, FIXTURE)).await;
    let load = load(&place, SLOW);
    answered_since(&load, 100).await;
    for _ in 0..rounds() {
        // The order of `systemctl restart`: in between, nobody accepts and connections wait.
        service.terminate();
        let (status, log) = service.ended().await;
        assert_eq!(status.code(), Some(0), "{log}");
        service = Process::ready(&mut place.command_on(&socket, FIXTURE)).await;
        answered_since(&load, 50).await;
    }
    let tally = load.end().await;
    print("LISTEN_FDS", SLOW, &tally);
    assert_eq!(tally.failed(), 0, "{tally:?}\n{}", service.log());
    assert_eq!(place.rows(), tally.answered);
}

/// The opt-in that loses: counted, and held to what it promises, that no answer is a lie.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_reuseport_what_is_answered_is_stored() {
    let place = Place::new();
    let command = || {
        let mut command = place.command(FIXTURE);
        command.env("FIXTURE_HTTP__HANDOVER", "reuseport");
        command
    };
    let mut service = Process::ready(&mut command()).await;
    let load = load(&place, FAST);
    answered_since(&load, 100).await;
    for _ in 0..rounds() {
        let old = std::mem::replace(&mut service, Process::ready(&mut command()).await);
        old.terminate();
        let (status, log) = old.ended().await;
        assert_eq!(status.code(), Some(0), "{log}");
        answered_since(&load, 50).await;
    }
    let tally = load.end().await;
    print("SO_REUSEPORT", FAST, &tally);
    assert!(tally.other.is_empty(), "{:?}\n{}", tally.other, service.log());
    assert!(place.rows() >= tally.answered);
}

#[tokio::test]
async fn a_new_process_that_dies_before_it_is_ready_changes_nothing() {
    let place = Place::new();
    let service = Process::ready(&mut place.command(FIXTURE)).await;
    // It has the sockets when its database turns out to be unreachable.
    let broken = Process::start(place.command(FIXTURE).env("DATABASE_URL", "sqlite:///proc/nowhere/x.db"));
    let (status, log) = broken.ended().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("taking over"), "{log}");
    service.says("is gone; going on").await;
    assert_eq!(place.admin_status("/readyz").await.unwrap(), 200);
    let next = Process::ready(&mut place.command(FIXTURE)).await;
    let (status, log) = service.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    next.terminate();
    assert_eq!(next.ended().await.0.code(), Some(0));
}

#[tokio::test]
async fn a_port_held_by_another_program_is_named_with_its_setting() {
    let place = Place::new();
    let _holder = std::net::TcpListener::bind(place.http).unwrap();
    let (status, log) = Process::start(&mut place.command(FIXTURE)).ended().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(&place.http.to_string()) && log.contains("FIXTURE_HTTP__ADDR"), "{log}");
}

#[tokio::test]
async fn where_it_is_off_a_running_process_is_in_the_way() {
    let place = Place::new();
    let service = Process::ready(place.command(FIXTURE).env("FIXTURE_HTTP__HANDOVER", "off")).await;
    let (status, log) = Process::start(&mut place.command(FIXTURE)).ended().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("another program does"), "{log}");
    drop(service);
}

#[tokio::test]
async fn a_signal_to_a_process_that_was_replaced_doesnt_cut_what_it_finishes() {
    let place = Place::new();
    let old = Process::ready(&mut place.command(FIXTURE)).await;
    let mut wire = conformance::load::Wire::connect(place.http).await.unwrap();
    wire.send("GET /work?ms=1500 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let next = Process::ready(&mut place.command(FIXTURE)).await;
    old.says("has taken over").await;
    old.signal(Signal::TERM);
    assert_eq!(wire.answer().await.unwrap().status, 200);
    assert_eq!(old.ended().await.0.code(), Some(0));
    drop(next);
}
