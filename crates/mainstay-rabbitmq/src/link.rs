//! [`Link`]: a connection that is made when it is first needed, and made again when it has broken.

use std::time::Duration;

use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties};
use mainstay_core::{Error, Result};
use tokio::sync::Mutex;
use tokio::time::timeout;

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
    connection: Mutex<Option<Connection>>,
}

impl Link {
    pub(crate) fn new(address: &Address, purpose: &'static str) -> Self {
        Self { servers: address.servers.clone(), purpose, connection: Mutex::default() }
    }

    /// A new channel.
    pub(crate) async fn channel(&self) -> Result<Channel> {
        let mut slot = self.connection.lock().await;
        if !slot.as_ref().is_some_and(|connection| connection.status().connected()) {
            *slot = None;
            *slot = Some(self.connect().await?);
        }
        let Some(connection) = slot.as_ref() else { return Err(Error::unavailable("not connected")) };
        let made = call("opening a channel", connection.create_channel()).await;
        if made.is_err() {
            // Whatever is wrong with it: the next one is a new one.
            *slot = None;
        }
        made
    }

    /// Whether the server reads nothing that is published now.
    pub(crate) async fn is_blocked(&self) -> bool {
        self.connection.lock().await.as_ref().is_some_and(|connection| connection.status().blocked())
    }

    /// Gives the connection up: it has fallen silent.
    pub(crate) async fn give_up(&self) {
        *self.connection.lock().await = None;
    }

    /// The first server that answers.
    async fn connect(&self) -> Result<Connection> {
        let mut failed = Error::unavailable("no server is known");
        for server in &self.servers {
            let properties = ConnectionProperties::default().with_connection_name(self.purpose.into());
            match call("connecting", Connection::connect_uri(server.clone(), properties)).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failed = error,
            }
        }
        Err(failed)
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
