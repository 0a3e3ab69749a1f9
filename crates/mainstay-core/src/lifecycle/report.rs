//! What a [`Lifecycle`](super::Lifecycle) tells of itself.

use std::fmt;
use std::time::Duration;

use crate::Error;

/// Where a service stands.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Phase {
    /// Components are starting; not ready.
    Starting,
    /// All components run.
    Ready,
    /// Asked to stop; not ready, work in hand is being finished.
    Draining,
    /// Nothing runs any more.
    Stopped,
}

/// How a service ended.
#[derive(Debug, Default)]
pub struct Report {
    /// Why it ended, unless it was asked to: a start that failed or a component that ended by itself.
    pub error: Option<Error>,
    /// What each component did at its stop, in the order of stopping.
    pub stopped: Vec<Stopped>,
    /// Whether it was asked to stop before it was ready.
    pub cancelled: bool,
    /// Whether a second stop ended the ordered one before it was through.
    pub hurried: bool,
}

/// How one component stopped.
#[derive(Debug)]
pub struct Stopped {
    /// Its name.
    pub component: String,
    /// How long it took.
    pub took: Duration,
    /// The names of what was cut.
    pub cut: Vec<String>,
}

impl Report {
    /// Whether nothing failed and nothing was cut: exit code 0. Anything else is exit code 1.
    pub fn is_clean(&self) -> bool {
        self.error.is_none() && !self.hurried && self.stopped.iter().all(|stopped| stopped.cut.is_empty())
    }
}

/// A line for each thing that was cut; nothing for a clean stop.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.hurried {
            writeln!(f, "stopped at once by a second signal; work in hand was not finished")?;
        }
        for stopped in &self.stopped {
            for cut in &stopped.cut {
                writeln!(f, "{}: cut {cut} after {:.1?}", stopped.component, stopped.took)?;
            }
        }
        Ok(())
    }
}
