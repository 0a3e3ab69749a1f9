//! The faults: what is done to a service that handles events, and on which databases it can be done.

use futures_util::future::BoxFuture;
use mainstay::prelude::*;
use mainstay::sql::Dialect;

use super::broker::Carrier;
use super::cell::{Cell, RULES};
use super::check::Rules;
use super::form::Form;

mod broker;
mod clock;
mod connections;
mod cutover;
mod disk;
mod failpoints;
mod locks;
mod outside;
mod poison;
mod processes;
mod restore;
mod rollout;
mod slow;
mod soak;

pub use soak::SOAK;

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
    /// Whether it needs a disk of its own that can be filled, and a server on it.
    pub small_disk: bool,
    /// Whether the processes reach it by a proxy.
    pub proxied: bool,
    /// What carries events.
    pub carrier: Carrier,
    /// Whether the processes reach the broker by a proxy.
    pub broker_proxied: bool,
    /// Whether processes know nothing of the broker in the beginning.
    pub begins_embedded: bool,
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
            small_disk: false,
            proxied: false,
            carrier: Carrier::Embedded,
            broker_proxied: false,
            begins_embedded: false,
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
    outside::KILLED,
    failpoints::EACH_POINT,
    outside::EACH_POINT,
    processes::STOPPED,
    outside::STOPPED,
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
    slow::SLOW,
    rollout::SCALED,
    clock::SKEWED,
    locks::STORM,
    rollout::DEPLOYED,
    disk::FULL,
];

/// Those that are done once more where a broker carries the events, in the order of the table.
pub const THROUGH_BROKERS: &[Fault] = &[
    outside::KILLED,
    outside::EACH_POINT,
    outside::STOPPED,
    connections::CUT_AT_COMMIT,
    connections::SERVER_RESTARTED,
    connections::TERMINATED,
    locks::POOL_EXHAUSTED,
    broker::RESTARTED,
    broker::AWAY,
    connections::SILENT,
    broker::SILENT,
    locks::RELAY_DOWN,
    locks::INTERLEAVED,
    locks::HELD_OPEN,
    restore::RESTORED,
    poison::POISON,
    poison::REDRIVEN,
    slow::SLOW,
    rollout::SCALED,
    clock::SKEWED,
    locks::STORM,
    rollout::DEPLOYED,
    disk::FULL,
    cutover::CUT_OVER,
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

/// The same through the test's own broker. It is asked for news again and again, by stream, so there are few of them; but
/// enough that a process more gets some from those who are there. A key has one event under way at a time, and one in four
/// is sent again, so that there are fewer events in a second.
fn outside(plan: Plan) -> Plan {
    through(plan, Carrier::Moody)
}

/// The same through a broker: `plan` itself where that is the embedded one, or where it has one already.
pub fn through(plan: Plan, carrier: Carrier) -> Plan {
    match carrier {
        Carrier::Embedded => plan,
        Carrier::Moody => Plan { carrier, rate: plan.rate.min(200), ..plan }.with("RIG_EVENTS__PARTITIONS", 8),
        _ => Plan { carrier, ..plan }.with("RIG_EVENTS__PARTITIONS", 8),
    }
}

/// Deaths are the fault itself and are counted by it.
fn deadly(_: Dialect, form: Form) -> Plan {
    Plan { deadly: true, ..Plan::new(form) }
}
