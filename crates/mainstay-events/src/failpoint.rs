//! Named points at which a test ends the process, as `kill -9` would: feature `failpoints`, never in a service.

/// Ends the process if `MAINSTAY_FAILPOINT` is `name:n` and this is the `n`-th time that the point is passed.
#[cfg(feature = "failpoints")]
pub(crate) fn failpoint(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static ARMED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let armed = ARMED.get_or_init(|| {
        let variable = std::env::var("MAINSTAY_FAILPOINT").ok()?;
        let (name, count) = variable.rsplit_once(':')?;
        Some((name.to_owned(), count.parse().ok()?))
    });
    if let Some((point, count)) = armed
        && point == name
        && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *count
    {
        std::process::abort();
    }
}

#[cfg(not(feature = "failpoints"))]
#[inline]
pub(crate) fn failpoint(_name: &str) {}
