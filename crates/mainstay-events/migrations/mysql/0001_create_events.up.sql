-- What transactions published and the relay has not moved yet. Rows are inserted and deleted, never updated.
CREATE TABLE mainstay_outbox (
    id         BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    part       INTEGER      NOT NULL,
    event_id   BINARY(16)   NOT NULL,
    event_type VARCHAR(100) CHARACTER SET ascii NOT NULL,
    topic      VARCHAR(100) CHARACTER SET ascii NOT NULL,
    event_key  VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    meta       JSON         NOT NULL,
    payload    LONGBLOB     NOT NULL,
    at         BIGINT       NOT NULL DEFAULT (TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000),
    INDEX mainstay_outbox_part (part, id)
) ENGINE = InnoDB;

-- One row for each hash partition; whoever moves events into the log locks it.
CREATE TABLE mainstay_event_partitions (
    part     INTEGER NOT NULL PRIMARY KEY,
    next_off BIGINT  NOT NULL DEFAULT 0
) ENGINE = InnoDB;

-- The log of the embedded broker: offsets of a partition have no gaps and become visible in order.
CREATE TABLE mainstay_event_log (
    part       INTEGER      NOT NULL,
    off        BIGINT       NOT NULL,
    event_id   BINARY(16)   NOT NULL,
    event_type VARCHAR(100) CHARACTER SET ascii NOT NULL,
    topic      VARCHAR(100) CHARACTER SET ascii NOT NULL,
    event_key  VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    meta       JSON         NOT NULL,
    payload    LONGBLOB     NOT NULL,
    at         BIGINT       NOT NULL,
    PRIMARY KEY (part, off)
) ENGINE = InnoDB;

CREATE TABLE mainstay_event_groups (
    grp     VARCHAR(100) CHARACTER SET ascii NOT NULL PRIMARY KEY,
    paused  BOOLEAN NOT NULL DEFAULT FALSE,
    seen_at BIGINT  NOT NULL
) ENGINE = InnoDB;

-- The next offset that a group has not applied.
CREATE TABLE mainstay_event_cursors (
    grp  VARCHAR(100) CHARACTER SET ascii NOT NULL,
    part INTEGER NOT NULL,
    off  BIGINT  NOT NULL,
    PRIMARY KEY (grp, part)
) ENGINE = InnoDB;

-- Events that failed, and those of the same key behind them. Only the first of a key has a due_at.
CREATE TABLE mainstay_event_retries (
    pos             BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    grp             VARCHAR(100) CHARACTER SET ascii NOT NULL,
    part            INTEGER      NOT NULL,
    event_id        BINARY(16)   NOT NULL,
    event_type      VARCHAR(100) CHARACTER SET ascii NOT NULL,
    topic           VARCHAR(100) CHARACTER SET ascii NOT NULL,
    event_key       VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    meta            JSON         NOT NULL,
    payload         LONGBLOB     NOT NULL,
    attempt         INTEGER      NOT NULL,
    due_at          BIGINT,
    error           TEXT CHARACTER SET utf8mb4,
    first_failed_at BIGINT,
    INDEX mainstay_event_retries_due (grp, part, due_at),
    INDEX mainstay_event_retries_key (grp, event_key, pos)
) ENGINE = InnoDB;

CREATE TABLE mainstay_dead_letters (
    id              BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    grp             VARCHAR(100) CHARACTER SET ascii NOT NULL,
    part            INTEGER      NOT NULL,
    event_id        BINARY(16)   NOT NULL,
    event_type      VARCHAR(100) CHARACTER SET ascii NOT NULL,
    topic           VARCHAR(100) CHARACTER SET ascii NOT NULL,
    event_key       VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    meta            JSON         NOT NULL,
    payload         LONGBLOB     NOT NULL,
    reason          VARCHAR(20)  CHARACTER SET ascii NOT NULL,
    error           TEXT CHARACTER SET utf8mb4 NOT NULL,
    attempts        INTEGER      NOT NULL,
    first_failed_at BIGINT       NOT NULL,
    at              BIGINT       NOT NULL,
    INDEX mainstay_dead_letters_group (grp, id)
) ENGINE = InnoDB;

-- Who works on which partition: the relay's, by the name '', and each group's.
CREATE TABLE mainstay_event_leases (
    name     VARCHAR(100) CHARACTER SET ascii NOT NULL,
    part     INTEGER    NOT NULL,
    owner    BINARY(16),
    epoch    BIGINT     NOT NULL DEFAULT 0,
    until_at BIGINT     NOT NULL DEFAULT 0,
    PRIMARY KEY (name, part)
) ENGINE = InnoDB;

CREATE TABLE mainstay_event_members (
    name    VARCHAR(100) CHARACTER SET ascii NOT NULL,
    owner   BINARY(16) NOT NULL,
    seen_at BIGINT     NOT NULL,
    PRIMARY KEY (name, owner)
) ENGINE = InnoDB;

-- Which events of an external broker have been taken into the log, and up to where its streams were.
CREATE TABLE mainstay_inbox (
    event_id BINARY(16) NOT NULL PRIMARY KEY,
    at       BIGINT     NOT NULL DEFAULT (TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000),
    INDEX mainstay_inbox_at (at)
) ENGINE = InnoDB;

CREATE TABLE mainstay_event_intakes (
    topic  VARCHAR(100) CHARACTER SET ascii NOT NULL,
    stream INTEGER NOT NULL,
    place  BIGINT  NOT NULL,
    PRIMARY KEY (topic, stream)
) ENGINE = InnoDB;

-- What keys lock while their events are written, where the database has no advisory locks that end with a transaction.
CREATE TABLE mainstay_event_key_locks (
    bucket INTEGER NOT NULL PRIMARY KEY
) ENGINE = InnoDB;

INSERT INTO mainstay_event_key_locks (bucket)
WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < 511)
SELECT n FROM numbers;
