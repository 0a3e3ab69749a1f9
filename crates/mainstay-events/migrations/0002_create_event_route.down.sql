ALTER TABLE mainstay_event_intakes DROP COLUMN broker;
DROP TABLE mainstay_event_route;
