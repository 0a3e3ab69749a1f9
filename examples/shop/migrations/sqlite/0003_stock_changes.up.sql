-- Which requests have changed stock, so that a repeated one changes nothing.
CREATE TABLE stock_changes (
    request_id TEXT    NOT NULL PRIMARY KEY,
    sku        TEXT    NOT NULL,
    delta      INTEGER NOT NULL,
    changed_at TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
