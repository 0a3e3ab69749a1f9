//! [`CommitHook`]: what another crate does at the end of a transaction, as a part of it.

use std::any::Any;

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
