//! What a process of the rig is told, by `RIG_PART__…`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Everything of the configuration that Mainstay doesn't know.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Own {
    /// The part that the process plays.
    pub(crate) part: Settings,
}

/// The settings of one process.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Settings {
    /// What it is.
    pub(crate) role: Role,
    /// Its name, which stands in the ledger.
    pub(crate) name: String,
    /// Which of the processes of a run it is, so that each has random numbers of its own.
    pub(crate) incarnation: u64,
    /// What its random numbers come from.
    pub(crate) seed: u64,
    /// Whether it ends when its standard input does, as it does when whoever started it was killed.
    pub(crate) tethered: bool,
    /// How many keys there are, named `key-0` and so on.
    pub(crate) keys: u64,
    /// How many transactions a producer has under way.
    pub(crate) tasks: u64,
    /// How many transactions a second a producer tries for.
    pub(crate) rate: u64,
    /// How many events in a hundred are not tame.
    pub(crate) wild: u64,
    /// How wild they get: the first so many of `Temper::WILD`.
    pub(crate) wildest: usize,
    /// How many events in a hundred have a handler that takes its time.
    pub(crate) slow: u64,
    /// For how many milliseconds.
    pub(crate) slow_for: u64,
    /// Whether a producer takes the keys of a transaction in any order, so that transactions deadlock.
    pub(crate) shuffle: bool,
    /// Whether a producer's transactions are serializable.
    pub(crate) serializable: bool,
    /// Whether a producer does nothing but the two scripts that turn orders around.
    pub(crate) interleave: bool,
    /// How many tasks hold a connection half of the time.
    pub(crate) hogs: u64,
    /// For how many milliseconds at a time.
    pub(crate) hold: u64,
    /// The file of the test's own broker, through which events go then.
    pub(crate) broker: Option<PathBuf>,
    /// Whether the worker's handler can apply poison.
    pub(crate) mended: bool,
    /// How the worker's handler is broken on purpose, to prove that the checker sees it.
    pub(crate) mutation: Mutation,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    #[default]
    Worker,
    Producer,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mutation {
    #[default]
    None,
    /// Some events are applied twice.
    Twice,
    /// Some events are not applied.
    Skip,
    /// Some events are applied after the next one of their key.
    Swap,
    /// Some events are applied that nobody sent.
    Invent,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            role: Role::Worker,
            name: "rig".to_owned(),
            incarnation: 0,
            seed: 0,
            tethered: false,
            keys: 40,
            tasks: 8,
            rate: 100,
            wild: 0,
            wildest: 0,
            slow: 0,
            slow_for: 0,
            shuffle: false,
            serializable: false,
            interleave: false,
            hogs: 0,
            hold: 300,
            broker: None,
            mended: false,
            mutation: Mutation::None,
        }
    }
}
