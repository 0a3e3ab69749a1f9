//! Ids that nobody can guess, without asking the kernel for each.

use std::hash::{BuildHasher, Hasher, RandomState};

/// 64 bits: SipHash under keys that the standard library seeds from the kernel once per thread and steps at every use.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The id of a new span, which may not be zero: a bit that is always set costs one of 64.
pub(super) fn span_id() -> u64 {
    random() | 1
}

/// The id of a new trace.
pub(super) fn trace_id() -> u128 {
    u128::from(random()) << 64 | u128::from(random()) | 1
}
