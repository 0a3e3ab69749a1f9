//! One case against the server: what is sent, and what is seen.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::cases::{Case, Then};

/// What became of a case, in the words of the table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Outcome {
    /// `400 INVALID_ARGUMENT`, `400, empty`, `200` or `none`.
    pub(crate) answer: String,
    /// `kept` or `closed`.
    pub(crate) connection: String,
}

/// A server that leaves a case hanging fails it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two bytes of a sender that dribbles: far below every limit on pauses.
const DRIBBLE: Duration = Duration::from_millis(20);

/// Runs one exchange on a runtime of its own.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Sends the input of `case` over a connection of its own, reads the answer, and tries the connection once more.
pub(crate) async fn exchange(addr: SocketAddr, case: &Case) -> Outcome {
    match timeout(PATIENCE, try_exchange(addr, case)).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome { answer: "none".into(), connection: format!("open and silent for {PATIENCE:?}") },
    }
}

async fn try_exchange(addr: SocketAddr, case: &Case) -> Outcome {
    let (mut reading, mut writing) = TcpStream::connect(addr).await.unwrap().into_split();
    let mut buffer = Vec::new();
    // Both at once: a server that refuses early does so while the rest is still on its way.
    let send = async {
        let mut alive = writing.write_all(&case.bytes).await.is_ok();
        while let (Then::Dribble(byte), true) = (case.then, alive) {
            sleep(DRIBBLE).await;
            alive = writing.write_all(&[byte]).await.is_ok();
        }
        std::future::pending::<()>().await;
    };
    let answer = tokio::select! {
        answer = read_answer(&mut reading, &mut buffer) => answer,
        () = send => None,
    };
    let Some(answer) = answer else {
        return Outcome { answer: "none".into(), connection: "closed".into() };
    };
    // A server that has closed may not have told us yet: only a second answer proves that it is open.
    let _ = writing.write_all(b"GET /ok HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await;
    let kept = read_answer(&mut reading, &mut buffer).await.is_some_and(|answer| answer == "200");
    Outcome { answer, connection: if kept { "kept" } else { "closed" }.into() }
}

/// The next answer in the words of the table; `None` if the connection ended before one was complete.
pub(crate) async fn read_answer(stream: &mut (impl AsyncReadExt + Unpin), buffer: &mut Vec<u8>) -> Option<String> {
    let end = loop {
        if let Some(position) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break position + 4;
        }
        read(stream, buffer).await?;
    };
    let head = String::from_utf8(buffer.drain(..end).collect()).ok()?.to_lowercase();
    let status = head.strip_prefix("http/1.1 ")?.split_whitespace().next()?.to_owned();
    let header =
        |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
    let length = header("content-length:").map_or(0, |length| length.parse().unwrap());
    while buffer.len() < length {
        read(stream, buffer).await?;
    }
    let body: Vec<u8> = buffer.drain(..length).collect();
    if status == "200" {
        return Some(status);
    }
    if body.is_empty() {
        return Some(format!("{status}, empty"));
    }
    assert_eq!(header("content-type:").as_deref(), Some("application/problem+json"), "{head}");
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem["status"].to_string(), status);
    assert_eq!(header("x-request-id:").as_deref(), problem["request_id"].as_str());
    Some(format!("{status} {}", problem["code"].as_str().unwrap()))
}

async fn read(stream: &mut (impl AsyncReadExt + Unpin), buffer: &mut Vec<u8>) -> Option<()> {
    match stream.read_buf(buffer).await {
        Ok(0) => None,
        Ok(_) => Some(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
        Err(error) => panic!("{error}"),
    }
}
