-- What transactions published and the relay has not moved yet. Rows are inserted and deleted, never updated.
CREATE TABLE mainstay_outbox (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    part       INTEGER NOT NULL,
    event_id   BLOB    NOT NULL,
    event_type TEXT    NOT NULL,
    topic      TEXT    NOT NULL,
    event_key  TEXT,
    meta       TEXT    NOT NULL,
    payload    BLOB    NOT NULL,
    at         INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000 AS INTEGER))
) STRICT;
CREATE INDEX mainstay_outbox_part ON mainstay_outbox (part, id);

-- One row for each hash partition; whoever moves events into the log locks it.
CREATE TABLE mainstay_event_partitions (
    part     INTEGER NOT NULL PRIMARY KEY,
    next_off INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The log of the embedded broker: offsets of a partition have no gaps and become visible in order.
CREATE TABLE mainstay_event_log (
    part       INTEGER NOT NULL,
    off        INTEGER NOT NULL,
    event_id   BLOB    NOT NULL,
    event_type TEXT    NOT NULL,
    topic      TEXT    NOT NULL,
    event_key  TEXT,
    meta       TEXT    NOT NULL,
    payload    BLOB    NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (part, off)
) STRICT, WITHOUT ROWID;

CREATE TABLE mainstay_event_groups (
    grp     TEXT    NOT NULL PRIMARY KEY,
    paused  INTEGER NOT NULL DEFAULT 0,
    seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The next offset that a group has not applied.
CREATE TABLE mainstay_event_cursors (
    grp  TEXT    NOT NULL,
    part INTEGER NOT NULL,
    off  INTEGER NOT NULL,
    PRIMARY KEY (grp, part)
) STRICT, WITHOUT ROWID;

-- Events that failed, and those of the same key behind them. Only the first of a key has a due_at.
CREATE TABLE mainstay_event_retries (
    pos             INTEGER PRIMARY KEY AUTOINCREMENT,
    grp             TEXT    NOT NULL,
    part            INTEGER NOT NULL,
    event_id        BLOB    NOT NULL,
    event_type      TEXT    NOT NULL,
    topic           TEXT    NOT NULL,
    event_key       TEXT,
    meta            TEXT    NOT NULL,
    payload         BLOB    NOT NULL,
    attempt         INTEGER NOT NULL,
    due_at          INTEGER,
    error           TEXT,
    first_failed_at INTEGER
) STRICT;
CREATE INDEX mainstay_event_retries_due ON mainstay_event_retries (grp, part, due_at);
CREATE INDEX mainstay_event_retries_key ON mainstay_event_retries (grp, event_key, pos);

CREATE TABLE mainstay_dead_letters (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    grp             TEXT    NOT NULL,
    part            INTEGER NOT NULL,
    event_id        BLOB    NOT NULL,
    event_type      TEXT    NOT NULL,
    topic           TEXT    NOT NULL,
    event_key       TEXT,
    meta            TEXT    NOT NULL,
    payload         BLOB    NOT NULL,
    reason          TEXT    NOT NULL,
    error           TEXT    NOT NULL,
    attempts        INTEGER NOT NULL,
    first_failed_at INTEGER NOT NULL,
    at              INTEGER NOT NULL
) STRICT;
CREATE INDEX mainstay_dead_letters_group ON mainstay_dead_letters (grp, id);

-- Who works on which partition: the relay's, by the name '', and each group's.
CREATE TABLE mainstay_event_leases (
    name     TEXT    NOT NULL,
    part     INTEGER NOT NULL,
    owner    BLOB,
    epoch    INTEGER NOT NULL DEFAULT 0,
    until_at INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (name, part)
) STRICT, WITHOUT ROWID;

CREATE TABLE mainstay_event_members (
    name    TEXT    NOT NULL,
    owner   BLOB    NOT NULL,
    seen_at INTEGER NOT NULL,
    PRIMARY KEY (name, owner)
) STRICT, WITHOUT ROWID;

-- Which events of an external broker have been taken into the log, and up to where its streams were.
CREATE TABLE mainstay_inbox (
    event_id BLOB    NOT NULL PRIMARY KEY,
    at       INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000 AS INTEGER))
) STRICT, WITHOUT ROWID;
CREATE INDEX mainstay_inbox_at ON mainstay_inbox (at);

CREATE TABLE mainstay_event_intakes (
    topic  TEXT    NOT NULL,
    stream INTEGER NOT NULL,
    place  INTEGER NOT NULL,
    PRIMARY KEY (topic, stream)
) STRICT, WITHOUT ROWID;
