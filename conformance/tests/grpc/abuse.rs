//! What comes in broken, too large or too often: the table in `mainstay-grpc/docs/bad-input.md`, row by row.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use conformance::calls::v1::WorkRequest;
use conformance::process::{Place, Process};
use h2::client::SendRequest;
use http::{HeaderValue, Method, Request};
use mainstay::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{FIXTURE, client, patient};

const WORK: &str = "/conformance.v1.Calls/Work";
const MIB: usize = 1024 * 1024;
/// A server that leaves a case hanging fails it.
const PATIENCE: Duration = Duration::from_secs(40);

/// The rows of the table: what comes in, the answer, the connection.
fn table() -> Vec<[String; 3]> {
    let text = include_str!("../../../crates/mainstay-grpc/docs/bad-input.md");
    let rows = text.lines().filter(|line| line.starts_with('|')).skip(2).map(|line| {
        let cells: Vec<_> =
            line.trim_matches('|').split('|').map(|cell| cell.replace('`', "").trim().to_owned()).collect();
        cells.try_into().unwrap()
    });
    rows.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_of_the_table_is_true_memory_stays_bounded_and_others_are_served() {
    let place = Place::new();
    let mut command = place.command(FIXTURE);
    command.envs([("FIXTURE_HTTP__FIRST_BYTE_TIMEOUT", "1s"), ("FIXTURE_HTTP__IDLE_TIMEOUT", "2s")]);
    command.envs([("FIXTURE_HTTP__WRITE_TIMEOUT", "2s"), ("RUST_LOG", "warn,mainstay::command=info")]);
    let service = Process::prepared(&mut command, "ready").await;
    let others = client(place.http);
    others.work(&patient(), WorkRequest::default()).await.unwrap();
    let before = service.resident();
    let ends = tokio_util::sync::CancellationToken::new();
    let neighbour = tokio::spawn({
        let ends = ends.clone();
        async move {
            let mut served = 0_u32;
            while !ends.is_cancelled() {
                others.work(&patient(), WorkRequest { ms: 5, id: 0 }).await.unwrap();
                served += 1;
            }
            served
        }
    });
    let (mut wrong, mut grown) = (Vec::new(), 0);
    for [input, answer, connection] in table() {
        let seen = timeout(PATIENCE, outcome(place.http, &input)).await.unwrap_or(("hangs".to_owned(), "open"));
        if (seen.0.as_str(), seen.1) != (&answer, &connection) {
            wrong.push(format!("{input}: {seen:?}, and not {answer}, {connection}"));
        }
        grown = grown.max(service.resident().saturating_sub(before));
    }
    ends.cancel();
    print(&format!("bad gRPC: {} KiB more, {} others served", grown / 1024, neighbour.await.unwrap()));
    assert_eq!(wrong, [""; 0], "{}", wrong.join("\n"));
    assert!(grown <= 64 * MIB as u64, "{} MiB more", grown / MIB as u64);
}

async fn outcome(addr: SocketAddr, input: &str) -> (String, &'static str) {
    match input {
        "rapid reset: 20,000 calls that are given up at once" => flood(addr, reset_call, 20_000).await,
        "a flood of CONTINUATION" => {
            let first = frame(HEADERS, 0, 1, &[0; 0]);
            flood(
                addr,
                |number| {
                    if number == 0 { first.clone() } else { frame(CONTINUATION, 0, 1, &header("x", &[b'y'; 100])) }
                },
                20_000,
            )
            .await
        }
        "a flood of 50,000 SETTINGS" => flood(addr, |_| frame(SETTINGS, 0, 0, &[]), 50_000).await,
        "a flood of 50,000 PING" => flood(addr, |_| frame(PING, 0, 0, &[7; 8]), 50_000).await,
        "a flood of 200,000 PING whose answers nobody reads" => deaf(addr, frame(PING, 0, 0, &[7; 8]), 200_000).await,
        "a connection that never sends a byte" => ended(TcpStream::connect(addr).await.unwrap()).await,
        "a connection that says HTTP/2 and nothing else" => {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            stream.write_all(PREFACE).await.unwrap();
            stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
            ended(stream).await
        }
        _ => call(addr, input).await,
    }
}

/// What one call is answered, and whether its connection answers another.
async fn call(addr: SocketAddr, input: &str) -> (String, &'static str) {
    // Made before it connects: an idle connection is closed.
    let (request, body) = request_of(addr, input);
    let stream = TcpStream::connect(addr).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let answer = exchange(&mut send, request, body).await;
    let (plain, one) = request_of(addr, "");
    let kept = exchange(&mut send, plain, one).await == "OK";
    driver.abort();
    (answer, if kept { "kept" } else { "closed" })
}

/// The request and body of a row.
fn request_of(addr: SocketAddr, input: &str) -> (Request<()>, Vec<u8>) {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{addr}{WORK}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let mut body = message(0, &[]);
    let elsewhere = |path: &str| format!("http://{addr}{path}").parse().unwrap();
    let headers = request.headers_mut();
    match input {
        "a service that is not there" => *request.uri_mut() = elsewhere("/conformance.v1.Nothing/Work"),
        "a method that is not there" => *request.uri_mut() = elsewhere("/conformance.v1.Calls/Nothing"),
        "GET instead of POST" => *request.method_mut() = Method::GET,
        "no message" => body = Vec::new(),
        "two messages for one" => body = [body.clone(), body].concat(),
        "a message that breaks off" => body = vec![0, 0, 0, 0, 9, 8],
        "a message that is no protobuf" => body = message(0, b"\xff\xff\xff"),
        "a message of 2 MiB" => body = message(0, &vec![0; 2 * MIB]),
        "an announced message of 4 GiB" => body = vec![0, 0xff, 0xff, 0xff, 0xff, 0],
        "a compressed message without its encoding" => body = message(1, &[0; 20]),
        "a compression that is not offered" => drop(headers.insert("grpc-encoding", HeaderValue::from_static("br"))),
        "a compressed message of 1 KiB that becomes 100 MiB" => {
            headers.insert("grpc-encoding", HeaderValue::from_static("gzip"));
            body = message(1, &bomb());
        }
        "metadata of 20 KiB" => drop(headers.insert("x-large", "x".repeat(20 * 1024).parse().unwrap())),
        "metadata of 100 KiB" => drop(headers.insert("x-large", "x".repeat(100 * 1024).parse().unwrap())),
        "metadata of 1 MiB" => drop(headers.insert("x-large", "x".repeat(MIB).parse().unwrap())),
        "100 entries of metadata" => (0..100).for_each(|number| {
            let name: http::HeaderName = format!("x-{number}").parse().unwrap();
            headers.insert(name, HeaderValue::from_static("y"));
        }),
        "metadata that is not UTF-8" => {
            drop(headers.insert("x-odd", HeaderValue::from_bytes(b"\xc3\x28\xff").unwrap()))
        }
        "a grpc-timeout that is none" => drop(headers.insert("grpc-timeout", HeaderValue::from_static("soon"))),
        "a grpc-timeout that has passed" => drop(headers.insert("grpc-timeout", HeaderValue::from_static("0n"))),
        "" => {}
        unknown => panic!("the table has a row that no test knows: {unknown}"),
    }
    (request, body)
}

/// The status of gRPC, or what came instead.
async fn exchange(send: &mut SendRequest<Bytes>, request: Request<()>, body: Vec<u8>) -> String {
    let Ok(mut ready) = send.clone().ready().await else { return "no connection".to_owned() };
    let Ok((response, mut stream)) = ready.send_request(request, body.is_empty()) else { return "refused".to_owned() };
    if !body.is_empty() {
        let _ = stream.send_data(body.into(), true); // who has been answered needs no more
    }
    let response = match response.await {
        Ok(response) => response,
        Err(error) if error.is_io() || error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM) => {
            return "end".to_owned();
        }
        Err(error) => return format!("{error}"),
    };
    let (head, mut body) = response.into_parts();
    if !head.status.is_success() {
        return format!("HTTP {}", head.status.as_u16());
    }
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
    }
    let trailers = body.trailers().await.ok().flatten().unwrap_or_default();
    let status = head.headers.get("grpc-status").or(trailers.get("grpc-status"));
    let number: usize = status.and_then(|status| status.to_str().ok()?.parse().ok()).unwrap_or(99);
    match number {
        0 => "OK".to_owned(),
        _ => Code::ALL.get(number - 1).map_or("no status", |code| code.name()).to_owned(),
    }
}

fn message(flag: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[flag], &length[..], bytes].concat()
}

/// A gzip of zeros: what 100 MiB of them become.
fn bomb() -> Vec<u8> {
    use std::io::Write;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..100 {
        gzip.write_all(&vec![0; MIB]).unwrap();
    }
    gzip.finish().unwrap()
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header as HPACK writes one that it doesn't remember.
fn header(name: &str, value: &[u8]) -> Vec<u8> {
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
    assert!(value.len() < 127 && name.len() < 127);
    [&[0, length(name.as_bytes())], name.as_bytes(), &[length(value)], value].concat()
}

/// A call and, at once, that it isn't wanted.
fn reset_call(number: u32) -> Vec<u8> {
    let stream = 2 * number + 1;
    let head = [
        header(":method", b"POST"),
        header(":scheme", b"http"),
        header(":path", WORK.as_bytes()),
        header(":authority", b"x"),
        header("content-type", b"application/grpc"),
    ];
    [frame(HEADERS, END_HEADERS, stream, &head.concat()), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
}

/// Sends `count` frames while it reads what comes; then asks whether anybody is there.
async fn flood(addr: SocketAddr, make: impl Fn(u32) -> Vec<u8>, count: u32) -> (String, &'static str) {
    let (mut reading, mut writing) = TcpStream::connect(addr).await.unwrap().into_split();
    let frames = (0..count).flat_map(make).collect::<Vec<_>>();
    let writer = tokio::spawn(async move {
        let last = [frame(PING, 0, 0, b"the last")].concat();
        for part in [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frames, &last] {
            if writing.write_all(part).await.is_err() {
                break;
            }
        }
        writing // kept open until all was read
    });
    let (answer, connection) = read_to_the_end(&mut reading).await;
    drop(writer);
    match (answer.as_str(), connection) {
        ("GOAWAY ENHANCE_YOUR_CALM" | "none" | "half a frame", "closed") => ("end".to_owned(), connection),
        _ => (answer, connection),
    }
}

/// Sends `count` frames and reads nothing, until the server has had enough.
async fn deaf(addr: SocketAddr, one: Vec<u8>, count: usize) -> (String, &'static str) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    let many = one.repeat(count);
    // It stops reading us, waits for us to read, and gives up.
    while stream.write_all(&many).await.is_ok() {}
    ("none".to_owned(), "closed")
}

async fn ended(mut stream: TcpStream) -> (String, &'static str) {
    read_to_the_end(&mut stream).await
}

/// Reads frames: until the last ping is answered, or the connection ends.
async fn read_to_the_end(stream: &mut (impl AsyncReadExt + Unpin)) -> (String, &'static str) {
    let mut goaway = None;
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return (goaway.unwrap_or_else(|| "none".to_owned()), "closed");
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        if stream.read_exact(&mut payload).await.is_err() {
            return ("half a frame".to_owned(), "closed");
        }
        match head[3] {
            GOAWAY => {
                let reason = u32::from_be_bytes(payload[4..8].try_into().unwrap());
                goaway = Some(format!("GOAWAY {:?}", h2::Reason::from(reason)));
            }
            PING if head[4] & ACK != 0 && payload == b"the last" => return ("none".to_owned(), "kept"),
            _ => {}
        }
    }
}

fn print(text: &str) {
    #[expect(clippy::print_stdout, reason = "the figures in docs/guarantees.md")]
    {
        println!("{text}");
    }
}
