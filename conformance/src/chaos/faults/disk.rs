//! The database's disk: full, and then not.

use std::time::Duration;

use mainstay::prelude::*;
use mainstay::sql::Dialect;

use super::{Fault, On, Plan};
use crate::chaos::cell::Cell;
use crate::chaos::disk;
use crate::chaos::fleet::{REFUSED, UNKNOWN};
use crate::chaos::server;

/// Between two looks at a server that is starting.
const LOOK: Duration = Duration::from_millis(50);

/// 21: nothing can be written for a while; a server may end over it.
pub(super) const FULL: Fault = Fault {
    number: "21",
    name: "disk_full",
    title: "the database's disk full, then not",
    on,
    // A server of MariaDB finds room for long; what is sent meanwhile has to fit the disk when there is room again.
    plan: |_, form| Plan { small_disk: true, rate: form.rate.min(200), ..Plan::new(form) },
    inflict: |cell| Box::pin(fill(cell)),
};

fn on(dialect: Dialect) -> On {
    match disk::mountable().and_then(|()| server::installed(dialect)) {
        Ok(()) => On::Yes,
        Err(missing) => On::Missing(missing),
    }
}

async fn fill(cell: &mut Cell) -> Result<()> {
    let (times, mut ended) = (cell.form.of(2, 30), 0);
    while cell.goes_on(times).await {
        cell.breathe(200..800).await;
        let (before, pause) = (refusals(cell), cell.random.millis(200..2_000));
        let Some(disk) = &cell.disk else { break };
        disk.fill()?;
        cell.until("a user hears of the full disk", move |cell| Box::pin(async move { refusals(cell) > before })).await;
        tokio::time::sleep(pause).await;
        cell.disk.iter().try_for_each(disk::SmallDisk::clear)?;
        ended += u64::from(back(cell).await);
        cell.inflicted();
    }
    let refused = refusals(cell);
    cell.notes.push(format!("{refused} errors reached users; the server ended {ended} times and was started again"));
    Ok(())
}

fn refusals(cell: &Cell) -> usize {
    cell.fleet.lines(REFUSED).len() + cell.fleet.lines(UNKNOWN).len()
}

/// Waits until the database answers; whether its server had to be started for it.
async fn back(cell: &mut Cell) -> bool {
    let mut ended = false;
    loop {
        ended |= cell.restart_server().await;
        if cell.depths().await.is_some() {
            return ended;
        }
        tokio::time::sleep(LOOK).await;
    }
}
