//! [`Roster`]: which component does what, and since when.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use crate::Component;

/// The components of a [`Lifecycle`](super::Lifecycle) and where each stands, to look at while it runs. A clone is the
/// same.
#[derive(Clone, Debug, Default)]
pub struct Roster(Arc<Mutex<Vec<Standing>>>);

/// Where one component stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its name.
    pub component: String,
    /// `waiting`, `starting`, `running`, `stopping` or `stopped`.
    pub stage: &'static str,
    /// Since when.
    pub since: Instant,
}

impl Roster {
    /// The components, in the order in which they start.
    pub fn components(&self) -> Vec<Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn add(&self, component: &dyn Component) {
        let standing = Standing { component: component.name().to_owned(), stage: "waiting", since: Instant::now() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(standing);
    }

    pub(super) fn note(&self, index: usize, stage: &'static str) {
        if let Some(standing) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index) {
            (standing.stage, standing.since) = (stage, Instant::now());
        }
    }
}
