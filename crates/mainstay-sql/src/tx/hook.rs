//! [`CommitHook`]: what another crate does at the end of a transaction, as a part of it; and what is done right after.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use mainstay_core::{BoxFuture, Context, Result};

use super::Tx;

/// Something that was handed to [`Tx::defer`] and waits for the end of its transaction.
pub type Deferred = Box<dyn Any + Send>;

/// What is done at the end of a database's transactions with what was deferred in them; see [`Db::set_commit_hook`].
///
/// Items are gathered while a transaction runs. Those of a savepoint that was undone, and those of an attempt that lost
/// a conflict, are gone with it. What is left is handed to `before_commit` once, in the order in which it was deferred.
///
/// [`Db::set_commit_hook`]: crate::Db::set_commit_hook
pub trait CommitHook: Any + Send + Sync {
    /// Called after the closure returned `Ok` and before COMMIT, if anything was deferred; `tx` is the transaction. An
    /// error rolls everything back, and is tried again if it is a conflict.
    fn before_commit<'a>(&'a self, ctx: &'a Context, tx: &'a Tx, items: Vec<Deferred>) -> BoxFuture<'a, Result<()>>;

    /// Called after a COMMIT that may have taken effect, also when nobody waits for it any more.
    fn after_commit(&self, committed: Committed);
}

/// What is known of a COMMIT.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Committed {
    /// The database said so.
    Yes,
    /// The answer never came; see [`CommitUnknown`](crate::CommitUnknown).
    Unknown,
}

/// What [`Tx::after_commit`] keeps among the deferred items, so that it stands and falls with its savepoint as they do.
pub(super) struct After(pub(super) Box<dyn FnOnce() + Send>);

/// What comes after the COMMIT of one transaction: its own doings, then the database's hook if that has items here.
pub(super) struct Ending {
    hook: Option<Arc<dyn CommitHook>>,
    after: Mutex<Vec<After>>,
}

impl Ending {
    pub(super) fn new(hook: Option<Arc<dyn CommitHook>>, after: Vec<After>) -> Self {
        Self { hook, after: Mutex::new(after) }
    }
}

impl CommitHook for Ending {
    fn before_commit<'a>(&'a self, ctx: &'a Context, tx: &'a Tx, items: Vec<Deferred>) -> BoxFuture<'a, Result<()>> {
        match &self.hook {
            Some(hook) => hook.before_commit(ctx, tx, items),
            None => Box::pin(async { Ok(()) }),
        }
    }

    fn after_commit(&self, committed: Committed) {
        let after = std::mem::take(&mut *self.after.lock().unwrap_or_else(PoisonError::into_inner));
        for After(run) in after {
            // What is committed is so, whatever comes after it makes of that.
            if catch_unwind(AssertUnwindSafe(run)).is_err() {
                tracing::error!(target: "mainstay::sql", ?committed, "what was to be done after a COMMIT panicked");
            }
        }
        if let Some(hook) = &self.hook {
            hook.after_commit(committed);
        }
    }
}
