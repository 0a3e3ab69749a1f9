-- Gives each key its numbers; its row is locked until the commit, so that they rise by the order of commits.
CREATE TABLE key_counters (
    event_key VARCHAR(100) NOT NULL PRIMARY KEY,
    kseq      BIGINT NOT NULL
);

-- Written in the transaction that publishes.
CREATE TABLE sent (
    event_id   BINARY(16) NOT NULL,
    event_type VARCHAR(100) NOT NULL,
    event_key  VARCHAR(100) NOT NULL,
    kseq       BIGINT NOT NULL,
    temper     BIGINT NOT NULL
);

-- Written in the transaction that applies. It has no unique key but its own, so that duplicates are counted, not hidden.
CREATE TABLE applied (
    id        BIGINT AUTO_INCREMENT PRIMARY KEY,
    grp       VARCHAR(100) NOT NULL,
    event_id  BINARY(16) NOT NULL,
    event_key VARCHAR(100) NOT NULL,
    kseq      BIGINT NOT NULL,
    worker    VARCHAR(100) NOT NULL,
    at        TIMESTAMP DEFAULT CURRENT_TIMESTAMP
);

-- For transactions that have to have written something.
CREATE TABLE scratch (
    id BIGINT AUTO_INCREMENT PRIMARY KEY,
    n  BIGINT NOT NULL
);
