//! What the service manager is told, if it asked to be (`NOTIFY_SOCKET`): that we are ready, that we stop, that we live.

use std::env;
use std::ffi::OsStr;
use std::time::Duration;

/// Tells the service manager, if it asked to be told, as `READY=1`.
pub(crate) fn notify(state: &str) {
    let Some(path) = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else { return };
    if let Err(error) = send(&path, state) {
        tracing::warn!(%error, state, "can't tell the service manager at NOTIFY_SOCKET");
    }
}

/// Says `WATCHDOG=1` twice in each period that the service manager waits for it (`WATCHDOG_USEC`), for as long as the
/// runtime runs tasks and timers; returns at once where it doesn't wait.
///
/// It is a task like those that serve: where handlers hold all threads of the runtime, it isn't run either, and the
/// manager ends a process that nobody gets an answer from. One thread that is held while others run goes unnoticed.
pub(crate) async fn watchdog() {
    let variable = |name: &str| env::var(name).ok();
    let period = period(variable("WATCHDOG_USEC").as_deref(), variable("WATCHDOG_PID").as_deref(), std::process::id());
    let Some(period) = period.filter(|_| env::var_os("NOTIFY_SOCKET").is_some()) else { return };
    loop {
        tokio::time::sleep(period / 2).await;
        // Through the queue of tasks too, not only through the timer.
        if tokio::spawn(std::future::ready(())).await.is_ok() {
            notify("WATCHDOG=1");
        }
    }
}

/// How long the manager waits; `None` if it doesn't, or if it means another process than `own`.
fn period(microseconds: Option<&str>, process: Option<&str>, own: u32) -> Option<Duration> {
    if process.is_some_and(|process| process.parse() != Ok(own)) {
        return None;
    }
    let microseconds = microseconds?;
    match microseconds.parse() {
        Ok(0) => None,
        Ok(microseconds) => Some(Duration::from_micros(microseconds)),
        Err(_) => {
            tracing::warn!(
                microseconds,
                "WATCHDOG_USEC is no number of microseconds: the watchdog hears nothing from us"
            );
            None
        }
    }
}

fn send(path: &OsStr, state: &str) -> std::io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::UnixDatagram;
    let socket = UnixDatagram::unbound()?;
    #[cfg(target_os = "linux")]
    if let Some(name) = path.as_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        let addr = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        return socket.send_to_addr(state.as_bytes(), &addr).map(drop);
    }
    socket.send_to(state.as_bytes(), std::path::Path::new(path)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_fed_only_where_this_process_is_waited_for() {
        let twenty = Some(Duration::from_secs(20));
        assert_eq!(period(Some("20000000"), Some("7"), 7), twenty);
        assert_eq!(period(Some("20000000"), None, 7), twenty);
        assert_eq!(period(Some("20000000"), Some("8"), 7), None);
        assert_eq!(period(Some("20000000"), Some("none"), 7), None);
        assert_eq!(period(Some("0"), None, 7), None);
        assert_eq!(period(Some("20s"), None, 7), None);
        assert_eq!(period(None, Some("7"), 7), None);
    }
}
