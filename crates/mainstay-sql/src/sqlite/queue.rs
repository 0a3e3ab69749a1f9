//! [`Queue`]: jobs in the order they came, for one thread or several, in two lines that take turns.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Which line a job stands in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Line {
    /// Someone waits for it.
    Foreground,
    /// Nobody does, and there may be a backlog of its kind.
    Background,
}

/// Two first-in first-out lines, served alternately while both have jobs, so that neither makes the other wait for more
/// than one job at a time. They have no bound of their own: each waiting job has a caller who is bounded.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

/// What stands in a [`Queue`].
pub(super) trait Waiting {
    /// Whether its caller has left. Such a job is dropped when its turn comes, and takes no turn from the others.
    fn is_given_up(&self) -> bool;
}

struct State<T> {
    foreground: VecDeque<T>,
    background: VecDeque<T>,
    /// The line that was served last.
    last: Line,
    closed: bool,
}

impl<T: Waiting> Queue<T> {
    pub(super) fn new() -> Self {
        let state =
            State { foreground: VecDeque::new(), background: VecDeque::new(), last: Line::Background, closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Adds `job` at the end of `line`, or gives it back when the queue is closed.
    pub(super) fn push(&self, line: Line, job: T) -> Result<(), T> {
        let mut state = self.lock();
        if state.closed {
            return Err(job);
        }
        state.line(line).push_back(job);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// The next job. Waits for it without end; `None` means closed and empty.
    pub(super) fn pop(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.next() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes no more jobs; those inside are still handed out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Takes no more jobs and drops those inside, so that their callers learn of it.
    pub(super) fn clear(&self) {
        self.close();
        let jobs = {
            let mut state = self.lock();
            (std::mem::take(&mut state.foreground), std::mem::take(&mut state.background))
        };
        drop(jobs);
    }

    pub(super) fn len(&self) -> usize {
        let state = self.lock();
        state.foreground.len() + state.background.len()
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Waiting> State<T> {
    fn next(&mut self) -> Option<T> {
        let turn = match self.last {
            Line::Foreground => [Line::Background, Line::Foreground],
            Line::Background => [Line::Foreground, Line::Background],
        };
        for line in turn {
            while let Some(job) = self.line(line).pop_front() {
                if !job.is_given_up() {
                    self.last = line;
                    return Some(job);
                }
            }
        }
        None
    }

    fn line(&mut self, line: Line) -> &mut VecDeque<T> {
        match line {
            Line::Foreground => &mut self.foreground,
            Line::Background => &mut self.background,
        }
    }
}

/// How long a thread waits between looks at what can't wake it.
pub(super) const LOOK: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Line::{Background, Foreground};
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Job(&'static str);

    impl Waiting for Job {
        fn is_given_up(&self) -> bool {
            self.0.starts_with("left")
        }
    }

    fn queue(jobs: &[(Line, &'static str)]) -> Queue<Job> {
        let queue = Queue::new();
        for (line, job) in jobs {
            queue.push(*line, Job(job)).unwrap();
        }
        queue
    }

    fn all(queue: &Queue<Job>) -> Vec<&'static str> {
        queue.close();
        std::iter::from_fn(|| queue.pop()).map(|job| job.0).collect()
    }

    #[test]
    fn each_line_keeps_its_order() {
        for line in [Foreground, Background] {
            assert_eq!(all(&queue(&[(line, "1"), (line, "2"), (line, "3")])), ["1", "2", "3"]);
        }
    }

    #[test]
    fn the_lines_take_turns_while_both_wait() {
        let backlog = [(Background, "b1"), (Background, "b2"), (Background, "b3"), (Background, "b4")];
        let requests = [(Foreground, "f1"), (Foreground, "f2")];
        let expected = ["f1", "b1", "f2", "b2", "b3", "b4"];
        assert_eq!(all(&queue(&[backlog.as_slice(), &requests].concat())), expected);
        assert_eq!(all(&queue(&[requests.as_slice(), &backlog].concat())), expected);
    }

    #[test]
    fn whoever_comes_while_the_other_line_is_served_is_next() {
        for (one, other) in [(Foreground, Background), (Background, Foreground)] {
            let queue = queue(&[(one, "1"), (one, "2"), (one, "3")]);
            assert_eq!(queue.pop(), Some(Job("1")));
            assert_eq!(queue.pop(), Some(Job("2"))); // alone, it is served again and again, and owes nothing for it
            queue.push(other, Job("other")).unwrap();
            assert_eq!(all(&queue), ["other", "3"]);
        }
    }

    #[test]
    fn a_job_that_was_given_up_takes_no_turn() {
        let jobs = [(Foreground, "left 1"), (Foreground, "f1"), (Foreground, "left 2"), (Foreground, "f2")];
        let backlog = [(Background, "b1"), (Background, "left 3"), (Background, "b2")];
        assert_eq!(all(&queue(&[jobs.as_slice(), &backlog].concat())), ["f1", "b1", "f2", "b2"]);
    }

    #[test]
    fn a_closed_queue_hands_out_what_it_has_and_takes_no_more() {
        let queue = queue(&[(Background, "1"), (Foreground, "2")]);
        queue.close();
        assert_eq!(queue.push(Foreground, Job("3")), Err(Job("3")));
        assert_eq!(queue.push(Background, Job("4")), Err(Job("4")));
        assert_eq!(queue.len(), 2);
        assert_eq!(all(&queue), ["2", "1"]);
        assert_eq!((queue.pop(), queue.len()), (None, 0));
    }

    #[test]
    fn a_cleared_queue_is_closed_and_empty() {
        let queue = queue(&[(Background, "1"), (Foreground, "2")]);
        queue.clear();
        assert_eq!((queue.len(), queue.pop()), (0, None));
        assert_eq!(queue.push(Foreground, Job("3")), Err(Job("3")));
    }

    #[test]
    fn a_thread_that_waits_is_woken_by_either_line_and_by_the_end() {
        let queue = Arc::new(queue(&[]));
        let thread = std::thread::spawn({
            let queue = queue.clone();
            move || std::iter::from_fn(|| queue.pop()).map(|job| job.0).collect::<Vec<_>>()
        });
        for (line, job) in [(Background, "1"), (Foreground, "2")] {
            queue.push(line, Job(job)).unwrap();
            while queue.len() > 0 {
                std::thread::yield_now();
            }
        }
        queue.close();
        assert_eq!(thread.join().unwrap(), ["1", "2"]);
    }
}
