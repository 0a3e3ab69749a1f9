//! A service as a process, and a client that forgives nothing: what the tests of this crate watch from outside.

pub mod calls;
pub mod chaos;
pub mod guide;
pub mod load;
pub mod process;
