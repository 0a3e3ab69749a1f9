//! The heap profile: jemalloc's own samples of what was allocated and not freed.

use mainstay_core::{Code, Error, Result};

pub(super) async fn heap() -> Result<Vec<u8>> {
    let Some(control) = jemalloc_pprof::PROF_CTL.as_ref() else {
        return Err(Error::new(
            Code::FailedPrecondition,
            "this process was started without heap sampling: start it with _RJEM_MALLOC_CONF=prof:true",
        ));
    };
    // The dump goes through a file and reads the program's symbols: not on a worker.
    let control = control.clone();
    let dump = move || control.blocking_lock().dump_pprof();
    let dumped = tokio::task::spawn_blocking(dump).await.map_err(Error::from_any)?;
    dumped.map_err(|error| Error::new(Code::Unavailable, "jemalloc gave no heap profile").context(format!("{error:#}")))
}
