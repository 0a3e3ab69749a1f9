//! [`Socket`]: a second hand on a connection's socket.
//!
//! Each connection of lapin has a thread that waits for what the server says, and nothing ends that wait while nothing can
//! be heard: neither of its first words, as heartbeats begin after them, nor of its last, as they end before those. Such
//! connections are ended here, by their sockets.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A clone is the same one.
#[derive(Clone, Default)]
pub(crate) struct Socket(Arc<Mutex<State>>);

#[derive(Default)]
enum State {
    #[default]
    Awaited,
    Open(TcpStream),
    Closed,
}

/// Closes a socket when it is dropped, unless its connection is there.
pub(crate) struct Opening(pub(crate) Option<Socket>);

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(socket) = &self.0 {
            socket.close();
        }
    }
}

impl Socket {
    /// It is `stream` that is to be closed; an error if it was closed before there was one.
    pub(crate) fn hold(&self, stream: &impl AsFd) -> io::Result<()> {
        let mut state = self.state();
        if matches!(*state, State::Closed) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        *state = State::Open(stream.as_fd().try_clone_to_owned()?.into());
        Ok(())
    }

    /// Ends the connection, wherever it is.
    pub(crate) fn close(&self) {
        if let State::Open(stream) = std::mem::replace(&mut *self.state(), State::Closed) {
            let _ = stream.shutdown(Shutdown::Both); // an error: it has ended
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
