-- Which requests have changed stock, so that a repeated one changes nothing.
CREATE TABLE stock_changes (
    request_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    sku        TEXT COLLATE "C" NOT NULL,
    delta      BIGINT NOT NULL,
    changed_at TIMESTAMPTZ NOT NULL
);
