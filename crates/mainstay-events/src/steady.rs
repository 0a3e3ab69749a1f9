//! [`Steady`]: a task that goes on after a panic.

use futures_util::FutureExt;
use tokio::task::JoinHandle;

/// A task that begins again when it has panicked, whenever somebody looks.
pub(crate) struct Steady<F> {
    name: &'static str,
    start: F,
    /// None after an end in order.
    task: Option<JoinHandle<()>>,
}

impl<F: Fn() -> JoinHandle<()>> Steady<F> {
    pub(crate) fn new(name: &'static str, start: F) -> Self {
        let task = Some(start());
        Self { name, start, task }
    }

    pub(crate) fn look(&mut self) {
        if let Some(task) = self.task.take_if(|task| task.is_finished())
            && let Some(Err(error)) = task.now_or_never()
        {
            let name = self.name;
            tracing::error!(target: "mainstay::events", %error, "{name} ended by a panic; it begins again");
            self.task = Some((self.start)());
        }
    }

    /// The task as it is now; nobody starts it again.
    pub(crate) fn into_task(self) -> Option<JoinHandle<()>> {
        self.task
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_panic_is_followed_by_another_start_and_an_end_is_not() {
        let starts = Arc::new(AtomicU32::new(0));
        let counter = starts.clone();
        let mut steady = Steady::new("the task", move || {
            let start = counter.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move { assert!(start > 0, "the first one fails") })
        });
        for _ in 0..2 {
            while steady.task.as_ref().is_some_and(|task| !task.is_finished()) {
                tokio::task::yield_now().await;
            }
            steady.look();
        }
        steady.look();
        assert_eq!(starts.load(Ordering::SeqCst), 2);
    }
}
