//! Listening sockets from the service manager (`LISTEN_FDS`).
//!
//! The manager owns the sockets: connections wait in their queue while the service restarts, and none is refused.

use std::env;
use std::net::TcpListener;

use listenfd::ListenFd;
use mainstay_core::{Error, Result, ResultExt};

/// The sockets that the manager opened for this process.
#[derive(Debug, Default)]
pub(crate) struct Activation {
    pub(crate) http: Option<TcpListener>,
    pub(crate) admin: Option<TcpListener>,
}

impl Activation {
    /// Takes the sockets that `LISTEN_FDS` announces, if `LISTEN_PID` means this process.
    ///
    /// `LISTEN_FDNAMES` tells them apart: `http` and `admin`. Without these names the first is the service's port and the
    /// second the admin port. Call it while there is one thread: it removes the variables, so that no child process
    /// takes itself for the one that is meant.
    ///
    /// # Errors
    /// Something that is not a listening TCP socket, or more of them than the service has ports.
    pub(crate) fn take() -> Result<Self> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut announced = ListenFd::from_env();
        let mut sockets = Vec::with_capacity(announced.len());
        for index in 0..announced.len() {
            let socket = announced.take_tcp_listener(index);
            let socket =
                socket.with_context(|| format!("socket {index} of LISTEN_FDS is not a listening TCP socket"))?;
            sockets.extend(socket);
        }
        Self::assign(&names, sockets)
    }

    fn assign(names: &str, sockets: Vec<TcpListener>) -> Result<Self> {
        let count = sockets.len();
        let names: Vec<&str> = names.split(':').collect();
        let named = names.iter().any(|name| ["http", "admin"].contains(name));
        let mut found = Self::default();
        for (index, socket) in sockets.into_iter().enumerate() {
            let place = match (named, names.get(index), index) {
                (true, Some(&"http"), _) | (false, _, 0) => &mut found.http,
                (true, Some(&"admin"), _) | (false, _, 1) => &mut found.admin,
                (_, name, _) => {
                    let name = name.unwrap_or(&"");
                    return Err(Error::failed_precondition(format!(
                        "socket {index} of the {count} in LISTEN_FDS, named {name:?}, has no port it could be for: \
                         name them http and admin (FileDescriptorName= of the socket unit)"
                    )));
                }
            };
            if place.replace(socket).is_some() {
                return Err(Error::failed_precondition(
                    "two sockets in LISTEN_FDS have the same name: a service listens on one socket for each port",
                ));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(count: usize) -> Vec<TcpListener> {
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect()
    }

    #[test]
    fn names_decide_and_without_them_the_order_does() {
        let pair = sockets(2);
        let second = pair[1].local_addr().unwrap();
        let found = Activation::assign("admin:http", pair).unwrap();
        assert_eq!(found.http.unwrap().local_addr().unwrap(), second);
        assert!(found.admin.is_some());
        let found = Activation::assign("", sockets(1)).unwrap();
        assert!(found.http.is_some() && found.admin.is_none());
        let found = Activation::assign("fixture.socket:fixture.socket", sockets(2)).unwrap();
        assert!(found.http.is_some() && found.admin.is_some());
    }

    #[test]
    fn a_socket_that_would_be_listened_on_by_nobody_is_refused() {
        for (names, count) in [("", 3), ("http:http", 2), ("http:metrics", 2)] {
            let error = Activation::assign(names, sockets(count)).unwrap_err();
            assert!(error.message().contains("LISTEN_FDS"), "{error}");
        }
    }
}
