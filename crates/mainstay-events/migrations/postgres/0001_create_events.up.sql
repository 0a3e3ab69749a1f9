-- What transactions published and the relay has not moved yet. Rows are inserted and deleted, never updated.
CREATE TABLE mainstay_outbox (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    part       INTEGER NOT NULL,
    event_id   UUID    NOT NULL,
    event_type TEXT    NOT NULL,
    topic      TEXT    NOT NULL,
    event_key  TEXT COLLATE "C",
    meta       JSONB   NOT NULL,
    payload    BYTEA   NOT NULL,
    at         BIGINT  NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000)::bigint
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);
CREATE INDEX mainstay_outbox_part ON mainstay_outbox (part, id);

-- One row for each hash partition; whoever moves events into the log locks it. One row a page, so that updates stay in it.
CREATE TABLE mainstay_event_partitions (
    part     INTEGER NOT NULL PRIMARY KEY,
    next_off BIGINT  NOT NULL DEFAULT 0
) WITH (fillfactor = 10);

-- The log of the embedded broker: offsets of a partition have no gaps and become visible in order.
CREATE TABLE mainstay_event_log (
    part       INTEGER NOT NULL,
    off        BIGINT  NOT NULL,
    event_id   UUID    NOT NULL,
    event_type TEXT    NOT NULL,
    topic      TEXT    NOT NULL,
    event_key  TEXT COLLATE "C",
    meta       JSONB   NOT NULL,
    payload    BYTEA   NOT NULL,
    at         BIGINT  NOT NULL,
    PRIMARY KEY (part, off)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);

CREATE TABLE mainstay_event_groups (
    grp     TEXT    NOT NULL PRIMARY KEY,
    paused  BOOLEAN NOT NULL DEFAULT FALSE,
    seen_at BIGINT  NOT NULL
);

-- The next offset that a group has not applied.
CREATE TABLE mainstay_event_cursors (
    grp  TEXT    NOT NULL,
    part INTEGER NOT NULL,
    off  BIGINT  NOT NULL,
    PRIMARY KEY (grp, part)
) WITH (fillfactor = 10);

-- Events that failed, and those of the same key behind them. Only the first of a key has a due_at.
CREATE TABLE mainstay_event_retries (
    pos             BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    grp             TEXT    NOT NULL,
    part            INTEGER NOT NULL,
    event_id        UUID    NOT NULL,
    event_type      TEXT    NOT NULL,
    topic           TEXT    NOT NULL,
    event_key       TEXT COLLATE "C",
    meta            JSONB   NOT NULL,
    payload         BYTEA   NOT NULL,
    attempt         INTEGER NOT NULL,
    due_at          BIGINT,
    error           TEXT,
    first_failed_at BIGINT
);
CREATE INDEX mainstay_event_retries_due ON mainstay_event_retries (grp, part, due_at);
CREATE INDEX mainstay_event_retries_key ON mainstay_event_retries (grp, event_key, pos);

CREATE TABLE mainstay_dead_letters (
    id              BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    grp             TEXT    NOT NULL,
    part            INTEGER NOT NULL,
    event_id        UUID    NOT NULL,
    event_type      TEXT    NOT NULL,
    topic           TEXT    NOT NULL,
    event_key       TEXT COLLATE "C",
    meta            JSONB   NOT NULL,
    payload         BYTEA   NOT NULL,
    reason          TEXT    NOT NULL,
    error           TEXT    NOT NULL,
    attempts        INTEGER NOT NULL,
    first_failed_at BIGINT  NOT NULL,
    at              BIGINT  NOT NULL
);
CREATE INDEX mainstay_dead_letters_group ON mainstay_dead_letters (grp, id);

-- Who works on which partition: the relay's, by the name '', and each group's.
CREATE TABLE mainstay_event_leases (
    name     TEXT    NOT NULL,
    part     INTEGER NOT NULL,
    owner    UUID,
    epoch    BIGINT  NOT NULL DEFAULT 0,
    until_at BIGINT  NOT NULL DEFAULT 0,
    PRIMARY KEY (name, part)
) WITH (fillfactor = 10);

CREATE TABLE mainstay_event_members (
    name    TEXT   NOT NULL,
    owner   UUID   NOT NULL,
    seen_at BIGINT NOT NULL,
    PRIMARY KEY (name, owner)
) WITH (fillfactor = 50);

-- Which events of an external broker have been taken into the log, and up to where its streams were.
CREATE TABLE mainstay_inbox (
    event_id UUID   NOT NULL PRIMARY KEY,
    at       BIGINT NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000)::bigint
);
CREATE INDEX mainstay_inbox_at ON mainstay_inbox (at);

CREATE TABLE mainstay_event_intakes (
    topic  TEXT    NOT NULL,
    stream INTEGER NOT NULL,
    place  BIGINT  NOT NULL,
    PRIMARY KEY (topic, stream)
) WITH (fillfactor = 10);
