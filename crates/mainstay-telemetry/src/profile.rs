//! Profiles: where processor time goes and what holds memory, in the format that `go tool pprof` reads.
//!
//! Each needs a cargo feature, because each brings code that no service needs to do its work: [`cpu`] the feature
//! `profile`, [`heap`] the feature `heap`. Without it they answer [`Code::Unimplemented`](mainstay_core::Code::Unimplemented) and name it.
//!
//! The CPU profile is taken by a signal that finds threads wherever they are, and follows their frame pointers: every
//! step is checked before it is taken, so that code without them ends a stack and can't crash the service. The program has
//! to be built with them (`-C force-frame-pointers=yes`), and with its symbols (`strip = "debuginfo"` at most). Two
//! things follow for whoever reads one. The innermost function of a sample is missing: what it used is shown at its
//! caller, in the line of the call. And a sample inside of a C library begins at the last Rust function.

use std::time::Duration;

use mainstay_core::{Context, Error, Result};

#[cfg(all(feature = "profile", unix))]
mod format;
#[cfg(feature = "heap")]
mod heap;
#[cfg(all(feature = "profile", unix))]
mod sampler;

/// The longest CPU profile.
pub const LONGEST: Duration = Duration::from_secs(300);

/// Where the process spends its processor time for `length`, at most [`LONGEST`]: 99 looks a second of such time, at all
/// threads. One profile at a time is taken in a process.
///
/// Cancel safe: a call that is dropped, or whose `ctx` is done, ends the profile.
///
/// # Errors
/// [`Code::Unimplemented`](mainstay_core::Code::Unimplemented) without the feature `profile` or off Unix, [`Code::InvalidArgument`](mainstay_core::Code::InvalidArgument) for a length of zero or
/// above [`LONGEST`], [`Code::FailedPrecondition`](mainstay_core::Code::FailedPrecondition) while another profile is taken, [`Code::Unavailable`](mainstay_core::Code::Unavailable) where the profiler
/// finds no temporary folder to write to.
pub async fn cpu(ctx: &Context, length: Duration) -> Result<Vec<u8>> {
    if length.is_zero() || length > LONGEST {
        let message = format!("seconds: expected a whole number from 1 to {}", LONGEST.as_secs());
        return Err(Error::invalid_argument(message));
    }
    #[cfg(all(feature = "profile", unix))]
    return sampler::cpu(ctx, length).await;
    #[cfg(not(all(feature = "profile", unix)))]
    {
        let _ = ctx;
        Err(Error::new(
            mainstay_core::Code::Unimplemented,
            "this program was built without CPU profiles: build it with the feature `profile` of the crate `mainstay`, \
             which is among the default ones, on Linux or macOS",
        ))
    }
}

/// What holds the memory that is allocated now, by where it was allocated, as sampled since the process began.
///
/// # Errors
/// [`Code::Unimplemented`](mainstay_core::Code::Unimplemented) without the feature `heap`; [`Code::FailedPrecondition`](mainstay_core::Code::FailedPrecondition) in a process that was started without
/// sampling.
pub async fn heap() -> Result<Vec<u8>> {
    #[cfg(feature = "heap")]
    return heap::heap().await;
    #[cfg(not(feature = "heap"))]
    Err(Error::new(
        mainstay_core::Code::Unimplemented,
        "this program was built without heap profiles: build it with the feature `heap` of the crate `mainstay`, and start \
         it with _RJEM_MALLOC_CONF=prof:true",
    ))
}
