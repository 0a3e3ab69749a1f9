-- Keys compare byte by byte (utf8mb4_bin), as on the other databases, so that paging has one order everywhere.
CREATE TABLE products (
    sku         VARCHAR(64)  CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY,
    name        VARCHAR(200) CHARACTER SET utf8mb4 NOT NULL,
    price_cents BIGINT       NOT NULL CHECK (price_cents >= 0),
    stock       BIGINT       NOT NULL CHECK (stock >= 0)
) ENGINE = InnoDB;

CREATE TABLE orders (
    id          BINARY(16)   NOT NULL PRIMARY KEY,
    customer    VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    status      VARCHAR(16)  CHARACTER SET ascii NOT NULL
                CHECK (status IN ('pending', 'confirmed', 'rejected', 'cancelled')),
    reason      VARCHAR(200) CHARACTER SET utf8mb4,
    total_cents BIGINT       NOT NULL CHECK (total_cents >= 0),
    created_at  DATETIME(6)  NOT NULL,
    -- Ids are UUIDv7: the order of ids is the order of time, so that every list is a walk along one of these.
    INDEX orders_customer (customer, id),
    INDEX orders_status (status, id),
    INDEX orders_customer_status (customer, status, id)
) ENGINE = InnoDB;

CREATE TABLE order_lines (
    order_id    BINARY(16)  NOT NULL,
    line        BIGINT      NOT NULL,
    sku         VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    quantity    BIGINT      NOT NULL CHECK (quantity > 0),
    price_cents BIGINT      NOT NULL CHECK (price_cents >= 0),
    PRIMARY KEY (order_id, line),
    INDEX order_lines_sku (sku),
    CONSTRAINT order_lines_order FOREIGN KEY (order_id) REFERENCES orders (id),
    CONSTRAINT order_lines_product FOREIGN KEY (sku) REFERENCES products (sku)
) ENGINE = InnoDB;
