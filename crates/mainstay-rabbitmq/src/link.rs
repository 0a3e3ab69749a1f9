//! [`Link`]: a connection that is made when it is first needed, and made again when it has broken.

use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use lapin::runtime::default_runtime;
use lapin::tcp::TLSConfig;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties};
use mainstay_core::{Error, Result};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::socket::{Opening, Socket};
use crate::url::Address;

/// In seconds: a connection on which nothing came for two of these is given up.
pub(crate) const HEARTBEAT: u16 = 5;

/// How long one call may take.
pub(crate) const CALL: Duration = Duration::from_secs(5);

/// One of a process's two connections. A server that has too little memory or disk stops to read from connections that
/// publish: what is read, and its acknowledgements, has another one.
pub(crate) struct Link {
    servers: Vec<AMQPUri>,
    purpose: &'static str,
    wire: Mutex<Option<Arc<Wire>>>,
}

/// A connection, which is closed when neither its link nor a channel has it any more.
struct Wire {
    connection: Arc<Connection>,
    socket: Socket,
}

/// A channel, and its part of the connection.
#[derive(Clone)]
pub(crate) struct Line {
    channel: Channel,
    _wire: Arc<Wire>,
}

impl Link {
    pub(crate) fn new(address: &Address, purpose: &'static str) -> Self {
        Self { servers: address.servers.clone(), purpose, wire: Mutex::default() }
    }

    /// A new channel.
    pub(crate) async fn channel(&self) -> Result<Line> {
        let mut slot = self.wire.lock().await;
        if !slot.as_ref().is_some_and(|wire| wire.connection.status().connected()) {
            *slot = None;
            *slot = Some(Arc::new(self.connect().await?));
        }
        let Some(wire) = slot.clone() else { return Err(Error::unavailable("not connected")) };
        let made = call("opening a channel", wire.connection.create_channel()).await;
        if made.is_err() {
            // Whatever is wrong with it: the next one is a new one.
            *slot = None;
        }
        Ok(Line { channel: made?, _wire: wire })
    }

    /// Whether the server reads nothing that is published now.
    pub(crate) async fn is_blocked(&self) -> bool {
        self.wire.lock().await.as_ref().is_some_and(|wire| wire.connection.status().blocked())
    }

    /// Gives the connection up: it has fallen silent.
    pub(crate) async fn give_up(&self) {
        *self.wire.lock().await = None;
    }

    /// The first server that answers.
    async fn connect(&self) -> Result<Wire> {
        let mut failed = Error::unavailable("no server is known");
        for server in &self.servers {
            match Wire::to(server, self.purpose).await {
                Ok(wire) => return Ok(wire),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

impl Wire {
    /// A connection to one server. One that isn't there in time, or isn't wanted any more, is ended.
    async fn to(server: &AMQPUri, purpose: &str) -> Result<Self> {
        let socket = Socket::default();
        let mut opening = Opening(Some(socket.clone()));
        let held = socket.clone();
        let properties = ConnectionProperties::default().with_connection_name(purpose.into());
        let connecting = Connection::connector(
            server.clone(),
            default_runtime().map_err(|error| unavailable("connecting", error))?,
            // In lapin's thread, which nobody else ends while there is no socket.
            async move |server: AMQPUri, runtime| {
                let opened = async {
                    let (host, port) = (server.authority.host, server.authority.port);
                    let addresses = runtime.to_socket_addrs((host.clone(), port));
                    let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
                    if let AsyncTcpStream::Plain(stream) = &stream {
                        held.hold(stream.get_ref())?;
                    }
                    match server.scheme {
                        AMQPScheme::AMQP => Ok(stream),
                        AMQPScheme::AMQPS => stream.into_tls(&host, TLSConfig::default()).await,
                    }
                };
                Ok(timeout(CALL, opened).await.map_err(io::Error::from)??)
            },
            properties,
        );
        let connection = call("connecting", connecting).await?.into();
        opening.0 = None;
        Ok(Self { connection, socket })
    }
}

impl Deref for Line {
    type Target = Channel;

    fn deref(&self) -> &Channel {
        &self.channel
    }
}

impl Drop for Wire {
    /// Closes it: with a word to the server, and then without.
    fn drop(&mut self) {
        let (connection, socket) = (self.connection.clone(), self.socket.clone());
        // Without a runtime the process ends.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let _ = call("closing", connection.close(200, "done".into())).await;
                socket.close();
            });
        }
    }
}

/// A call that the server has to answer in time.
pub(crate) async fn call<T>(what: &'static str, work: impl Future<Output = lapin::Result<T>>) -> Result<T> {
    match timeout(CALL, work).await {
        Ok(answer) => answer.map_err(|error| unavailable(what, error)),
        Err(_) => Err(Error::unavailable("RabbitMQ didn't answer in time").context(format!("{what} on RabbitMQ"))),
    }
}

/// The error of a call that the server didn't answer, or not as it has to.
pub(crate) fn unavailable(what: &'static str, error: lapin::Error) -> Error {
    Error::unavailable("the broker can't be reached now, try again")
        .context(format!("{what} on RabbitMQ"))
        .with_source(error)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_handshake_that_is_given_up_leaves_no_socket() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::parse(&format!("amqp://{}", server.local_addr().unwrap())).unwrap();
        let link = Link::new(&address, "test");
        let greeted = async {
            let (mut client, _) = server.accept().await.unwrap();
            client.read_exact(&mut [0; 8]).await.unwrap();
            client
        };
        let mut client = tokio::select! {
            _ = link.channel() => panic!("nobody has answered"),
            client = greeted => client,
        };
        let end = timeout(Duration::from_secs(60), client.read(&mut [0])).await;
        assert_eq!(end.unwrap().unwrap(), 0);
    }
}
