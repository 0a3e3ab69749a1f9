-- The way that events take out of the outbox: `embedded`, or the name of a broker. One row, written by the first start. While
-- `next_route` is set, nothing leaves the outbox: a cut-over waits until what has left it before has arrived. Until
-- `noted_until`, copies of events may still come from the broker that was left.
CREATE TABLE mainstay_event_route (
    id          INTEGER NOT NULL PRIMARY KEY,
    route       VARCHAR(100) NOT NULL,
    next_route  VARCHAR(100),
    noted_until BIGINT NOT NULL DEFAULT 0
);

-- Whose place it is; NULL in rows from before this was known.
ALTER TABLE mainstay_event_intakes ADD COLUMN broker TEXT;
