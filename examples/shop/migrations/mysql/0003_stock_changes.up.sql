-- Which requests have changed stock, so that a repeated one changes nothing.
CREATE TABLE stock_changes (
    request_id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY,
    sku        VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    delta      BIGINT      NOT NULL,
    changed_at DATETIME(6) NOT NULL
) ENGINE = InnoDB;
