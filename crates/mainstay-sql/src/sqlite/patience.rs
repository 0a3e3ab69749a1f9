//! [`Patience`]: how long the lock of another process is waited for.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::clock::Stopwatch;
use crate::settings::SqliteFile;

/// Lasts as long as others commit, and then for a limit.
///
/// SQLite's lock has no queue: whoever asks at the right moment has it. Among several processes on a busy machine one of
/// them may well be unlucky for longer than a lock may be held, while nothing is wrong; so it is not how long it has
/// waited that tells a stuck process from a busy file, but whether anybody gets on. The caller's own deadline ends
/// the wait in any case.
pub(super) struct Patience {
    limit: Duration,
    since: Stopwatch,
    /// The write-ahead log, which every commit writes to; `None` in memory, where there are no others.
    log: Option<PathBuf>,
    last_commit: Option<SystemTime>,
}

impl Patience {
    pub(super) fn new(file: &SqliteFile, limit: Duration) -> Self {
        let log = match file {
            SqliteFile::Memory => None,
            SqliteFile::Path(path) => {
                let mut name = OsString::from(path);
                name.push("-wal");
                Some(PathBuf::from(name))
            }
        };
        Self { limit, since: Stopwatch::start(), log, last_commit: None }
    }

    /// A wait begins.
    pub(super) fn begin(&mut self) {
        self.since = Stopwatch::start();
        self.last_commit = self.look();
    }

    /// Whether nobody got on for the limit. It is looked at once in a limit, so that the end may come late by as much.
    pub(super) fn is_over(&mut self) -> bool {
        if self.since.elapsed() < self.limit {
            return false;
        }
        let before = self.last_commit;
        self.begin();
        self.last_commit == before
    }

    fn look(&self) -> Option<SystemTime> {
        self.log.as_ref()?.metadata().and_then(|log| log.modified()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_lasts_as_long_as_others_commit() {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteFile::Path(folder.path().join("a.db"));
        let commit = |second| {
            let log = std::fs::File::create(folder.path().join("a.db-wal")).unwrap();
            log.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).unwrap();
        };
        let mut patience = Patience::new(&file, Duration::ZERO);
        patience.begin();
        assert!(patience.is_over(), "nobody has committed yet");
        commit(1);
        assert!(!patience.is_over());
        assert!(patience.is_over());
        commit(2);
        commit(3);
        assert!(!patience.is_over());
        commit(2); // the clock was set back
        assert!(!patience.is_over());
        commit(4);
        patience.begin();
        assert!(patience.is_over(), "what was before the wait doesn't count");
    }

    #[test]
    fn within_the_limit_nobody_has_to_commit() {
        let folder = tempfile::tempdir().unwrap();
        let mut patience = Patience::new(&SqliteFile::Path(folder.path().join("a.db")), Duration::MAX);
        patience.begin();
        assert!(!patience.is_over());
        let mut alone = Patience::new(&SqliteFile::Memory, Duration::ZERO);
        alone.begin();
        assert!(alone.is_over());
    }
}
