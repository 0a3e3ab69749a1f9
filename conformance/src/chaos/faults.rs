//! The faults: what is done to a service that handles events, and on which databases it can be done.

use futures_util::future::BoxFuture;
use mainstay::prelude::*;
use mainstay::sql::Dialect;

use super::cell::{Cell, RULES};
use super::check::Rules;
use super::form::Form;

mod clock;
mod connections;
mod failpoints;
mod locks;
mod poison;
mod processes;
mod restore;
mod rollout;

/// One way in which things go wrong.
pub struct Fault {
    /// Its number in the list of faults that the guarantee is made for.
    pub number: &'static str,
    /// Its name in tests.
    pub name: &'static str,
    /// What it is, for the table.
    pub title: &'static str,
    /// Where it can be done.
    pub on: fn(Dialect) -> On,
    /// What is needed for it.
    pub plan: fn(Dialect, Form) -> Plan,
    /// Does it, until it was done often enough.
    pub inflict: for<'a> fn(&'a mut Cell) -> BoxFuture<'a, Result<()>>,
}

/// Whether a fault can be tried on a database.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum On {
    /// It can.
    Yes,
    /// It has no meaning there, for this reason.
    NotApplicable(&'static str),
    /// Something is missing on this machine.
    Missing(String),
}

/// What a cell is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many workers.
    pub workers: usize,
    /// How many producers.
    pub producers: usize,
    /// How many keys.
    pub keys: u64,
    /// Events a second of each producer.
    pub rate: u64,
    /// Whether the database needs a server of its own.
    pub private: bool,
    /// Whether the processes reach it by a proxy.
    pub proxied: bool,
    /// Whether processes may end in any way.
    pub deadly: bool,
    /// Whether those that have ended by themselves are replaced, which counts as the fault.
    pub revive: bool,
    /// Whether no error may reach a user.
    pub no_refusals: bool,
    /// What has to hold.
    pub rules: Rules,
    /// Settings of all processes, besides the usual ones.
    pub settings: Vec<(&'static str, String)>,
}

impl Plan {
    /// Three workers and a producer.
    pub fn new(form: Form) -> Self {
        Self {
            workers: 3,
            producers: 1,
            keys: 40,
            rate: form.rate,
            private: false,
            proxied: false,
            deadly: false,
            revive: false,
            no_refusals: false,
            rules: RULES,
            settings: Vec::new(),
        }
    }

    /// With another setting.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.settings.push((name, value.to_string()));
        self
    }

    /// The settings of every process. Leases and pauses are short, so that a short run sees many of them.
    pub fn environment(&self) -> Vec<(String, String)> {
        let usual = [
            ("RIG_EVENTS__LEASE", "1s".to_owned()),
            ("RIG_EVENTS__RETENTION", "1s".to_owned()),
            ("RIG_EVENTS__RETRY_MIN", "20ms".to_owned()),
            ("RIG_EVENTS__RETRY_MAX", "200ms".to_owned()),
            ("RIG_EVENTS__HANDLER_TIMEOUT", "5s".to_owned()),
            ("RIG_EVENTS__MAX_ATTEMPTS", self.rules.max_attempts.to_string()),
            ("RIG_PART__KEYS", self.keys.to_string()),
            ("RIG_PART__RATE", self.rate.to_string()),
        ];
        let all = usual.into_iter().chain(self.settings.iter().cloned());
        all.map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// All faults, in the order of the table.
pub const ALL: &[Fault] = &[
    processes::KILLED,
    failpoints::EACH_POINT,
    processes::STOPPED,
    connections::CUT_AT_COMMIT,
    connections::SERVER_RESTARTED,
    connections::TERMINATED,
    locks::POOL_EXHAUSTED,
    connections::SILENT,
    locks::RELAY_DOWN,
    locks::INTERLEAVED,
    locks::HELD_OPEN,
    restore::RESTORED,
    poison::POISON,
    poison::REDRIVEN,
    rollout::SCALED,
    clock::SKEWED,
    locks::STORM,
    rollout::DEPLOYED,
];

fn everywhere(_: Dialect) -> On {
    On::Yes
}

fn on_servers(dialect: Dialect, why_not: &'static str) -> On {
    if dialect == Dialect::Sqlite { On::NotApplicable(why_not) } else { On::Yes }
}

fn usual(_: Dialect, form: Form) -> Plan {
    Plan::new(form)
}

/// Deaths are the fault itself and are counted by it.
fn deadly(_: Dialect, form: Form) -> Plan {
    Plan { deadly: true, ..Plan::new(form) }
}
