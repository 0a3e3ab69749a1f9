//! The event chaos rig: a producer, workers and their database as separate processes, faults from a seed, and a
//! checker that counts what was lost, duplicated and out of order.
//!
//! A *cell* is one fault on one database ([`cell`]). Its producer writes a ledger of what it sent in the transaction that
//! publishes; its workers write what they applied, without a unique key, so that duplicates are counted and not
//! hidden ([`history`]). What has to be true in the end, whatever was done to them, is in [`check`].
//!
//! `just chaos` runs the long form and prints a table, `tests/chaos.rs` the short one. `RIG_SEED` replays a run.

pub mod broker;
pub mod cell;
pub mod check;
pub mod disk;
pub mod faults;
pub mod fleet;
pub mod form;
pub mod history;
pub mod ledger;
pub mod proxy;
pub mod random;
pub mod server;
pub mod store;
pub mod table;
