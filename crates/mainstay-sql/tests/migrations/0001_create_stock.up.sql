-- What there is to sell.
CREATE TABLE stock (sku VARCHAR(64) NOT NULL PRIMARY KEY, amount BIGINT NOT NULL);
INSERT INTO stock (sku, amount) VALUES ('tea', 5);
