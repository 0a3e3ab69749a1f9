//! Opening connections, and the second connections that carry cancel requests.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mainstay_core::{Error, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::config::SslMode;
use tokio_postgres::{CancelToken, Client, Config, NoTls};
use tokio_util::sync::CancellationToken;

use super::connection::PgConnection;
use super::fault;
use crate::fault::{DatabaseError, DatabaseErrorKind};
use crate::settings::{DatabaseSettings, Host, Server};

/// Opens connections to one server.
pub(super) struct Connector {
    server: Server,
    config: Config,
    timeout: Duration,
    statement_cache: usize,
    /// Cuts every connection when the driver is closed.
    cut: CancellationToken,
}

/// Stops what one connection runs, from outside.
#[derive(Clone)]
pub(super) struct Canceler {
    token: CancelToken,
    address: Address,
}

/// Where exactly a connection went: a cancel request has to reach the same server, and a name may have many.
#[derive(Clone)]
enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Connector {
    pub(super) fn new(settings: &DatabaseSettings, server: &Server, cut: CancellationToken) -> Self {
        let mut config = Config::new();
        config.user(&server.user).ssl_mode(SslMode::Disable);
        config.application_name(server.application_name.as_deref().unwrap_or("mainstay"));
        if let Some(database) = &server.database {
            config.dbname(database);
        }
        if let Some(password) = &server.password {
            config.password(password);
        }
        Self {
            server: server.clone(),
            config,
            timeout: settings.connect_timeout,
            statement_cache: settings.statement_cache,
            cut,
        }
    }

    /// A connection that speaks UTF-8 and UTC.
    pub(super) async fn connect(&self) -> Result<PgConnection> {
        match tokio::time::timeout(self.timeout, self.open()).await {
            Ok(opened) => opened.map_err(|error| error.context(format!("connecting to PostgreSQL at {}", self.server))),
            Err(_) => Err(lost(format!("{} didn't answer within {:?}", self.server, self.timeout))),
        }
    }

    async fn open(&self) -> Result<PgConnection> {
        let unreachable = |error: std::io::Error| lost(format!("{}: {error}", self.server));
        let (client, address, task) = match &self.server.host {
            Host::Tcp { name, port } => {
                let socket = TcpStream::connect((name.as_str(), *port)).await.map_err(unreachable)?;
                socket.set_nodelay(true).map_err(unreachable)?;
                let address = Address::Tcp(socket.peer_addr().map_err(unreachable)?);
                let (client, task) = self.start(socket).await?;
                (client, address, task)
            }
            Host::Unix(path) => {
                let socket = UnixStream::connect(path).await.map_err(unreachable)?;
                let (client, task) = self.start(socket).await?;
                (client, Address::Unix(path.clone()), task)
            }
        };
        let canceler = Canceler { token: client.cancel_token(), address };
        let connection = PgConnection::new(client, canceler, task, self.statement_cache);
        connection.configure().await?;
        Ok(connection)
    }

    async fn start<S>(&self, socket: S) -> Result<(Client, tokio::task::AbortHandle)>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (client, connection) = self.config.connect_raw(socket, NoTls).await.map_err(|error| {
            let refused = fault::refused_login(&error, &self.server);
            refused.unwrap_or_else(|| fault::error(error))
        })?;
        let cut = self.cut.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::debug!(target: "mainstay::sql", %error, "connection to PostgreSQL ended");
                    }
                }
                () = cut.cancelled() => {}
            }
        });
        Ok((client, task.abort_handle()))
    }
}

impl Canceler {
    /// Asks the server to stop and waits until it has passed that on: once the server has closed the socket, the signal
    /// was sent and can't hit a statement that begins later.
    pub(super) async fn cancel(&self) -> Result<()> {
        match &self.address {
            Address::Tcp(address) => self.send(TcpStream::connect(address).await?).await,
            Address::Unix(path) => self.send(UnixStream::connect(path).await?).await,
        }
    }

    async fn send<S: AsyncRead + AsyncWrite + Unpin>(&self, mut socket: S) -> Result<()> {
        self.token.cancel_query_raw(&mut socket, NoTls).await.map_err(fault::error)?;
        let mut nothing = [0; 16];
        while socket.read(&mut nothing).await? > 0 {}
        Ok(())
    }
}

fn lost(message: String) -> Error {
    DatabaseError::new(DatabaseErrorKind::ConnectionLost, "08001", message).into_error()
}
