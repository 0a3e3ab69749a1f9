//! Binding the address and accepting connections.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{Code, Error, Result};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::connection::Connections;
use crate::tls::Tls;

/// How many connections the kernel may hold for us. It caps the number by its own limit (4096 on Linux).
const BACKLOG: u32 = 4096;

/// The pauses after an error of the listener itself, such as too many open files: from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// Listens on `address`, also where another process of the same user does if it is `shared`. `hint` tells how to choose
/// another address.
pub(crate) fn bind(address: SocketAddr, shared: bool, hint: &str) -> Result<TcpListener> {
    let listen = || -> io::Result<TcpListener> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Without it a restart fails for a minute while old connections are in TIME_WAIT.
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        #[cfg(unix)]
        socket.set_reuseport(shared)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|error| refusal(address, hint, error))
}

/// Which failures are worth another try: an address that isn't there yet. A port that someone else holds is not.
fn refusal(address: SocketAddr, hint: &str, error: io::Error) -> Error {
    let hint = if hint.is_empty() { String::new() } else { format!(" ({hint})") };
    let (code, message) = match error.kind() {
        ErrorKind::AddrInUse => (
            Code::FailedPrecondition,
            format!("can't listen on {address}: another program does; stop it or choose another address{hint}"),
        ),
        ErrorKind::PermissionDenied => (
            Code::FailedPrecondition,
            format!(
                "can't listen on {address}: not permitted; ports below 1024 need a privilege, choose another{hint}"
            ),
        ),
        _ => (Code::Unavailable, format!("can't listen on {address}: {error}{hint}")),
    };
    Error::new(code, message).with_source(error)
}

/// Accepts until the server drains, then takes what the kernel has queued and closes the listener.
///
/// While the connection limit is reached nothing is accepted: new connections wait in the kernel's queue.
pub(crate) async fn accept(listener: TcpListener, connections: Arc<Connections>, tls: Option<Arc<Tls>>) {
    let places = Arc::new(Semaphore::new(connections.limits().max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let draining = connections.lifeline().draining().clone();
    let mut pause = PAUSES.0;
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await.ok();
            (listener.accept().await, place)
        };
        let Some((accepted, place)) = draining.run_until_cancelled(next).await else { break };
        match accepted {
            Ok((stream, peer)) => {
                pause = PAUSES.0;
                serve(&connections, &tls, stream, peer, place);
            }
            Err(error) if belongs_to_the_connection(&error) => {}
            Err(error) => {
                tracing::error!(target: "mainstay::http", %error, ?pause, "can't accept connections; trying again");
                draining.run_until_cancelled(tokio::time::sleep(pause)).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    }
    if let Ok(listener) = listener.into_std() {
        serve_queued(&listener, &connections, &tls);
    }
}

/// Connections that the kernel has completed have been promised to their clients; closing the listener would reset
/// them. They stand outside the connection limit, which has no one to keep waiting any more.
fn serve_queued(listener: &StdListener, connections: &Arc<Connections>, tls: &Option<Arc<Tls>>) {
    while let Ok((stream, peer)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            serve(connections, tls, stream, peer, None);
        }
    }
}

fn serve(
    connections: &Arc<Connections>,
    tls: &Option<Arc<Tls>>,
    stream: TcpStream,
    peer: SocketAddr,
    place: Option<OwnedSemaphorePermit>,
) {
    // Without it a response that is written in two parts waits for the client's delayed ACK, up to 40 ms.
    let _ = stream.set_nodelay(true);
    let (shared, lifeline) = (connections.clone(), connections.lifeline());
    // Two tasks and not one with two ways: a task is as large as its largest way, ten thousand times.
    match tls.clone() {
        None => lifeline.spawn(async move { shared.serve(stream, peer, place).await }),
        Some(tls) => lifeline.spawn(async move {
            match tls.handshake(stream, shared.lifeline().draining()).await {
                Ok(stream) => shared.serve(stream, peer, place).await,
                // Scanners, old clients, clients without our root: many and not ours to mend.
                Err(error) => tracing::debug!(target: "mainstay::http", %peer, %error, "no TLS"),
            }
        }),
    }
}

/// Errors that tell about one connection, which is gone; the listener is fine.
fn belongs_to_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_named_with_the_way_out_and_never_retried() {
        let holder = bind("127.0.0.1:0".parse().unwrap(), false, "").unwrap();
        let address = holder.local_addr().unwrap();
        let error = bind(address, false, "set SHOP_HTTP__ADDR").unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert!(error.message().contains(&address.to_string()), "{error}");
        assert!(error.message().ends_with("(set SHOP_HTTP__ADDR)"), "{error}");
        assert!(error.is::<io::Error>());
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_worth_another_try() {
        let error = bind("192.0.2.1:80".parse().unwrap(), false, "").unwrap_err();
        assert_ne!(error.code(), Code::Internal);
        assert!(error.message().contains("192.0.2.1:80"), "{error}");
    }

    #[test]
    fn only_errors_of_one_connection_are_passed_over_at_once() {
        assert!(belongs_to_the_connection(&io::Error::from(ErrorKind::ConnectionAborted)));
        let too_many_files = io::Error::from_raw_os_error(24);
        assert!(!belongs_to_the_connection(&too_many_files));
    }
}
