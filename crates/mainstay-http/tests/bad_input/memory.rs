//! What the server's memory does under bad input and idle connections.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::exchange::{exchange, read_answer, run};
use crate::server::ServerProcess;
use crate::{cases, table};

/// The most that bad input may add, in KiB.
const BAD_INPUT_BOUND: u64 = 64 * 1024;
/// Each sends every case of the table eight times at once: some 500 exchanges.
const ROUNDS: usize = 6;
/// The most that 10,000 connections may add which do nothing, in KiB; fewer may add their share.
const IDLE_BOUND: u64 = 160 * 1024;
/// How many idle connections are opened if nothing else is said. Each takes a file descriptor here and one there.
const IDLE: usize = 2_000;
/// Says another number, as `just bad-input-memory` does.
const IDLE_VARIABLE: &str = "MAINSTAY_IDLE_CONNECTIONS";

/// Every case at once, over and over, while somebody else asks for something harmless.
pub(crate) fn under_bad_input(server: &ServerProcess) {
    let expected = table::rows();
    run(async {
        let (ended, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let others = tokio::spawn(others(server.addr, ended.clone(), served.clone()));
        let before = server.resident_kib();
        for round in 0..ROUNDS {
            let served_before = served.load(Relaxed);
            let mut running = JoinSet::new();
            for case in (0..8).flat_map(|_| cases::all()) {
                let addr = server.addr;
                running.spawn(async move { (exchange(addr, &case).await, case.input) });
            }
            while let Some(done) = running.join_next().await {
                let (found, input) = done.unwrap();
                let row = expected.iter().find(|row| row.input == input).unwrap();
                assert_eq!(found, row.expected, "{input}, in round {round}");
            }
            assert!(served.load(Relaxed) > served_before, "nobody else was served in round {round}");
        }
        ended.store(true, Relaxed);
        others.await.unwrap();
        if let (Some(before), Some(after)) = (before, server.resident_kib()) {
            let (grown, exchanges) = (after.saturating_sub(before), ROUNDS * 8 * expected.len());
            eprintln!("{exchanges} exchanges of bad input, {} others: {grown} KiB more", served.load(Relaxed));
            assert!(grown <= BAD_INPUT_BOUND, "{grown} KiB more, of {BAD_INPUT_BOUND}");
        }
    });
}

/// Asks over one connection, again and again, until `ended`; every answer has to be right.
async fn others(addr: SocketAddr, ended: Arc<AtomicBool>, served: Arc<AtomicU64>) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    while !ended.load(Relaxed) {
        ask(&mut stream).await;
        served.fetch_add(1, Relaxed);
    }
}

async fn ask(stream: &mut TcpStream) {
    stream.write_all(b"GET /ok HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    assert_eq!(read_answer(stream, &mut Vec::new()).await.as_deref(), Some("200"));
}

/// Thousands of connections that never say anything.
pub(crate) fn of_silent_connections(server: &ServerProcess) {
    run(idle(server, false));
}

/// Thousands of connections between two requests.
pub(crate) fn of_used_connections(server: &ServerProcess) {
    run(idle(server, true));
}

async fn idle(server: &ServerProcess, used: bool) {
    let wanted = std::env::var(IDLE_VARIABLE).map_or(IDLE, |number| number.parse().unwrap());
    let count = wanted.min(open_files().saturating_sub(200));
    ask(&mut TcpStream::connect(server.addr).await.unwrap()).await;
    let before = server.resident_kib();
    let mut idle = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        if used {
            ask(&mut stream).await;
        }
        idle.push(stream);
    }
    // Answered behind all of them, so that every one has been accepted.
    ask(&mut TcpStream::connect(server.addr).await.unwrap()).await;
    let bound = IDLE_BOUND * count as u64 / 10_000;
    if let (Some(before), Some(after)) = (before, server.resident_kib()) {
        let grown = after.saturating_sub(before);
        eprintln!("{count} {} connections: {grown} KiB more", if used { "used" } else { "silent" });
        assert!(grown <= bound, "{count} connections cost {grown} KiB, more than {bound}");
    }
    for stream in idle.iter_mut().step_by(100) {
        ask(stream).await; // they still work
    }
}

/// How many files this process may open; the server has the same limit.
fn open_files() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(1024)
}
