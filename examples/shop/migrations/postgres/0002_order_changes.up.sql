-- Whether the order's stock was taken and not put back. A status doesn't say it: a cancelled order may have been cancelled
-- before its stock was taken, or after, or have put it back already.
ALTER TABLE orders ADD COLUMN holds_stock BOOLEAN NOT NULL DEFAULT FALSE;

-- The number of the order's last change.
ALTER TABLE orders ADD COLUMN version BIGINT NOT NULL DEFAULT 1;

-- Where the order stood, change by change: written with the change, read by those who watch the order.
CREATE TABLE order_changes (
    order_id   UUID        NOT NULL REFERENCES orders (id),
    number     BIGINT      NOT NULL,
    status     TEXT        NOT NULL CHECK (status IN ('pending', 'confirmed', 'rejected', 'cancelled')),
    reason     TEXT,
    changed_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (order_id, number)
);

-- How older orders came to where they stand is not known: that they stand there is their first change. A pending one was
-- placed before there were events, so nothing will confirm it; it can be cancelled.
INSERT INTO order_changes (order_id, number, status, reason, changed_at)
SELECT id, version, status, reason, created_at FROM orders;
