//! nginx with the file that compose mounts, filled in as the image's entry point does.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use conformance::process::{self, Process};
use mainstay::prelude::*;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;

const TEMPLATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/shop/deploy/nginx/shop.conf.template");

/// What the image has around the file: how many connections and workers.
const AROUND: &str = "daemon off; pid FOLDER/pid; worker_processes 2; worker_rlimit_nofile 4096;
error_log stderr notice;
events { worker_connections 1024; }
http { access_log off; include FOLDER/shop.conf; }
";

/// nginx's program; if it isn't there, a sentence about that.
pub(crate) fn program() -> Result<PathBuf, String> {
    let places = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx"];
    places.iter().map(PathBuf::from).find(|path| path.exists()).ok_or_else(|| "nginx is not installed here".to_owned())
}

/// A running nginx. It ends with this value.
pub(crate) struct Nginx {
    pub(crate) addr: SocketAddr,
    process: Process,
    folder: tempfile::TempDir,
}

/// As many as nginx is told to have.
const WORKERS: usize = 2;

impl Nginx {
    /// One in front of two shops.
    pub(crate) async fn before(shops: [SocketAddr; 2]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let addr = process::free_port();
        let template = std::fs::read_to_string(TEMPLATE)?;
        assert!(template.contains("proxy_next_upstream off;"), "a retry would hide what fails");
        let filled = [("${LISTEN}", addr), ("${SHOP_1}", shops[0]), ("${SHOP_2}", shops[1])]
            .iter()
            .fold(template, |text, (name, addr)| text.replace(name, &addr.to_string()));
        write(folder.path(), "shop.conf", &filled)?;
        write(folder.path(), "nginx.conf", &AROUND.replace("FOLDER", &folder.path().display().to_string()))?;
        let mut command = Command::new(program().map_err(Error::unavailable)?);
        command.process_group(0); // so that the workers end with it, whatever becomes of the test
        command.arg("-p").arg(folder.path()).arg("-c").arg(folder.path().join("nginx.conf"));
        let process = Process::prepared(&mut command, "start worker process ").await;
        Ok(Self { addr, process, folder })
    }

    /// Sends the shop at `addr` no more requests, or sends it some again, as `docs/operations.md` says: the file is changed
    /// and read again. Over when the workers that knew the old one have ended.
    pub(crate) async fn take(&self, addr: SocketAddr, out: bool) -> Result<()> {
        let file = self.folder.path().join("shop.conf");
        let states = [format!("server {addr} max_fails=0;"), format!("server {addr} down;")];
        let (from, to) = if out { (&states[0], &states[1]) } else { (&states[1], &states[0]) };
        let text = std::fs::read_to_string(&file)?;
        assert!(text.contains(from), "{text}");
        std::fs::write(&file, text.replace(from, to))?;
        let ended = |log: &str| log.matches("exited with code 0").count();
        let before = ended(&self.process.log());
        self.process.signal(Signal::HUP);
        while ended(&self.process.log()) < before + WORKERS {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// What it has said of errors.
    pub(crate) fn log(&self) -> String {
        self.process.log().lines().filter(|line| line.contains("[error]")).collect::<Vec<_>>().join("\n")
    }

    /// Ends it in order.
    pub(crate) async fn end(mut self) {
        self.process.signal(Signal::QUIT);
        self.process.ends().await;
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The file goes with a master that ended in order. One that is killed leaves its workers behind, and their port.
        let master = std::fs::read_to_string(self.folder.path().join("pid")).ok();
        if let Some(master) = master.and_then(|text| Pid::from_raw(text.trim().parse().ok()?)) {
            let _ = kill_process_group(master, Signal::KILL);
        }
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    Ok(std::fs::write(folder.join(name), text)?)
}
