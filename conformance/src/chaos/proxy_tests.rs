//! The proxy does to a connection what it is told, and nothing else.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// A server that answers each byte string with the same, and a proxy to it.
async fn echo() -> Proxy {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let proxy = Proxy::to(listener.local_addr().unwrap()).await.unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.into_split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    proxy
}

async fn ask(stream: &mut TcpStream, text: &str) -> io::Result<String> {
    stream.write_all(text.as_bytes()).await?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

#[tokio::test]
async fn in_fair_weather_everything_passes() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    assert_eq!(ask(&mut stream, "COMMIT").await.unwrap(), "COMMIT");
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0, "half a close passes too");
    assert_eq!(proxy.broken(), 0);
}

#[tokio::test]
async fn a_cut_resets_what_is_open_and_spares_what_comes() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    ask(&mut stream, "one").await.unwrap();
    proxy.cut();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(ask(&mut connect(&proxy).await, "two").await.unwrap(), "two");
    assert_eq!(proxy.broken(), 1);
}

#[tokio::test]
async fn silence_holds_back_and_heals() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    ask(&mut stream, "one").await.unwrap();
    proxy.set(|weather| weather.silent = true);
    stream.write_all(b"two").await.unwrap();
    // Nothing can be awaited that shows that nothing comes; a pause that is too short would only hide a mistake.
    let nothing = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut [0; 8])).await;
    assert!(nothing.is_err(), "{nothing:?}");
    proxy.heal();
    let mut answer = [0; 3];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"two");
}

#[tokio::test]
async fn a_connection_is_reset_after_so_many_bytes() {
    let proxy = echo().await;
    proxy.set(|weather| weather.reset_after = Some(5));
    let mut stream = connect(&proxy).await;
    ask(&mut stream, "four").await.unwrap();
    let _ = ask(&mut stream, "and more").await;
    assert!(stream.read(&mut [0; 8]).await.is_err());
    assert_eq!(proxy.broken(), 1);
}

#[tokio::test]
async fn a_commit_is_cut_before_or_after_the_server_by_turns() {
    let proxy = echo().await;
    proxy.set(|weather| weather.at_commit = Some((AtCommit::ByTurns, 2)));
    for (round, passes) in [(1, true), (2, false), (3, true), (4, false)] {
        let mut stream = connect(&proxy).await;
        assert_eq!(ask(&mut stream, "BEGIN").await.unwrap(), "BEGIN");
        assert_eq!(ask(&mut stream, "COMMIT").await.is_ok(), passes, "{round}");
    }
    assert_eq!(proxy.broken(), 2);
}

#[tokio::test]
async fn what_is_frozen_is_counted_until_its_client_leaves() {
    let proxy = echo().await;
    let mut old = [connect(&proxy).await, connect(&proxy).await];
    for stream in &mut old {
        ask(stream, "one").await.unwrap();
    }
    assert_eq!(proxy.frozen(), 0);
    proxy.freeze();
    assert_eq!(proxy.frozen(), 2);
    let mut new = connect(&proxy).await;
    assert_eq!(ask(&mut new, "two").await.unwrap(), "two", "new connections are not touched");
    let [first, mut second] = old;
    second.write_all(b"nobody reads this").await.unwrap();
    drop(first);
    while proxy.frozen() == 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(proxy.frozen(), 1);
    drop(second);
    while proxy.frozen() == 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ask(&mut new, "three").await.unwrap(), "three");
}
