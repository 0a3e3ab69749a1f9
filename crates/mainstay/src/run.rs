//! [`run`]: from `main` to the exit code.

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use mainstay_core::{Error, Result, ResultExt};
use mainstay_telemetry::{LogSettings, start_logging};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::activation::Activation;
use crate::app::App;
use crate::command::{self, Command, CommandLine, Migrate};
use crate::configuration::Configuration;

/// The whole of a service's `main`: reads the command line and the configuration, builds the app, does what was asked.
///
/// `build` only declares, so that the commands `config`, `routes`, `openapi` and `health` connect to nothing. The exit
/// code is 0 for a clean end, 1 when something failed or was cut, 2 for a wrong command line.
pub fn run<S>(name: &'static str, build: impl FnOnce(&mut App<S>) -> Result<()>) -> ExitCode
where
    S: Default + Serialize + DeserializeOwned,
{
    let matches =
        CommandLine::command().name(name).bin_name(name).about(format!("The service {name}")).try_get_matches();
    let line = match matches.and_then(|matches| CommandLine::from_arg_matches(&matches)) {
        Ok(line) => line,
        Err(error) => {
            let _ = error.print(); // help goes to standard output, mistakes to standard error
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    match carry_out(name, line, build) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(text) => {
            complain(&text);
            ExitCode::FAILURE
        }
    }
}

/// `Ok(false)` is a service that ended in order and had to cut something.
fn carry_out<S>(
    name: &'static str,
    line: CommandLine,
    build: impl FnOnce(&mut App<S>) -> Result<()>,
) -> Result<bool, String>
where
    S: Default + Serialize + DeserializeOwned,
{
    let plainly = |error: Error| format!("{name}: {}\n", error.report());
    let command = line.command.unwrap_or_default();
    if let Command::Migrate(Migrate::New { name: migration, dir }) = &command {
        return command::create(dir, migration).map(|()| true).map_err(plainly);
    }
    let configuration = Configuration::<S>::load(name, line.config).map_err(plainly)?;
    if matches!(command, Command::Config) {
        return command::config(&configuration).map(|()| true).map_err(plainly);
    }
    // Before the runtime has threads. Only a service that serves may take what was opened for it.
    let activation = match command {
        Command::Serve => Activation::take().map_err(plainly)?,
        _ => Activation::default(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("starting the runtime").map_err(plainly)?;
    let mut app = App::new(configuration);
    build(&mut app).map_err(plainly)?;
    match command {
        Command::Serve => {
            app.logs = start_logging(&app.configuration.log).map_err(plainly)?;
            runtime.block_on(command::serve(app, activation)).map_err(plainly)
        }
        Command::Migrate(migrate) => {
            start_logging(&quiet(&app.configuration.log)).map_err(plainly)?;
            runtime.block_on(command::migrate(&app, migrate)).map(|()| true).map_err(plainly)
        }
        Command::Events(events) => {
            start_logging(&quiet(&app.configuration.log)).map_err(plainly)?;
            runtime.block_on(command::events(&app, events)).map(|()| true).map_err(plainly)
        }
        Command::Routes => command::out(&command::routes(app.all_routes())).map(|()| true).map_err(plainly),
        Command::Openapi => {
            let document = command::openapi(&app.configuration, &app.routes);
            command::out(&format!("{document:#}\n")).map(|()| true).map_err(plainly)
        }
        Command::Health => runtime.block_on(command::health(&app.configuration)).map(|()| true).map_err(plainly),
        Command::Config => Ok(true), // done above, before `build` could refuse anything
    }
}

/// A command that prints what it did logs warnings only, unless someone asked for more.
fn quiet(log: &LogSettings) -> LogSettings {
    let asked = log.filter != LogSettings::default().filter;
    LogSettings { filter: if asked { log.filter.clone() } else { "warn".to_owned() }, ..log.clone() }
}

#[expect(clippy::print_stderr, reason = "the last words of a program that can't go on")]
fn complain(text: &str) {
    eprint!("{text}");
}
