//! The subcommands of a service, and what each needs: all but `serve` and `migrate` connect to nothing.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use mainstay_http::Routes;

use crate::configuration::Configuration;

mod config;
mod events;
mod health;
mod migrate;
mod print;
mod routes;
mod serve;

pub(crate) use config::config;
pub(crate) use events::events;
pub(crate) use health::health;
pub(crate) use migrate::{connected, create, migrate};
pub(crate) use print::out;
pub(crate) use routes::routes;
pub(crate) use serve::serve;

/// The command line of every service.
#[derive(Debug, Parser)]
pub(crate) struct CommandLine {
    /// The configuration file; without it `config.yaml` in the working folder, if there is one.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Default, Subcommand)]
pub(crate) enum Command {
    /// Run the service (the default).
    #[default]
    Serve,
    /// Apply, revert and list migrations of the database.
    #[command(subcommand)]
    Migrate(Migrate),
    /// Look at events: how far consumers are behind, what waits, what was given up; and act on it.
    #[command(subcommand)]
    Events(Events),
    /// Print every setting with its value and where it came from, secrets masked.
    Config,
    /// Print every route.
    Routes,
    /// Print the OpenAPI 3.1 document.
    Openapi,
    /// Ask the running service whether it is ready: exit code 0 if it is. For container health checks.
    Health,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Migrate {
    /// Apply what is pending.
    Up {
        /// Print the SQL that would run, and run nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Revert the newest ones.
    Down {
        /// How many.
        #[arg(default_value_t = 1)]
        steps: usize,
    },
    /// List all migrations with their state.
    Status,
    /// Write the files of a new migration.
    New {
        /// What it does, as `add_customer_email`.
        name: String,
        /// The folder of the migrations.
        #[arg(long, default_value = "migrations")]
        dir: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Events {
    /// List the groups: events behind, waiting for another try, given up.
    Lag,
    /// What was published and not moved yet.
    Outbox,
    /// Dead letters: events that were given up.
    #[command(subcommand)]
    Dead(Dead),
    /// Pause and resume groups.
    #[command(subcommand)]
    Group(Group),
    /// Have the events of the running service go the way of `events.url`: through that broker, or `embedded`. Nothing is
    /// lost, doubled or overtaken. It can be ended and begun again.
    Cutover {
        /// The URL of the broker that is left, if the way leads from one to `embedded`.
        #[arg(long, value_name = "URL")]
        from: Option<String>,
        /// Give up, and leave everything as it was, when it takes longer.
        #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
        deadline: Duration,
    },
}

fn duration(text: &str) -> Result<Duration, String> {
    mainstay_core::settings::duration::parse(text).ok_or_else(|| "expected a duration, as `30s` or `10m`".to_owned())
}

#[derive(Debug, Subcommand)]
pub(crate) enum Dead {
    /// List them, oldest first.
    List {
        /// Only this group's.
        #[arg(long)]
        group: Option<String>,
        /// Only those after this id.
        #[arg(long, default_value_t = 0)]
        after: i64,
        /// How many at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Show one, with its event as a CloudEvent.
    Show {
        /// Its id, from `list`.
        id: i64,
    },
    /// Have some tried again.
    Redrive(Which),
    /// Delete some for good.
    Discard(Which),
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Which {
    /// Their ids, from `list`.
    #[arg(conflicts_with = "all")]
    pub(crate) ids: Vec<i64>,
    /// All of them.
    #[arg(long)]
    pub(crate) all: bool,
    /// With --all: only this group's.
    #[arg(long, requires = "all")]
    pub(crate) group: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// Stop handing events to a group, in every process. They wait.
    Pause {
        /// The group.
        group: String,
    },
    /// Go on with a group that was paused.
    Resume {
        /// The group.
        group: String,
    },
}

/// The OpenAPI document of a service.
pub(crate) fn openapi<S>(configuration: &Configuration<S>, routes: &Routes) -> serde_json::Value {
    routes.openapi(configuration.name, env!("CARGO_PKG_VERSION"))
}
