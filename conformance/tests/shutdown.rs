//! How a service ends: everything accepted is answered, and what can't be is named.

use std::time::Duration;

use conformance::load::{Load, Plan, Wire, Work};
use conformance::process::{Place, Process};
use rustix::process::Signal;
use tokio::time::Instant;

const FIXTURE: &str = env!("CARGO_BIN_EXE_fixture");

/// Opcodes of WebSocket frames, and the code of a server that leaves.
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const GOING_AWAY: [u8; 2] = 1001_u16.to_be_bytes();

/// The moment from which on readiness says no, watched until the admin port is gone.
async fn unready_since(place: &Place) -> Option<Instant> {
    let mut since = None;
    while let Ok(status) = place.admin_status("/readyz").await {
        match status {
            503 => since = since.or(Some(Instant::now())),
            _ => since = None,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    since
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_every_accepted_request_is_answered_and_every_answer_is_true() {
    const SETTLE: Duration = Duration::from_secs(1);
    let place = Place::new();
    let service = Process::ready(place.command(FIXTURE).env("FIXTURE_SHUTDOWN__SETTLE", "1s")).await;
    let load = Load::start(Plan {
        addr: place.http,
        keep_alive: 100,
        one_per_request: 100,
        work: Work::Rows(Duration::from_secs(2)),
        first_id: 1,
    });
    while load.tally().answered < 300 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    service.terminate();
    let unready = unready_since(&place).await.expect("readiness said no before the end");
    let (status, log) = service.ended().await;
    let tally = load.end().await;

    assert_eq!(status.code(), Some(0), "{log}");
    assert!(tally.other.is_empty(), "{:?}\n{log}", tally.other);
    let refused_from = tally.refused.iter().min().expect("the port is closed in the end");
    let noticed = refused_from.saturating_duration_since(unready);
    assert!(noticed >= SETTLE - Duration::from_millis(100), "refused {noticed:?} after readiness had said no");
    assert_eq!(tally.lost.iter().map(|(_, how)| how).collect::<Vec<_>>(), [] as [&String; 0], "{log}");
    assert_eq!(place.rows(), tally.answered);
    // Nobody can accept what the kernel completes between the last look into the queue and the close. None of these has
    // heard a byte, and, by the rows, none was worked for.
    assert!(tally.reset <= 2, "{} connections were reset", tally.reset);
}

#[tokio::test]
async fn what_overstays_is_cut_and_named_and_the_exit_code_says_so() {
    let place = Place::new();
    let service = Process::ready(place.command(FIXTURE).env("FIXTURE_SHUTDOWN__STOP", "2s")).await;
    let mut handler = Wire::connect(place.http).await.unwrap();
    handler.send("GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut stream = Wire::connect(place.http).await.unwrap();
    stream.send("GET /events HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(stream.answer().await.unwrap().status, 200);
    let mut socket = Wire::connect(place.http).await.unwrap();
    assert_eq!(socket.upgrade("/echo").await.unwrap().status, 101);
    service.terminate();
    assert_eq!(socket.frame().await.unwrap().0, CLOSE, "it was told, and doesn't answer");
    let (status, log) = service.ended().await;
    assert_eq!(status.code(), Some(1), "{log}");
    for name in ["GET /endless (request ", "GET /events (request ", "WebSocket /echo (request "] {
        assert!(log.contains(name), "no `{name}` in:\n{log}");
    }
    handler.closed().await;
    stream.closed().await;
    socket.closed().await;
}

#[tokio::test]
async fn a_websocket_is_told_to_go_elsewhere_and_ends_clean() {
    let place = Place::new();
    let service = Process::ready(&mut place.command(FIXTURE)).await;
    let mut socket = Wire::connect(place.http).await.unwrap();
    assert_eq!(socket.upgrade("/echo").await.unwrap().status, 101);
    socket.send_frame(TEXT, b"hello").await.unwrap();
    assert_eq!(socket.frame().await.unwrap(), (TEXT, b"hello".to_vec()));
    service.terminate();
    let (opcode, reason) = socket.frame().await.unwrap();
    assert_eq!((opcode, &reason[..2]), (CLOSE, &GOING_AWAY[..]));
    socket.send_frame(CLOSE, &GOING_AWAY).await.unwrap();
    socket.closed().await;
    let (status, log) = service.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let place = Place::new();
    let service = Process::ready(&mut place.command(FIXTURE)).await;
    let mut handler = Wire::connect(place.http).await.unwrap();
    handler.send("GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    service.terminate();
    service.says("asked to").await;
    service.signal(Signal::INT);
    let (status, log) = service.ended().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("stopped at once by a second signal"), "{log}");
}

#[tokio::test]
async fn on_a_terminal_the_first_ctrl_c_drains_at_once_and_says_what_the_second_does() {
    use tokio::io::AsyncWriteExt;
    let place = Place::new();
    // `script` gives the program a terminal, and what is written to it comes from the keyboard.
    let mut command = place.command("script");
    let exec = format!("exec {FIXTURE}"); // or the shell would die of Ctrl-C and say so
    command.args(["-q", "-e", "-c", &exec, "/dev/null"]).env("FIXTURE_SHUTDOWN__SETTLE", "1h");
    let mut service = Process::start(command.stdin(std::process::Stdio::piped()));
    let mut keyboard = service.stdin();
    service.says("is ready").await;
    let mut handler = Wire::connect(place.http).await.unwrap();
    handler.send("GET /work?ms=1000 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    keyboard.write_all(b"\x03").await.unwrap();
    service.says("draining, press again to stop").await;
    let (status, log) = service.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
}
