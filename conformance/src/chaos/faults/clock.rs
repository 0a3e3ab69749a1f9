//! Hosts whose clocks are wrong, and clocks that jump.

use std::fs;
use std::path::PathBuf;

use mainstay::prelude::*;
use mainstay::sql::Dialect;

use super::{Fault, On, Plan, on_servers};
use crate::chaos::cell::Cell;
use crate::chaos::fleet::Role;
use crate::chaos::form::Form;

/// 17: leases and retries go by the database's clock, whatever the hosts believe.
pub(super) const SKEWED: Fault = Fault {
    number: "17",
    name: "skewed",
    title: "workers' clocks an hour early, an hour late, and jumping",
    on: |dialect| match on_servers(dialect, "its clock is the host's, which all processes of a file share") {
        On::Yes if library().is_none() => On::Missing("libfaketime is not installed here".to_owned()),
        on => on,
    },
    plan,
    inflict: |cell| Box::pin(skew(cell)),
};

/// With retries under way, whose due times would be wrong.
fn plan(_: Dialect, form: Form) -> Plan {
    Plan { workers: 0, ..Plan::new(form) }.with("RIG_PART__WILD", 5).with("RIG_PART__WILDEST", 1)
}

async fn skew(cell: &mut Cell) -> Result<()> {
    let library = library().ok_or_else(|| Error::unavailable("libfaketime"))?.display().to_string();
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("clock");
    let path = file.display().to_string();
    fs::write(&file, "+0")?;
    // The monotonic clock is no wall clock, and no host gets it wrong.
    let fake = [("LD_PRELOAD", library.as_str()), ("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("DONT_FAKE_MONOTONIC", "1")];
    for clock in [("FAKETIME", "+3600"), ("FAKETIME", "-3600"), ("FAKETIME_TIMESTAMP_FILE", path.as_str())] {
        let own = [fake.as_slice(), &[clock, ("FAKETIME_CACHE_DURATION", "1")]].concat();
        cell.fleet.ready(Role::Worker, &own).await;
        cell.inflicted();
    }
    cell.plan.workers = 3;
    let times = cell.form.of(3 + 3, 3 + 20);
    while cell.goes_on(times).await {
        cell.breathe(800..1_500).await;
        let jump = ["+3600", "-3600", "+86400", "+0"][cell.random.index(4)];
        fs::write(&file, jump)?;
        cell.inflicted();
    }
    Ok(())
}

/// Debian keeps it in a folder of the architecture.
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?;
    let candidates = folders.filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketimeMT.so.1")));
    candidates.into_iter().find(|library| library.exists())
}
