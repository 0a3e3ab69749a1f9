//! Clients without mercy: raw HTTP/1.1, no retries, every request accounted for.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Longer than any answer of the fixture takes, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a load does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The address of the service.
    pub addr: SocketAddr,
    /// How many clients keep their connection for as long as the server lets them.
    pub keep_alive: usize,
    /// How many clients open a connection per request.
    pub one_per_request: usize,
    /// What is asked for.
    pub work: Work,
    /// The id of the first request, so that loads on one database don't meet.
    pub first_id: i64,
}

/// What clients ask for.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Of the fixture: rows. The handler takes between 0 and this.
    Rows(Duration),
    /// Of the shop: one order in four requests, for a piece of one of the [`sku`]s by the customer whose name is the
    /// request's id; else the product.
    Orders,
}

/// How many products the shop's customers order.
pub const PRODUCTS: i64 = 20;

/// What the request `id` is about.
pub fn sku(id: i64) -> String {
    format!("tea-{}", id / 4 % PRODUCTS)
}

impl Work {
    /// Whether the request `id` changes something.
    fn writes(self, id: i64) -> bool {
        matches!(self, Self::Rows(_)) || id % 4 == 0
    }

    /// Method, target and body.
    fn request(self, id: i64) -> (&'static str, String, String) {
        match self {
            Self::Rows(longest) => ("POST", format!("/rows?ms={}&id={id}", took(id, longest)), String::new()),
            Self::Orders if self.writes(id) => {
                let body = format!(r#"{{"customer": "{id}", "lines": [{{"sku": "{}", "quantity": 1}}]}}"#, sku(id));
                ("POST", "/v1/orders".to_owned(), body)
            }
            Self::Orders => ("GET", format!("/v1/products/{}", sku(id)), String::new()),
        }
    }
}

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests whose connection was there.
    pub sent: u64,
    /// Answers of 2xx.
    pub answered: u64,
    /// Requests that change something and were answered with 2xx: what they say is stored.
    pub stored: Vec<i64>,
    /// Other answers: when, and their status.
    pub other: Vec<(Instant, u16)>,
    /// Requests that got no whole answer: when, and how.
    pub lost: Vec<(Instant, String)>,
    /// Connections that were refused.
    pub refused: Vec<Instant>,
    /// First requests of connections that were reset without a byte: what a kernel does that has answered for a
    /// listener which closes before it accepts. From here it can't be seen whether somebody had accepted after all; that
    /// nobody has worked for one is seen where rows and answers agree.
    pub reset: u64,
}

impl Tally {
    /// When requests or connections failed, in whatever way but a reset.
    pub fn failures(&self) -> impl Iterator<Item = Instant> {
        let other = self.other.iter().map(|(when, _)| *when);
        other.chain(self.lost.iter().map(|(when, _)| *when)).chain(self.refused.iter().copied())
    }

    /// How many requests or connections failed, in whatever way.
    pub fn failed(&self) -> usize {
        self.other.len() + self.lost.len() + self.refused.len() + usize::try_from(self.reset).unwrap_or(usize::MAX)
    }
}

/// A load under way.
#[derive(Debug)]
pub struct Load {
    clients: JoinSet<()>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    plan: Plan,
    tally: Mutex<Tally>,
    next: AtomicI64,
    end: AtomicBool,
}

impl Load {
    /// Sends requests until [`Load::end`]. A client whose connection is refused makes a pause and goes on.
    pub fn start(plan: Plan) -> Self {
        let next = AtomicI64::new(plan.first_id);
        let (tally, end) = (Mutex::default(), AtomicBool::new(false));
        let shared = Arc::new(Shared { plan, tally, next, end });
        let mut clients = JoinSet::new();
        for number in 0..shared.plan.keep_alive + shared.plan.one_per_request {
            clients.spawn(client(shared.clone(), number < shared.plan.keep_alive));
        }
        Self { clients, shared }
    }

    /// What has become of the requests up to now.
    pub fn tally(&self) -> Tally {
        self.shared.tally().clone()
    }

    /// How many requests were answered with 2xx up to now.
    pub fn answered(&self) -> u64 {
        self.shared.tally().answered
    }

    /// Sends no more requests, waits for the answers of those on the way.
    pub async fn end(mut self) -> Tally {
        self.shared.end.store(true, Ordering::Relaxed);
        while self.clients.join_next().await.is_some() {}
        self.tally()
    }
}

impl Shared {
    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn client(shared: Arc<Shared>, keeps_alive: bool) {
    const PAUSE: Duration = Duration::from_millis(50);
    let mut kept = None;
    while !shared.end.load(Ordering::Relaxed) {
        let fresh = kept.is_none();
        let mut wire = match kept.take() {
            Some(wire) => wire,
            None => match TcpStream::connect(shared.plan.addr).await {
                Ok(stream) => Wire { stream, buffer: Vec::new(), heard: false },
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    shared.tally().refused.push(Instant::now());
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(error) => {
                    shared.tally().lost.push((Instant::now(), format!("connecting: {error}")));
                    continue;
                }
            },
        };
        let id = shared.next.fetch_add(1, Ordering::Relaxed);
        let (method, target, body) = shared.plan.work.request(id);
        shared.tally().sent += 1;
        let began = Instant::now();
        let asked = wire.ask_with(method, &target, &body, keeps_alive);
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) => {
                let mut tally = shared.tally();
                match answer.status {
                    200..300 => {
                        tally.answered += 1;
                        if shared.plan.work.writes(id) {
                            tally.stored.push(id);
                        }
                    }
                    status => tally.other.push((Instant::now(), status)),
                }
                drop(tally);
                kept = (keeps_alive && !answer.closes).then_some(wire);
            }
            Ok(Err(error)) if fresh && !wire.heard && is_reset(&error) => shared.tally().reset += 1,
            Ok(Err(error)) => {
                let text = format!("after {:?}, request {id}, {method} {target}: {error}", began.elapsed());
                shared.tally().lost.push((Instant::now(), text));
            }
            Err(_) => shared.tally().lost.push((Instant::now(), format!("request {id}: no answer in {PATIENCE:?}"))),
        }
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// Spreads the times evenly over `0..=longest` without a generator of random numbers.
fn took(id: i64, longest: Duration) -> u64 {
    let span = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX - 1) + 1;
    id.unsigned_abs().wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31) % span
}

/// One HTTP/1.1 connection of a client.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Whether a byte has ever come: then somebody had accepted it.
    heard: bool,
}

/// The head of an answer, its body and what the server wants of the connection.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Whether the server closes the connection after it.
    pub closes: bool,
    /// The body of an announced length; empty if none was.
    pub body: Vec<u8>,
}

impl Wire {
    /// Connects.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn connect(addr: SocketAddr) -> io::Result<Self> {
        Ok(Self { stream: TcpStream::connect(addr).await?, buffer: Vec::new(), heard: false })
    }

    /// Sends a request without a body and reads its answer.
    ///
    /// # Errors
    /// Those of the socket, and `UnexpectedEof` when the connection ends inside the answer.
    pub async fn ask(&mut self, method: &str, target: &str, keeps_alive: bool) -> io::Result<Answer> {
        self.ask_with(method, target, "", keeps_alive).await
    }

    /// Sends a request with a body of JSON, if it isn't empty, and reads its answer.
    ///
    /// # Errors
    /// As [`Wire::ask`].
    pub async fn ask_with(&mut self, method: &str, target: &str, json: &str, keeps_alive: bool) -> io::Result<Answer> {
        let close = if keeps_alive { "" } else { "connection: close\r\n" };
        let kind = if json.is_empty() { "" } else { "content-type: application/json\r\n" };
        let length = json.len();
        let head =
            format!("{method} {target} HTTP/1.1\r\nhost: fixture\r\ncontent-length: {length}\r\n{kind}{close}\r\n");
        self.send(&(head + json)).await?;
        self.answer().await
    }

    /// Sends `text` as it is.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn send(&mut self, text: &str) -> io::Result<()> {
        self.stream.write_all(text.as_bytes()).await
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// As [`Wire::ask`].
    pub async fn answer(&mut self) -> io::Result<Answer> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            self.fill("the head").await?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
        self.buffer.drain(..end);
        let header = |name: &str| {
            head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim).map(str::to_owned))
        };
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        while self.buffer.len() < length {
            self.fill("the body").await?;
        }
        let closes = header("connection").is_some_and(|value| value == "close");
        Ok(Answer { status, closes, body: self.buffer.drain(..length).collect() })
    }

    /// Makes this connection a WebSocket at `target`.
    ///
    /// # Errors
    /// As [`Wire::ask`].
    pub async fn upgrade(&mut self, target: &str) -> io::Result<Answer> {
        let head = format!(
            "GET {target} HTTP/1.1\r\nhost: fixture\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        self.send(&head).await?;
        self.answer().await
    }

    /// Sends a WebSocket frame of up to 125 bytes, masked with zeros.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn send_frame(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let length =
            u8::try_from(payload.len()).ok().filter(|length| *length < 126).ok_or(io::ErrorKind::InvalidInput)?;
        let mut frame = vec![0x80 | opcode, 0x80 | length, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).await
    }

    /// Reads a WebSocket frame of up to 125 bytes: its opcode and payload.
    ///
    /// # Errors
    /// As [`Wire::ask`].
    pub async fn frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        while self.buffer.len() < 2 || self.buffer.len() < 2 + usize::from(self.buffer[1]) {
            self.fill("the frame").await?;
        }
        let length = usize::from(self.buffer[1]);
        let frame: Vec<u8> = self.buffer.drain(..2 + length).collect();
        Ok((frame[0] & 0x0f, frame[2..].to_vec()))
    }

    /// Waits until the server has closed the connection.
    pub async fn closed(&mut self) {
        while self.fill("nothing").await.is_ok() {}
    }

    async fn fill(&mut self, what: &str) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 if self.buffer.is_empty() => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("closed before {what}")))
            }
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("closed inside {what}"))),
            _ => {
                self.heard = true;
                Ok(())
            }
        }
    }
}
