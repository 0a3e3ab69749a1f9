//! A backup, taken while events are under way, that becomes the database.
//!
//! With the embedded broker it is one of any moment: all there is to know is in it. A broker outside doesn't go back with
//! the database, and what it got after the backup would look invented: there, the processes are killed first.

use mainstay::prelude::*;
use mainstay::sql::Dialect;

use super::{Fault, On, everywhere};
use crate::chaos::broker::Carrier;
use crate::chaos::cell::Cell;
use crate::chaos::fleet::Role;
use crate::chaos::server;
use crate::chaos::store::Store;

/// 12: transaction ids, log positions and clocks begin anew; what counts is in the tables.
pub(super) const RESTORED: Fault = Fault {
    number: "12",
    name: "restored",
    title: "dump in mid-stream, restored to a new server, on which the service goes on",
    on: |dialect| match server::installed(dialect) {
        Ok(()) => everywhere(dialect),
        Err(missing) => On::Missing(missing),
    },
    plan: super::deadly,
    inflict: |cell| Box::pin(restore(cell)),
};

async fn restore(cell: &mut Cell) -> Result<()> {
    let times = usize::try_from(cell.form.of(1, 4)).unwrap_or(1);
    for time in 1..=times {
        let due = cell.form.target * time / (times + 1);
        cell.until("producing up to the dump", move |cell| Box::pin(async move { cell.sent().await >= due })).await;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("dump");
        let all_in_it = cell.plan.carrier == Carrier::Embedded;
        if all_in_it {
            cell.store.dump(&file).await?;
        }
        for name in cell.fleet.everyone() {
            cell.fleet.kill(&name).await;
        }
        if !all_in_it {
            cell.store.dump(&file).await?;
        }
        let new = match cell.store.dialect {
            Dialect::Sqlite => Store::shared(Dialect::Sqlite).await?,
            dialect => Store::private(dialect).await?,
        };
        new.restore(&file).await?;
        cell.db.close(&Context::background()).await;
        cell.db = new.connect().await?;
        cell.fleet.move_to(new.url().to_owned());
        std::mem::replace(&mut cell.store, new).remove().await?;
        cell.fleet.forget_past(Role::Producer);
        cell.populate().await;
        cell.inflicted();
    }
    Ok(())
}
