//! Whoever says goodbye while a call is on its way, byte by byte: a server of ours would have to be caught at it.

use std::net::SocketAddr;

use conformance::calls::v1::WorkRequest;
use conformance::process::{Place, Process};
use mainstay::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::{FIXTURE, client, patient};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_made_again_only_if_the_other_side_has_not_looked_at_it() {
    let (place, ctx) = (Place::new(), patient());
    let _service = Process::ready(&mut place.command(FIXTURE)).await;
    // The client's first stream is 1.
    for (last_seen, wanted) in [(0, Ok(())), (1, Err(Code::Unavailable))] {
        let front = front(place.http, last_seen).await;
        let answer = client(front).work(&ctx, WorkRequest { ms: 0, id: 1 + i64::from(last_seen) }).await;
        assert_eq!(answer.map(drop).map_err(|error| error.code()), wanted, "seen up to {last_seen}");
    }
    assert_eq!(place.rows(), 1);
}

/// An address whose first connection ends as soon as it carries a call, naming the last stream that was looked at. What
/// connects later reaches `service`.
async fn front(service: SocketAddr, last_seen: u8) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        say_goodbye(listener.accept().await.unwrap().0, last_seen).await;
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(service).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut near, &mut far).await });
        }
    });
    addr
}

async fn say_goodbye(mut connection: TcpStream, last_seen: u8) {
    const PREFACE: usize = 24;
    const HEADERS: u8 = 1;
    connection.read_exact(&mut [0; PREFACE]).await.unwrap();
    loop {
        let mut head = [0; 9];
        connection.read_exact(&mut head).await.unwrap();
        let [high, middle, low, kind, ..] = head;
        let length = u32::from_be_bytes([0, high, middle, low]);
        connection.read_exact(&mut vec![0; length as usize]).await.unwrap();
        if kind == HEADERS {
            break;
        }
    }
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let go_away_without_an_error = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, last_seen, 0, 0, 0, 0];
    connection.write_all(&settings).await.unwrap();
    connection.write_all(&go_away_without_an_error).await.unwrap();
    connection.shutdown().await.unwrap();
    // What is on its way is read, as a close before that would overtake the goodbye.
    let _ = connection.read_to_end(&mut Vec::new()).await;
}
