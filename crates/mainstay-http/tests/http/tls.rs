//! HTTPS: who is trusted, which protocol, and a certificate that changes while the server runs.

use std::sync::Arc;
use std::time::Duration;

use axum::http::Version;
use axum::routing::get;
use mainstay_core::{Code, Component, Context};
use mainstay_http::{Client, HttpSettings, Routes, Server, TlsSettings};
use mainstay_telemetry::Metrics;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificates::{Authority, Certificate, Folder};
use crate::scene::{Logs, Scene, settings};

/// As often as a test wants to see a change.
const OFTEN: Duration = Duration::from_millis(5);

const LONG: Duration = Duration::from_secs(30);

fn routes() -> Routes {
    Routes::new().route_axum("/", get(async |version: Version| format!("{version:?}")))
}

async fn scene(tls: TlsSettings) -> Scene {
    Scene::with(HttpSettings { tls: Some(tls), ..settings() }, routes()).await
}

fn url(scene: &Scene) -> String {
    format!("https://{}/", scene.addr)
}

fn client(authority: &Authority) -> Client {
    Client::new().unwrap().with_root_certificate(authority.pem()).unwrap()
}

/// A TLS connection that trusts `authority` and offers `protocols`.
async fn connect(scene: &Scene, authority: &Authority, protocols: &[&str]) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.der())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(scene.addr).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

fn shown(stream: &TlsStream<TcpStream>) -> &[u8] {
    &stream.get_ref().1.peer_certificates().unwrap()[0]
}

/// One request over a connection that stays open.
async fn ask(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"HTTP/1.1") || !answer.windows(4).any(|window| window == b"\r\n\r\n") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer).unwrap()
}

/// Opens new connections until one is shown `wanted`.
async fn until_shown(scene: &Scene, authority: &Authority, wanted: &Certificate) {
    while shown(&connect(scene, authority, &[]).await) != wanted.der {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_protocol_is_chosen_by_alpn() {
    let authority = Authority::new();
    let folder = Folder::with(&authority.local());
    let scene = scene(folder.settings()).await;
    for (offered, taken) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let stream = connect(&scene, &authority, offered).await;
        let chosen = stream.get_ref().1.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
        assert_eq!(chosen.as_deref(), taken, "{offered:?}");
    }
    let ctx = Context::background();
    let reply = client(&authority).get(url(&scene)).send(&ctx).await.unwrap();
    assert_eq!(reply.text().await.unwrap(), "HTTP/2.0");
    assert!(ask(&mut connect(&scene, &authority, &["http/1.1"]).await).await.starts_with("HTTP/1.1 200"));
    assert!(ask(&mut connect(&scene, &authority, &[]).await).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_client_that_pauses_is_answered_again() {
    let authority = Authority::new();
    let folder = Folder::with(&authority.local());
    let scene = scene(folder.settings()).await;
    let mut stream = connect(&scene, &authority, &["http/1.1"]).await;
    for _ in 0..3 {
        assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200"));
        // The pause is the client's: after 100 ms the server keeps nothing of the connection but its TLS.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(scene.stop(LONG).await.is_empty());
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "not told goodbye by TLS");
}

#[tokio::test]
async fn a_server_that_is_not_the_one_meant_is_refused_by_the_client() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    for (what, certificate, said) in [
        ("unknown authority", stranger.local(), "UnknownIssuer"),
        ("another host", authority.for_another_host(), "not valid for name"),
        ("expired", authority.expired(), "expired"),
    ] {
        let folder = Folder::with(&certificate);
        let scene = scene(folder.settings()).await;
        let error = client(&authority).get(url(&scene)).send(&Context::background()).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{what}: {error:?}");
        assert!(format!("{error:?}").contains(said), "{what}: {error:?}");
    }
    let folder = Folder::with(&authority.local());
    let scene = scene(folder.settings()).await;
    let error = Client::new().unwrap().get(url(&scene)).send(&Context::background()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "without the root: {error:?}");
}

#[tokio::test]
async fn what_is_no_root_certificate_is_refused() {
    for pem in ["", "no pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert!(Client::new().unwrap().with_root_certificate(pem).is_err(), "{pem:?}");
    }
}

#[tokio::test]
async fn new_connections_get_the_new_certificate_and_open_ones_go_on() {
    let authority = Authority::new();
    let (first, second) = (authority.local(), authority.local());
    let folder = Folder::with(&first);
    let scene = scene(TlsSettings { reload_interval: OFTEN, ..folder.settings() }).await;
    let mut open = connect(&scene, &authority, &[]).await;
    assert_eq!(shown(&open), first.der);
    ask(&mut open).await;
    folder.put(&second);
    until_shown(&scene, &authority, &second).await;
    for _ in 0..3 {
        ask(&mut open).await;
    }
    assert!(scene.stop(LONG).await.is_empty());
}

#[tokio::test]
async fn a_broken_new_certificate_is_logged_by_name_and_the_old_one_stays() {
    let logs = Logs::capture();
    let authority = Authority::new();
    let (first, second) = (authority.local(), authority.local());
    let folder = Folder::with(&first);
    let scene = scene(TlsSettings { reload_interval: OFTEN, ..folder.settings() }).await;
    let told = |what: &str| {
        let errors = logs.of("mainstay::http").into_iter().filter(|line| line["level"] == "ERROR");
        errors.filter(|line| line["error"].as_str().unwrap().contains(what)).count()
    };
    // The key of another certificate, nothing at all, no file: each is told, and each leaves the server as it was.
    std::fs::write(folder.certificate(), &second.certificate).unwrap();
    let key = folder.private_key().display().to_string();
    let mismatch = format!("{key} can't be used: it is not the key of the certificate");
    while told(&mismatch) == 0 {
        assert_eq!(shown(&connect(&scene, &authority, &[]).await), first.der);
    }
    std::fs::write(folder.private_key(), "").unwrap();
    while told("there is no private key in it") == 0 {
        assert_eq!(shown(&connect(&scene, &authority, &[]).await), first.der);
    }
    std::fs::remove_file(folder.private_key()).unwrap();
    while told("No such file") == 0 {
        assert_eq!(shown(&connect(&scene, &authority, &[]).await), first.der);
    }
    folder.put(&second);
    until_shown(&scene, &authority, &second).await;
    assert_eq!(told(&mismatch), 1, "a mistake is told once");
}

#[tokio::test]
async fn a_certificate_that_can_not_be_used_stops_the_start_and_is_named() {
    let authority = Authority::new();
    let (one, other) = (authority.local(), authority.local());
    let folder = Folder::with(&one);
    let (certificate, key) = (folder.certificate(), folder.private_key());
    let pem = |text: &str| text.to_owned();
    for (file, content, said) in [
        (&certificate, None, "No such file"),
        (&certificate, Some(pem("")), "there is no certificate in it"),
        (&certificate, Some(one.private_key.clone()), "there is no certificate in it"),
        (&certificate, Some(pem("-----BEGIN CERTIFICATE-----\n!")), "no PEM file"),
        (&certificate, Some(pem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")), "invalid"),
        (&key, None, "No such file"),
        (&key, Some(one.certificate.clone()), "there is no private key in it"),
        (&key, Some(other.private_key), "not the key of the certificate in"),
    ] {
        folder.put(&one);
        match &content {
            Some(content) => std::fs::write(file, content).unwrap(),
            None => std::fs::remove_file(file).unwrap(),
        }
        let limits = HttpSettings { tls: Some(folder.settings()), ..settings() };
        let server = Server::new("http", limits, routes(), &Metrics::new());
        let error = server.start(&Context::background()).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{content:?}: {error}");
        let names_it = error.message().contains(&file.display().to_string());
        assert!(names_it && error.message().contains(said), "{content:?}: {error}");
        assert_eq!(server.local_addr(), None, "nothing listens");
    }
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_cut_and_counts_as_a_connection() {
    let authority = Authority::new();
    let folder = Folder::with(&authority.local());
    let tls = TlsSettings { handshake_timeout: Duration::from_millis(100), ..folder.settings() };
    let scene = Scene::with(HttpSettings { max_connections: 1, tls: Some(tls), ..settings() }, routes()).await;
    let silent = scene.connect().await;
    // It waits for the only place, which the silent connection gives up when its time is over.
    ask(&mut connect(&scene, &authority, &[]).await).await;
    assert!(silent.closed().await.is_empty());
    let mut plain = scene.connect().await;
    plain.request("GET /", "", "").await;
    let alert = plain.closed().await;
    assert!(!alert.starts_with(b"HTTP"), "plain HTTP gets no answer: {alert:?}");
    ask(&mut connect(&scene, &authority, &[]).await).await;
}

#[tokio::test]
async fn a_drain_waits_for_requests_and_not_for_silent_handshakes() {
    let authority = Authority::new();
    let folder = Folder::with(&authority.local());
    let scene = scene(TlsSettings { handshake_timeout: LONG * 10, ..folder.settings() }).await;
    let silent = scene.connect().await;
    let mut open = connect(&scene, &authority, &[]).await;
    ask(&mut open).await;
    assert!(scene.stop(LONG).await.is_empty());
    assert!(silent.closed().await.is_empty());
    assert_eq!(open.read(&mut [0; 1]).await.unwrap(), 0, "ended by a close_notify");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let authority = Authority::new();
    let folder = Folder::with(&authority.local());
    let limits = HttpSettings { write_timeout: Duration::from_millis(50), tls: Some(folder.settings()), ..settings() };
    let (answered, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let large = Routes::new().route_axum(
        "/",
        get(async move || {
            answered.send(()).unwrap();
            vec![b'x'; 64 << 20]
        }),
    );
    let scene = Scene::with(limits, large).await;
    let mut stream = connect(&scene, &authority, &[]).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    answers.recv().await.unwrap();
    // Not one byte is read until the server has let go: it has nothing left to drain.
    assert!(scene.stop(LONG).await.is_empty());
    let mut taken = Vec::new();
    let _ = stream.read_to_end(&mut taken).await; // broken off without a close_notify, or reset
    assert!(taken.len() < 64 << 20, "{}", taken.len());
}
