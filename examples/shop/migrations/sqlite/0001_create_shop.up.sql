CREATE TABLE products (
    sku         TEXT    NOT NULL PRIMARY KEY,
    name        TEXT    NOT NULL,
    price_cents INTEGER NOT NULL CHECK (price_cents >= 0),
    stock       INTEGER NOT NULL CHECK (stock >= 0)
) STRICT, WITHOUT ROWID;

CREATE TABLE orders (
    id          BLOB    NOT NULL PRIMARY KEY,
    customer    TEXT    NOT NULL,
    status      TEXT    NOT NULL CHECK (status IN ('pending', 'confirmed', 'rejected', 'cancelled')),
    reason      TEXT,
    total_cents INTEGER NOT NULL CHECK (total_cents >= 0),
    created_at  TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- Ids are UUIDv7: the order of ids is the order of time, so that every list is a walk along one of these.
CREATE INDEX orders_customer ON orders (customer, id);
CREATE INDEX orders_status ON orders (status, id);
CREATE INDEX orders_customer_status ON orders (customer, status, id);

CREATE TABLE order_lines (
    order_id    BLOB    NOT NULL REFERENCES orders (id),
    line        INTEGER NOT NULL,
    sku         TEXT    NOT NULL REFERENCES products (sku),
    quantity    INTEGER NOT NULL CHECK (quantity > 0),
    price_cents INTEGER NOT NULL CHECK (price_cents >= 0),
    PRIMARY KEY (order_id, line)
) STRICT, WITHOUT ROWID;

CREATE INDEX order_lines_sku ON order_lines (sku);
