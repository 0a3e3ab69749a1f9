//! [`Watchers`]: wakes those who wait for a change of an order, in this process.

use std::sync::Arc;
use std::time::Duration;

use mainstay::prelude::*;
use tokio::sync::watch;
use tokio::time::timeout;

/// How many bells there are. Orders share them, so that their number doesn't grow with that of the watchers; who is woken
/// by the change of another order looks once in vain.
const BELLS: usize = 256;

/// How often a watcher looks without having been told: changes that another process made tell nobody here.
const LOOK: Duration = Duration::from_secs(1);

/// Those who wait for changes of orders. A clone is a handle to the same.
#[derive(Clone, Debug)]
pub struct Watchers(Arc<[watch::Sender<()>]>);

/// One who waits for changes of an order.
pub struct Watcher {
    bell: watch::Receiver<()>,
    /// Keeps the bell, which would be no pause at all once it is gone.
    _watchers: Watchers,
}

impl Watchers {
    /// Nobody waits yet.
    pub fn new() -> Self {
        Self((0..BELLS).map(|_| watch::Sender::new(())).collect())
    }

    /// Wakes who waits for the order `id`, once `tx` is committed.
    ///
    /// # Errors
    /// The transaction has ended.
    pub fn tell(&self, tx: &Tx, id: Uuid) -> Result<()> {
        let bell = self.bell(id).clone();
        tx.after_commit(move || bell.send_replace(()))
    }

    /// Waits for changes of the order `id` from now on: what is read after this call misses none.
    pub fn watch(&self, id: Uuid) -> Watcher {
        Watcher { bell: self.bell(id).subscribe(), _watchers: self.clone() }
    }

    fn bell(&self, id: Uuid) -> &watch::Sender<()> {
        // The last byte of a UUIDv7 is random.
        &self.0[usize::from(id.as_bytes()[15]) % BELLS]
    }
}

impl Watcher {
    /// Waits until the order may have changed.
    pub async fn changed(&mut self) {
        let _ = timeout(LOOK, self.bell.changed()).await;
    }
}

impl Default for Watchers {
    fn default() -> Self {
        Self::new()
    }
}
