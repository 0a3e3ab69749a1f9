//! [`BrokerServer`]: a NATS or RabbitMQ that may be stopped, because nobody else uses it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use mainstay::prelude::*;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::{ChildStdin, Command};
use tokio::time::Instant;

use super::server;
use crate::process::{self, Process};

/// What carries the events of a cell.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Carrier {
    /// The database that they are published in.
    #[default]
    Embedded,
    /// The broker of the test's own, in a file: one as moody as brokers are.
    Moody,
    /// A NATS server of the cell's own.
    Nats,
    /// A RabbitMQ server of the cell's own.
    RabbitMq,
}

impl Carrier {
    /// As it stands behind the database in the name of a cell.
    pub fn suffix(self) -> &'static str {
        match self {
            Carrier::Embedded | Carrier::Moody => "",
            Carrier::Nats => "+nats",
            Carrier::RabbitMq => "+rabbitmq",
        }
    }

    /// As it stands in the table.
    pub fn title(self) -> &'static str {
        match self {
            Carrier::Embedded | Carrier::Moody => "",
            Carrier::Nats => " with NATS",
            Carrier::RabbitMq => " with RabbitMQ",
        }
    }

    /// Whether its program is there; if not, a sentence about what is missing.
    ///
    /// # Errors
    /// That sentence.
    pub fn installed(self) -> Result<(), String> {
        match self.program() {
            Some(program) if server::find(program).is_none() => Err(format!("{program} is not installed here")),
            _ => Ok(()),
        }
    }

    fn program(self) -> Option<&'static str> {
        match self {
            Carrier::Embedded | Carrier::Moody => None,
            Carrier::Nats => Some("nats-server"),
            Carrier::RabbitMq => Some("rabbitmq-server"),
        }
    }
}

/// By its name it is known what the streams of RabbitMQ are.
const COORDINATOR: &[u8] = b"rabbit_stream_coordinator";

/// A server without streams never writes it.
const SETTLED: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);

/// A server with data and a port of its own. It ends with this value.
#[derive(Debug)]
pub struct BrokerServer {
    carrier: Carrier,
    folder: TempDir,
    port: u16,
    /// Whether it speaks TLS and nothing else.
    tls: bool,
    /// With its standard input: RabbitMQ ends when that does.
    process: Option<(Process, ChildStdin)>,
}

impl BrokerServer {
    /// A new server with no data, ready; none for what is no server.
    ///
    /// # Errors
    /// When its program is missing.
    pub async fn start(carrier: Carrier) -> Result<Option<Self>> {
        if carrier.program().is_none() {
            return Ok(None);
        }
        let mut server = Self::new(carrier, false).await?;
        server.start_again().await?;
        Ok(Some(server))
    }

    /// A new server, ready, that speaks TLS only: with this certificate and its key, as PEM.
    ///
    /// # Errors
    /// When its program is missing.
    pub async fn start_with_tls(carrier: Carrier, certificate: &str, key: &str) -> Result<Self> {
        let mut server = Self::new(carrier, true).await?;
        fs::write(server.path("tls.crt"), certificate)?;
        fs::write(server.path("tls.key"), key)?;
        let (port, crt, key) = (server.port, server.path("tls.crt"), server.path("tls.key"));
        fs::write(
            server.path("tls.conf"),
            format!(
                "listeners.tcp = none\nlisteners.ssl.1 = 127.0.0.1:{port}\nssl_options.certfile = {}\n\
                 ssl_options.keyfile = {}\n",
                crt.display(),
                key.display()
            ),
        )?;
        server.start_again().await?;
        Ok(server)
    }

    async fn new(carrier: Carrier, tls: bool) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        if carrier == Carrier::RabbitMq && server::is_root() {
            server::run(Command::new("chown").arg("rabbitmq").arg(folder.path())).await?;
        }
        Ok(Self { carrier, folder, port: process::free_port().port(), tls, process: None })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts it on the same port, and waits until it takes connections.
    ///
    /// # Errors
    /// When its program is missing.
    pub async fn start_again(&mut self) -> Result<()> {
        let program = self.carrier.program().and_then(server::find);
        let program = program.ok_or_else(|| Error::unavailable("the broker is not installed here"))?;
        let path = |name: &str| self.path(name);
        let (mut command, ready) = if self.carrier == Carrier::Nats {
            let mut command = Command::new(program);
            command.args(["-a", "127.0.0.1", "-p"]).arg(self.port.to_string()).arg("-js").arg("-sd").arg(path("js"));
            if self.tls {
                command.arg("--tls").arg("--tlscert").arg(path("tls.crt")).arg("--tlskey").arg(path("tls.key"));
            }
            (command, "Server is ready")
        } else {
            let mut command = server::run_as_user("rabbitmq", "/usr/lib/rabbitmq/bin/rabbitmq-server".as_ref());
            command
                // One process instead of a script that waits for one, so that a signal meets the server.
                .env("RABBITMQ_ALLOW_INPUT", "1")
                .env("RABBITMQ_NODENAME", format!("rig{}@localhost", self.port))
                .env("RABBITMQ_DIST_PORT", process::free_port().port().to_string())
                .env("ERL_EPMD_ADDRESS", "127.0.0.1")
                .envs([("HOME", path("")), ("RABBITMQ_MNESIA_BASE", path("data")), ("RABBITMQ_LOG_BASE", path("log"))])
                .envs([("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins")), ("RABBITMQ_PID_FILE", path("pid"))]);
            if self.tls {
                command.env("RABBITMQ_CONFIG_FILE", path("tls.conf"));
            } else {
                command
                    .env("RABBITMQ_CONFIG_FILE", path("none"))
                    .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
                    .env("RABBITMQ_NODE_PORT", self.port.to_string());
            }
            (command, "completed with")
        };
        let mut process = Process::start(command.stdin(Stdio::piped()));
        let tether = process.stdin();
        process.says(ready).await;
        self.process = Some((process, tether));
        Ok(())
    }

    /// Whether a crash leaves what the server has stored. A RabbitMQ of 3.10 that has made its first streams writes the
    /// name of what knows where they are half a second after it has nothing else to do (Ra's `names.dets`): one that is
    /// killed before has all their data, and none of them again.
    fn outlives_a_crash(&self) -> bool {
        let node = format!("rig{}@localhost", self.port);
        let names = self.path("data").join(&node).join("coordination").join(&node).join("names.dets");
        let known = |names: Vec<u8>| names.windows(COORDINATOR.len()).any(|name| name == COORDINATOR);
        self.carrier != Carrier::RabbitMq || fs::read(names).is_ok_and(known)
    }

    /// Ends it: in order, or at once as in a crash.
    pub async fn stop(&mut self, at_once: bool) {
        let began = Instant::now();
        while at_once && !self.outlives_a_crash() && began.elapsed() < SETTLED {
            tokio::time::sleep(LOOK).await;
        }
        if let Some((process, tether)) = self.process.take() {
            process.signal(if at_once { Signal::KILL } else { Signal::TERM });
            process.ended().await;
            drop(tether);
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Its URL by way of `address`.
    pub fn url_by(&self, address: SocketAddr) -> String {
        match (self.carrier, self.tls) {
            (Carrier::RabbitMq, false) => format!("amqp://guest:guest@{address}"),
            (Carrier::RabbitMq, true) => format!("amqps://guest:guest@{address}"),
            (_, false) => format!("nats://{address}"),
            (_, true) => format!("tls://{address}"),
        }
    }
}
