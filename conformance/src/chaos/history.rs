//! [`History`]: what a run left behind, as the database has it.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use mainstay::prelude::*;

/// What the handler of an event is to do. It travels in the event, and stands in the ledger of what was sent.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Temper {
    /// It succeeds.
    Tame,
    /// It fails every other time, by chance.
    Moody,
    /// It always returns an error.
    Failing,
    /// It always panics.
    Panicking,
    /// It never returns.
    Hanging,
    /// It takes its process with it.
    Killing,
    /// It takes ten times as long as a lease lasts.
    Slow,
}

impl Temper {
    /// Every temper that does harm, the least first.
    pub const WILD: [Self; 5] = [Self::Moody, Self::Failing, Self::Panicking, Self::Hanging, Self::Killing];

    /// As it is stored.
    pub fn code(self) -> i64 {
        self as i64
    }

    /// From what was stored.
    pub fn from_code(code: i64) -> Self {
        Self::WILD.into_iter().chain([Self::Slow]).find(|temper| temper.code() == code).unwrap_or(Self::Tame)
    }

    /// Whether it can't be applied as long as the handler isn't mended.
    pub fn is_poison(self) -> bool {
        !matches!(self, Self::Tame | Self::Moody | Self::Slow)
    }
}

/// A row of `sent`: committed together with the event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sent {
    /// The event.
    pub event_id: Uuid,
    /// Its type.
    pub event_type: String,
    /// Its key.
    pub key: String,
    /// Rises by the order of commits of its key.
    pub kseq: i64,
    /// What its handler does.
    pub temper: Temper,
}

/// A row of `applied`: committed by the handler, as often as it took effect.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Applied {
    /// The order of application. It was taken inside the handler's transaction, and those of one key and group run one
    /// after another, so that within a key and group it rises as they were applied.
    pub position: i64,
    /// The consumer group.
    pub group: String,
    /// The event.
    pub event_id: Uuid,
    /// Its key.
    pub key: String,
    /// Its number within the key.
    pub kseq: i64,
    /// The process that applied it.
    pub worker: String,
}

/// A row of the retries or the dead letters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Parked {
    /// The consumer group.
    pub group: String,
    /// The event.
    pub event_id: Uuid,
    /// How often it was tried.
    pub attempts: i64,
    /// The last error.
    pub error: String,
}

/// Everything the checker looks at.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// What was committed.
    pub sent: Vec<Sent>,
    /// What took effect.
    pub applied: Vec<Applied>,
    /// What is to be tried again.
    pub retries: Vec<Parked>,
    /// What was given up.
    pub dead: Vec<Parked>,
    /// Events of transactions and savepoints that the producer undid.
    pub undone: HashSet<Uuid>,
    /// Events of commits whose outcome the producer was not told; `sent` knows it.
    pub unknown: HashSet<Uuid>,
}

impl History {
    /// How many commits of unknown outcome had taken place after all.
    pub fn unknown_but_committed(&self) -> usize {
        self.sent.iter().filter(|sent| self.unknown.contains(&sent.event_id)).count()
    }

    /// Writes all of it as tab-separated tables into `folder`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let mut sent = String::from("event_id\ttype\tkey\tkseq\ttemper\n");
        for Sent { event_id, event_type, key, kseq, temper } in &self.sent {
            let _ = writeln!(sent, "{event_id}\t{event_type}\t{key}\t{kseq}\t{temper:?}"); // a `String` takes all
        }
        fs::write(folder.join("sent.tsv"), sent)?;
        let mut applied = String::from("position\tgroup\tevent_id\tkey\tkseq\tworker\n");
        for Applied { position, group, event_id, key, kseq, worker } in &self.applied {
            let _ = writeln!(applied, "{position}\t{group}\t{event_id}\t{key}\t{kseq}\t{worker}");
        }
        fs::write(folder.join("applied.tsv"), applied)?;
        fs::write(folder.join("retries.tsv"), parked(&self.retries))?;
        fs::write(folder.join("dead.tsv"), parked(&self.dead))?;
        let lines = |ids: &HashSet<Uuid>| ids.iter().map(|id| format!("{id}\n")).collect::<String>();
        fs::write(folder.join("undone.tsv"), lines(&self.undone))?;
        fs::write(folder.join("unknown.tsv"), lines(&self.unknown))
    }
}

fn parked(rows: &[Parked]) -> String {
    let mut table = String::from("group\tevent_id\tattempts\terror\n");
    for Parked { group, event_id, attempts, error } in rows {
        let _ = writeln!(table, "{group}\t{event_id}\t{attempts}\t{}", error.replace(['\t', '\n'], " "));
    }
    table
}
