//! [`Pace`]: how many events a group applies in one transaction.

use std::sync::Mutex;
use std::sync::PoisonError;

/// Transactions that have to go well before their size is doubled: at first, and at most.
const PATIENCE: u32 = 16;
const MOST_PATIENCE: u32 = 16_384;

/// The size of a group's transactions in this process, for all its partitions together.
///
/// Sharing a transaction saves commits, and holds the locks of all its events at once: where handlers change the same
/// rows, such transactions deadlock where single ones would wait for each other, and on PostgreSQL it takes a second
/// until that is seen. So they begin single and double as long as all goes well; a conflict makes them single again, and
/// the way up twice as long.
pub(crate) struct Pace {
    most: u32,
    state: Mutex<State>,
}

struct State {
    size: u32,
    calm: u32,
    patience: u32,
}

impl Pace {
    pub(crate) fn new(most: u32) -> Self {
        Self { most, state: Mutex::new(State { size: 1, calm: 0, patience: PATIENCE }) }
    }

    /// How many events the next transaction may have.
    pub(crate) fn size(&self) -> u32 {
        self.lock().size
    }

    pub(crate) fn went_well(&self) {
        let mut state = self.lock();
        state.calm += 1;
        if state.calm >= state.patience {
            state.size = state.size.saturating_mul(2).min(self.most);
            state.calm = 0;
        }
    }

    pub(crate) fn conflicted(&self) {
        let mut state = self.lock();
        let patience = state.patience.saturating_mul(2).min(MOST_PATIENCE);
        *state = State { size: 1, calm: 0, patience };
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_while_all_goes_well_and_is_single_after_a_conflict() {
        let pace = Pace::new(5);
        let mut sizes = vec![pace.size()];
        for _ in 0..4 {
            (0..PATIENCE).for_each(|_| pace.went_well());
            sizes.push(pace.size());
        }
        assert_eq!(sizes, [1, 2, 4, 5, 5]);
        pace.conflicted();
        assert_eq!(pace.size(), 1);
        (0..PATIENCE).for_each(|_| pace.went_well());
        assert_eq!(pace.size(), 1, "the way up is twice as long");
        (0..PATIENCE).for_each(|_| pace.went_well());
        assert_eq!(pace.size(), 2);
    }
}
