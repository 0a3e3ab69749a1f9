//! Structured concurrency under random interleavings: nothing outlives its scope, no limit is passed, nothing is lost.
#![expect(clippy::unwrap_used, reason = "a test that can not make its scene has failed")]
#![expect(clippy::print_stdout, reason = "a failed round has to tell its seed")]

mod chaos;
mod fan;
mod group;
mod pool;
mod singleflight;
