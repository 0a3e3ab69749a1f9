DROP TABLE applied;
DROP TABLE sent;
DROP TABLE key_counters;
DROP TABLE scratch;
