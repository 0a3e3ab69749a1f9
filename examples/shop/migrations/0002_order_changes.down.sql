DROP TABLE order_changes;
ALTER TABLE orders DROP COLUMN version;
ALTER TABLE orders DROP COLUMN holds_stock;
