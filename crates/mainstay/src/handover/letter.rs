//! [`Letter`]: listening sockets with their addresses, as one message of a Unix socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use mainstay_core::{Error, Result, ResultExt};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// The first word; a later version that says something else is not understood and not guessed at.
const VERSION: &str = "mainstay-handover-1";

/// The most sockets of one letter, and the longest text: two addresses of 58 characters and the version.
const MOST: usize = 4;
const LONGEST: usize = 512;

/// The sockets, each with the address that the settings of the service name.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) listeners: Vec<(SocketAddr, TcpListener)>,
}

impl Letter {
    /// Sends duplicates of the sockets.
    pub(super) async fn send(&self, stream: &UnixStream) -> Result<()> {
        let mut text = VERSION.to_owned();
        for (addr, _) in &self.listeners {
            text.push_str(&format!(" {addr}"));
        }
        text.push('\n');
        let sockets: Vec<_> = self.listeners.iter().map(|(_, listener)| listener.as_fd()).collect();
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&sockets));
            Ok(sendmsg(stream, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::empty())?)
        };
        // Far below any socket buffer: it goes as a whole or not at all.
        stream.async_io(Interest::WRITABLE, send).await.context("sending the listening sockets")?;
        Ok(())
    }

    /// Receives a letter; `None` if the other side closed instead.
    pub(super) async fn receive(stream: &UnixStream) -> Result<Option<Self>> {
        let (text, sockets) = stream.async_io(Interest::READABLE, || receive_once(stream)).await?;
        if text.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { listeners: read(&text, sockets)? }))
    }
}

fn receive_once(stream: &UnixStream) -> io::Result<(String, Vec<OwnedFd>)> {
    let mut bytes = [0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::empty())?;
    let mut sockets = Vec::new();
    for item in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = item {
            sockets.extend(received);
        }
    }
    for socket in &sockets {
        fcntl_setfd(socket, FdFlags::CLOEXEC)?; // a child process would keep the port open
    }
    Ok((String::from_utf8_lossy(&bytes[..message.bytes]).into_owned(), sockets))
}

fn read(text: &str, sockets: Vec<OwnedFd>) -> Result<Vec<(SocketAddr, TcpListener)>> {
    let not_understood =
        || Error::failed_precondition(format!("the running process speaks another version of the hand-over: {text:?}"));
    let words = text.strip_suffix('\n').and_then(|text| text.strip_prefix(VERSION)).ok_or_else(not_understood)?;
    let addresses: Vec<SocketAddr> =
        words.split_whitespace().map(str::parse).collect::<Result<_, _>>().map_err(|_| not_understood())?;
    if addresses.len() != sockets.len() {
        return Err(not_understood());
    }
    Ok(addresses.into_iter().zip(sockets.into_iter().map(TcpListener::from)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sockets_arrive_with_their_addresses_and_accept() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let listeners: Vec<_> = (0..2)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .map(|listener| (listener.local_addr().unwrap(), listener))
            .collect();
        let addr = listeners[1].0;
        Letter { listeners }.send(&ours).await.unwrap();
        let received = Letter::receive(&theirs).await.unwrap().unwrap();
        let (named, listener) = received.listeners.last().unwrap();
        assert_eq!((*named, listener.local_addr().unwrap()), (addr, addr));
        let _client = std::net::TcpStream::connect(addr).unwrap();
        listener.accept().unwrap();
    }

    #[tokio::test]
    async fn a_closed_stream_is_no_letter_and_another_version_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.try_write(b"mainstay-handover-9 x\n").unwrap();
        let error = Letter::receive(&theirs).await.unwrap_err();
        assert!(error.message().contains("another version"), "{error}");
        drop(ours);
        assert!(Letter::receive(&theirs).await.unwrap().is_none());
    }

    #[test]
    fn an_address_without_its_socket_is_refused() {
        assert!(read("mainstay-handover-1 127.0.0.1:80\n", Vec::new()).is_err());
        assert!(read("mainstay-handover-1 127.0.0.1\n", Vec::new()).is_err());
    }
}
