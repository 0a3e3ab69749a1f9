//! Opening connections, and the second connections that carry cancel requests.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mainstay_core::{Error, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::TlsConnect;
use tokio_postgres::{CancelToken, Client, Config, NoTls};
use tokio_util::sync::CancellationToken;

use super::connection::PgConnection;
use super::fault;
use super::tls::Tls;
use crate::fault::{DatabaseError, DatabaseErrorKind};
use crate::settings::{DatabaseSettings, Host, Server, TlsMode};

/// Opens connections to one server.
pub(super) struct Connector {
    server: Server,
    /// Without TLS.
    config: Config,
    tls: Option<Tls>,
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
    /// As the connection itself, so that the key of a cancel request is no easier to listen to.
    tls: Option<Tls>,
}

/// Where exactly a connection went: a cancel request has to reach the same server, and a name may have many.
#[derive(Clone)]
enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Connector {
    /// # Errors
    /// `FailedPrecondition` if the root certificates can't be read.
    pub(super) fn new(settings: &DatabaseSettings, server: &Server, cut: CancellationToken) -> Result<Self> {
        let mut config = Config::new();
        config.user(&server.user).ssl_mode(SslMode::Disable);
        config.application_name(server.application_name.as_deref().unwrap_or("mainstay"));
        if let Some(database) = &server.database {
            config.dbname(database);
        }
        if let Some(password) = &server.password {
            config.password(password);
        }
        let tls = match &server.host {
            Host::Tcp { name, .. } => Tls::new(&server.tls, name)?,
            Host::Unix(_) => None,
        };
        Ok(Self {
            server: server.clone(),
            config,
            tls,
            timeout: settings.connect_timeout,
            statement_cache: settings.statement_cache,
            cut,
        })
    }

    /// A connection that speaks UTF-8 and UTC.
    pub(super) async fn connect(&self) -> Result<PgConnection> {
        match tokio::time::timeout(self.timeout, self.open()).await {
            Ok(opened) => opened.map_err(|error| error.context(format!("connecting to PostgreSQL at {}", self.server))),
            Err(_) => Err(lost(format!("{} didn't answer within {:?}", self.server, self.timeout))),
        }
    }

    async fn open(&self) -> Result<PgConnection> {
        let (client, canceler, task) = match &self.server.host {
            Host::Tcp { name, port } => self.open_tcp(name, *port).await?,
            Host::Unix(path) => {
                let socket = UnixStream::connect(path).await.map_err(|error| self.unreachable(error))?;
                let (client, task) =
                    self.start(&self.config, socket, NoTls).await.map_err(|error| self.refusal(error))?;
                let (token, address) = (client.cancel_token(), Address::Unix(path.clone()));
                (client, Canceler { token, address, tls: None }, task)
            }
        };
        let connection = PgConnection::new(client, canceler, task, self.statement_cache);
        connection.configure().await?;
        Ok(connection)
    }

    async fn open_tcp(&self, name: &str, port: u16) -> Result<(Client, Canceler, AbortHandle)> {
        let connect = async || {
            let socket = TcpStream::connect((name, port)).await?;
            socket.set_nodelay(true)?;
            let address = Address::Tcp(socket.peer_addr()?);
            Ok::<_, io::Error>((socket, address))
        };
        let prefer = self.server.tls.mode == TlsMode::Prefer;
        if let Some(tls) = &self.tls {
            let mut config = self.config.clone();
            config.ssl_mode(if prefer { SslMode::Prefer } else { SslMode::Require });
            let (socket, address) = connect().await.map_err(|error| self.unreachable(error))?;
            match self.start(&config, socket, tls.clone()).await {
                Ok((client, task)) => {
                    let token = client.cancel_token();
                    return Ok((client, Canceler { token, address, tls: Some(tls.clone()) }, task));
                }
                // As libpq: TLS that doesn't come about is worth no more than none, where none would do.
                Err(error) if prefer && fault::tls_failed(&error) => {
                    tracing::debug!(target: "mainstay::sql", server = %self.server, %error, "no TLS with PostgreSQL");
                }
                Err(error) => return Err(self.refusal(error)),
            }
        }
        let (socket, address) = connect().await.map_err(|error| self.unreachable(error))?;
        let (client, task) = self.start(&self.config, socket, NoTls).await.map_err(|error| self.refusal(error))?;
        let token = client.cancel_token();
        Ok((client, Canceler { token, address, tls: None }, task))
    }

    fn unreachable(&self, error: io::Error) -> Error {
        lost(format!("{}: {error}", self.server))
    }

    fn refusal(&self, error: tokio_postgres::Error) -> Error {
        fault::refused_login(&error, &self.server)
            .or_else(|| fault::refused_tls(&error, &self.server))
            .unwrap_or_else(|| fault::error(error))
    }

    async fn start<S, T>(
        &self,
        config: &Config,
        socket: S,
        tls: T,
    ) -> Result<(Client, AbortHandle), tokio_postgres::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: TlsConnect<S, Stream: Send + 'static>,
    {
        let (client, connection) = config.connect_raw(socket, tls).await?;
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
        let sent = match &self.tls {
            Some(tls) => self.token.cancel_query_raw(&mut socket, tls.clone()).await,
            None => self.token.cancel_query_raw(&mut socket, NoTls).await,
        };
        sent.map_err(fault::error)?;
        let mut nothing = [0; 16];
        while socket.read(&mut nothing).await? > 0 {}
        Ok(())
    }
}

fn lost(message: String) -> Error {
    DatabaseError::new(DatabaseErrorKind::ConnectionLost, "08001", message).into_error()
}
