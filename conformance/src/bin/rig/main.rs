//! The service that the chaos rig does things to: a producer or a worker, by its settings.

use std::process::ExitCode;
use std::time::Duration;

use mainstay::prelude::*;
use mainstay_events::testing::TestBroker;

mod events;
mod hog;
mod interleave;
mod producer;
mod settings;
mod worker;

use settings::{Own, Role};

fn main() -> ExitCode {
    mainstay::run("rig", build)
}

fn build(app: &mut App<Own>) -> Result<()> {
    let db = app.database(migrations!("ledger"))?;
    let settings = app.settings().part.clone();
    let events = match &settings.broker {
        Some(file) => app.events_through(&db, TestBroker::at(file)?)?,
        None => app.events(&db)?,
    };
    if settings.tethered {
        std::thread::spawn(|| {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink()); // to its end, or what is as good as that
            std::process::abort();
        });
    }
    if settings.hogs > 0 {
        app.component(hog::Hogs::new(settings.hogs, Duration::from_millis(settings.hold), db.clone()));
    }
    match settings.role {
        Role::Worker => {
            app.consume(&events, worker::Apply::new(&settings))?;
            app.consume(&events, worker::Echoes::new(&settings))?;
        }
        Role::Producer if settings.interleave => app.component(interleave::Interleaver::new(&settings, db)),
        Role::Producer => app.component(producer::Producer::new(&settings, db)),
    }
    Ok(())
}
