-- Gives each key its numbers; its row is locked until the commit, so that they rise by the order of commits.
CREATE TABLE key_counters (
    event_key TEXT NOT NULL PRIMARY KEY,
    kseq      BIGINT NOT NULL
);

-- Written in the transaction that publishes.
CREATE TABLE sent (
    event_id   BLOB NOT NULL,
    event_type TEXT NOT NULL,
    event_key  TEXT NOT NULL,
    kseq       BIGINT NOT NULL,
    temper     BIGINT NOT NULL
);

-- Written in the transaction that applies. It has no unique key but its own, so that duplicates are counted, not hidden.
CREATE TABLE applied (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    grp       TEXT NOT NULL,
    event_id  BLOB NOT NULL,
    event_key TEXT NOT NULL,
    kseq      BIGINT NOT NULL,
    worker    TEXT NOT NULL,
    at        TIMESTAMP DEFAULT CURRENT_TIMESTAMP
);

-- For transactions that have to have written something.
CREATE TABLE scratch (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    n  BIGINT NOT NULL
);
