//! The shop under its systemd units, without systemd: a manager of our own keeps the socket, hands over settings and
//! credentials, listens to what it is told, and restarts the shop as `systemctl restart` does.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use conformance::load::Wire;
use conformance::process::{Place, Process};
use mainstay::prelude::*;
use tokio::net::{TcpSocket, UnixDatagram};
use tokio::process::Command;

use crate::{is_long, shop};

const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/shop/deploy/systemd");

/// `WatchdogSec=` is 20 s; for a restart each second, it is less here.
const WATCHDOG_USEC: &str = "200000";

/// What stands in a unit file, by key.
struct Unit(BTreeMap<String, Vec<String>>);

impl Unit {
    fn read(name: &str) -> Result<Self> {
        let text = std::fs::read_to_string(Path::new(UNITS).join(name))?;
        let mut keys = BTreeMap::<String, Vec<String>>::new();
        for (key, value) in text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('=')) {
            keys.entry(key.to_owned()).or_default().push(value.to_owned());
        }
        Ok(Self(keys))
    }

    fn all(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    fn one(&self, key: &str) -> &str {
        self.all(key).first().map_or("", String::as_str)
    }
}

/// What systemd is to the shop.
struct Manager {
    place: Place,
    socket: TcpListener,
    notify: UnixDatagram,
    name: String,
    service: Unit,
}

impl Manager {
    fn new() -> Result<Self> {
        let (unit, service) = (Unit::read("shop.socket")?, Unit::read("shop.service")?);
        assert_eq!(service.one("Type"), "notify");
        assert!(!service.one("WatchdogSec").is_empty());
        let place = Place::new();
        // ListenStream= is somebody else's port here.
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(place.http)?;
        let backlog = unit.one("Backlog").parse().map_err(|_| Error::internal("Backlog= is no number"))?;
        let socket = socket.listen(backlog)?.into_std()?;
        let notify = UnixDatagram::bind(place.folder.path().join("notify"))?;
        let credentials = place.folder.path().join("credentials");
        std::fs::create_dir(&credentials)?;
        std::fs::write(credentials.join("config.yaml"), format!("admin: {{addr: '{}'}}\n", place.admin))?;
        Ok(Self { place, socket, notify, name: unit.one("FileDescriptorName").to_owned(), service })
    }

    fn path(&self, name: &str) -> String {
        self.place.folder.path().join(name).display().to_string()
    }

    /// The command of the unit, with all that systemd would give it.
    fn command(&self) -> Command {
        let program = shop::program().unwrap().display().to_string();
        let mut command = self
            .place
            .command_on(&self.socket, &self.service.one("ExecStart").replace("/usr/local/bin/shop", &program));
        command.env("LISTEN_FDNAMES", &self.name).env("NOTIFY_SOCKET", self.path("notify"));
        command.env("WATCHDOG_USEC", WATCHDOG_USEC);
        for (name, value) in self.service.all("Environment").iter().filter_map(|entry| entry.split_once('=')) {
            command.env(name, value.replace("%d", &self.path("credentials")));
        }
        command
    }

    async fn hears(&self, wanted: &str) -> Result<()> {
        let mut word = [0; 64];
        loop {
            let length = self.notify.recv(&mut word).await?;
            match std::str::from_utf8(&word[..length]) {
                Ok(said) if said == wanted => return Ok(()),
                Ok("WATCHDOG=1") => {} // at any time
                said => return Err(Error::internal(format!("heard {said:?}, waiting for {wanted}"))),
            }
        }
    }

    /// `systemctl start`: over when the shop says so.
    async fn start(&self) -> Result<Process> {
        let process = Process::start(&mut self.command());
        self.hears("READY=1").await?;
        Ok(process)
    }

    /// `systemctl stop`: the signal, and the end.
    async fn stop(&self, process: Process) -> Result<()> {
        process.terminate();
        self.hears("STOPPING=1").await?;
        let (status, log) = process.ended().await;
        assert_eq!(status.code(), Some(0), "{log}");
        Ok(())
    }
}

pub(crate) async fn restarts() -> Result<()> {
    let restarts = if is_long() { 20 } else { 3 };
    let manager = Manager::new()?;
    let mut process = manager.start().await?;
    shop::fill(manager.place.http).await;
    let load = shop::load(manager.place.http, 1);
    shop::answers(&load, 100).await;
    for _ in 0..restarts {
        manager.hears("WATCHDOG=1").await?;
        manager.stop(process).await?;
        process = manager.start().await?;
        shop::answers(&load, 50).await;
    }
    let tally = load.end().await;
    say(&format!("restarts under the units: {restarts}, {} requests, {} failed", tally.sent, tally.failed()));
    assert_eq!(tally.failed(), 0, "{:?} {:?} {:?}\n{}", tally.other, tally.lost, tally.refused, process.log());
    manager.stop(process).await
}

/// systemd's tool for trying socket activation out; if it isn't there, a sentence about that.
pub(crate) fn activator() -> Result<PathBuf, String> {
    let path = PathBuf::from("/usr/bin/systemd-socket-activate");
    if path.exists() { Ok(path) } else { Err("systemd-socket-activate is not installed here".to_owned()) }
}

pub(crate) async fn activation() -> Result<()> {
    let place = Place::new();
    let mut command = place.command(activator().map_err(Error::unavailable)?);
    command.arg(format!("--listen={}", place.http)).arg("--fdname=http");
    command.arg(format!("--setenv=SHOP_ADMIN__ADDR={}", place.admin)).arg("--setenv=SHOP_SHUTDOWN__SETTLE=0s");
    command.arg(shop::program().unwrap());
    let activated = Process::prepared(&mut command, "Listening on").await;
    assert!(place.admin_status("/livez").await.is_err(), "it runs before anybody asked");
    let mut wire = Wire::connect(place.http).await?;
    assert_eq!(wire.ask("GET", "/v1/products", false).await?.status, 200);
    assert_eq!(place.admin_status("/readyz").await?, 200);
    activated.terminate(); // it has become the shop
    let (status, log) = activated.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the figures that `just deploy-test` is run for")]
fn say(text: &str) {
    println!("{text}");
}
