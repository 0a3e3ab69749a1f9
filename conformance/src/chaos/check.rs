//! The invariants: what has to be true of a [`History`] whatever was done to the processes that made it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use mainstay::prelude::Uuid;

use super::history::{History, Temper};

/// Which groups consume an event type, and what a run allows.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Event types with their consumer groups.
    pub groups: &'static [(&'static str, &'static str)],
    /// No event is tried more often.
    pub max_attempts: i64,
    /// Whether the handler was mended before the end, so that poison was applied after all.
    pub mended: bool,
}

/// What was found, each an event and its group in words.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// L: committed, and neither applied nor, where its temper allows that, given up.
    pub lost: Vec<String>,
    /// P: applied and never committed, or committed after its producer was told that it was not.
    pub phantoms: Vec<String>,
    /// X: applied more than once.
    pub duplicated: Vec<String>,
    /// O: applied after a later one of its key.
    pub out_of_order: Vec<String>,
    /// D: in two places at once, given up without a reason, or tried too often.
    pub misplaced: Vec<String>,
}

impl Verdict {
    /// Whether every invariant holds.
    pub fn holds(&self) -> bool {
        self.all().iter().all(|(_, _, found)| found.is_empty())
    }

    fn all(&self) -> [(&'static str, &'static str, &[String]); 5] {
        [
            ("L", "lost", &self.lost),
            ("P", "phantoms", &self.phantoms),
            ("X", "duplicated", &self.duplicated),
            ("O", "out of order", &self.out_of_order),
            ("D", "misplaced", &self.misplaced),
        ]
    }
}

/// The counts of what doesn't hold, with the first few of each.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (letter, name, found) in self.all().into_iter().filter(|(_, _, found)| !found.is_empty()) {
            write!(f, "{letter}: {} {name}", found.len())?;
            for one in found.iter().take(5) {
                write!(f, "\n   {one}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Checks L, P, X, O and D. Q and B are about time and tables, and are awaited before.
pub fn check(history: &History, rules: &Rules) -> Verdict {
    let mut verdict = Verdict::default();
    applications(history, rules, &mut verdict);
    order(history, rules, &mut verdict);
    verdict
}

/// L, P, X and D: where each committed event is, group by group.
fn applications(history: &History, rules: &Rules, verdict: &mut Verdict) {
    let mut applied: HashMap<(&str, Uuid), u64> = HashMap::new();
    let committed: HashSet<Uuid> = history.sent.iter().map(|sent| sent.event_id).collect();
    for row in &history.applied {
        *applied.entry((&row.group, row.event_id)).or_default() += 1;
        if !committed.contains(&row.event_id) {
            let why = if history.undone.contains(&row.event_id) { "undone by its producer" } else { "never committed" };
            verdict
                .phantoms
                .push(format!("{} of {} was {why}, and applied as {}", row.event_id, row.key, row.position));
        }
    }
    for sent in history.sent.iter().filter(|sent| history.undone.contains(&sent.event_id)) {
        verdict
            .phantoms
            .push(format!("{} of {} was committed, and its producer was told that not", sent.event_id, sent.key));
    }
    let places = |rows: &[super::history::Parked]| {
        let mut places: HashMap<(String, Uuid), (u64, i64)> = HashMap::new();
        for row in rows {
            let place = places.entry((row.group.clone(), row.event_id)).or_default();
            *place = (place.0 + 1, place.1.max(row.attempts));
        }
        places
    };
    let (retries, dead) = (places(&history.retries), places(&history.dead));
    for sent in &history.sent {
        for (_, group) in rules.groups.iter().filter(|(event_type, _)| *event_type == sent.event_type) {
            let name = format!("{} ({} {} of {}, {:?})", sent.event_id, group, sent.kseq, sent.key, sent.temper);
            let place = ((*group).to_owned(), sent.event_id);
            let applied = applied.get(&(*group, sent.event_id)).copied().unwrap_or(0);
            let (waiting, _) = retries.get(&place).copied().unwrap_or_default();
            let (given_up, attempts) = dead.get(&place).copied().unwrap_or_default();
            if applied > 1 {
                verdict.duplicated.push(format!("{name}: {applied} times"));
            }
            if applied + waiting + given_up == 0 {
                verdict.lost.push(name.clone());
            }
            if applied.min(1) + waiting + given_up > 1 {
                verdict
                    .misplaced
                    .push(format!("{name}: {applied} applied, {waiting} retries, {given_up} dead letters"));
            }
            if given_up > 0 && (sent.temper == Temper::Tame || rules.mended) {
                verdict.misplaced.push(format!("{name}: given up without a reason"));
            }
            if attempts > rules.max_attempts {
                verdict.misplaced.push(format!("{name}: tried {attempts} times"));
            }
            if applied > 0 && sent.temper.is_poison() && !rules.mended {
                verdict.misplaced.push(format!("{name}: applied although its handler can't"));
            }
        }
    }
}

/// O: by position, the number within a key rises. What was redriven comes late by its nature, and doesn't count.
fn order(history: &History, rules: &Rules, verdict: &mut Verdict) {
    let redriven = history.sent.iter().filter(|sent| rules.mended && sent.temper != Temper::Tame);
    let redriven: HashSet<Uuid> = redriven.map(|sent| sent.event_id).collect();
    let mut rows: Vec<_> = history.applied.iter().filter(|row| !redriven.contains(&row.event_id)).collect();
    rows.sort_by_key(|row| row.position);
    let mut highest: BTreeMap<(&str, &str), (i64, Uuid)> = BTreeMap::new();
    let mut seen = HashSet::new();
    for row in rows {
        // A second application is a duplicate, told as such, and no second mistake.
        if !seen.insert((&row.group, row.event_id)) {
            continue;
        }
        let last = highest.entry((&row.group, &row.key)).or_insert((i64::MIN, row.event_id));
        if row.kseq < last.0 {
            verdict.out_of_order.push(format!(
                "{} of {}: {} applied as {} after {} ({})",
                row.group, row.key, row.kseq, row.position, last.0, row.worker
            ));
        }
        *last = (*last).max((row.kseq, row.event_id));
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
