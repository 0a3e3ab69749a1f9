-- Whether the order's stock was taken and not put back. A status doesn't say it: a cancelled order may have been cancelled
-- before its stock was taken, or after, or have put it back already.
ALTER TABLE orders ADD COLUMN holds_stock BOOLEAN NOT NULL DEFAULT FALSE;

-- The number of the order's last change.
ALTER TABLE orders ADD COLUMN version BIGINT NOT NULL DEFAULT 1;

-- Where the order stood, change by change: written with the change, read by those who watch the order.
CREATE TABLE order_changes (
    order_id   BINARY(16)   NOT NULL,
    number     BIGINT       NOT NULL,
    status     VARCHAR(16)  CHARACTER SET ascii NOT NULL
               CHECK (status IN ('pending', 'confirmed', 'rejected', 'cancelled')),
    reason     VARCHAR(200) CHARACTER SET utf8mb4,
    changed_at DATETIME(6)  NOT NULL,
    PRIMARY KEY (order_id, number),
    CONSTRAINT order_changes_order FOREIGN KEY (order_id) REFERENCES orders (id)
) ENGINE = InnoDB;

-- How older orders came to where they stand is not known: that they stand there is their first change. A pending one was
-- placed before there were events, so nothing will confirm it; it can be cancelled.
INSERT INTO order_changes (order_id, number, status, reason, changed_at)
SELECT id, version, status, reason, created_at FROM orders;
