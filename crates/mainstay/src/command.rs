//! The subcommands of a service, and what each needs: all but `serve` and `migrate` connect to nothing.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use mainstay_http::Routes;

use crate::configuration::Configuration;

mod config;
mod health;
mod migrate;
mod print;
mod routes;
mod serve;

pub(crate) use config::config;
pub(crate) use health::health;
pub(crate) use migrate::{create, migrate};
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

/// The OpenAPI document of a service.
pub(crate) fn openapi<S>(configuration: &Configuration<S>, routes: &Routes) -> serde_json::Value {
    routes.openapi(configuration.name, env!("CARGO_PKG_VERSION"))
}
