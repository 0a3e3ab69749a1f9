-- Keys compare byte by byte (COLLATE "C"), as on the other databases, so that paging has one order everywhere.
CREATE TABLE products (
    sku         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name        TEXT   NOT NULL,
    price_cents BIGINT NOT NULL CHECK (price_cents >= 0),
    stock       BIGINT NOT NULL CHECK (stock >= 0)
);

CREATE TABLE orders (
    id          UUID        NOT NULL PRIMARY KEY,
    customer    TEXT COLLATE "C" NOT NULL,
    status      TEXT        NOT NULL CHECK (status IN ('pending', 'confirmed', 'rejected', 'cancelled')),
    reason      TEXT,
    total_cents BIGINT      NOT NULL CHECK (total_cents >= 0),
    created_at  TIMESTAMPTZ NOT NULL
);

-- Ids are UUIDv7: the order of ids is the order of time, so that every list is a walk along one of these.
CREATE INDEX orders_customer ON orders (customer, id);
CREATE INDEX orders_status ON orders (status, id);
CREATE INDEX orders_customer_status ON orders (customer, status, id);

CREATE TABLE order_lines (
    order_id    UUID   NOT NULL REFERENCES orders (id),
    line        BIGINT NOT NULL,
    sku         TEXT COLLATE "C" NOT NULL REFERENCES products (sku),
    quantity    BIGINT NOT NULL CHECK (quantity > 0),
    price_cents BIGINT NOT NULL CHECK (price_cents >= 0),
    PRIMARY KEY (order_id, line)
);

CREATE INDEX order_lines_sku ON order_lines (sku);
