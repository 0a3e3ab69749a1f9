//! [`Outcome`]: a row of the table, and the table.

use std::fmt::Write as _;
use std::time::Duration;

use mainstay::sql::Dialect;

use super::broker::Carrier;

/// What became of one fault on one database.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The number of the fault in the list of faults.
    pub number: &'static str,
    /// The fault in words.
    pub fault: &'static str,
    /// Where it happened.
    pub dialect: Dialect,
    /// With which broker.
    pub carrier: Carrier,
    /// How it went.
    pub result: Ran,
}

/// How a fault went on a database.
#[derive(Clone, Debug)]
pub enum Ran {
    /// It has no meaning there: why.
    NotApplicable(&'static str),
    /// It could not be tried: why.
    Skipped(String),
    /// It was tried.
    Counted(Box<Counts>),
}

/// The counts of a row.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// How often the fault was inflicted.
    pub injected: u64,
    /// Events committed.
    pub sent: usize,
    /// Rows of `applied`.
    pub applied: usize,
    /// Dead letters at the end.
    pub dead: usize,
    /// Committed and not applied.
    pub lost: usize,
    /// Applied again.
    pub duplicated: usize,
    /// Applied after a later one.
    pub out_of_order: usize,
    /// Applied and not committed.
    pub phantoms: usize,
    /// Undone on purpose by the producer.
    pub undone: usize,
    /// Commits whose outcome the producer was not told.
    pub unknown: usize,
    /// What replays it.
    pub seed: u64,
    /// How long all of it took.
    pub took: Duration,
    /// What was measured on the way.
    pub notes: Vec<String>,
    /// Why the row is a failure; empty if it is none.
    pub failures: Vec<String>,
}

impl Outcome {
    /// Whether it was tried and something was wrong.
    pub fn failed(&self) -> bool {
        matches!(&self.result, Ran::Counted(counts) if !counts.failures.is_empty())
    }

    fn row(&self) -> String {
        let (number, fault) = (self.number, self.fault);
        let database = format!("{}{}", self.dialect, self.carrier.title());
        match &self.result {
            Ran::NotApplicable(why) => format!("| {number} | {fault} | {database} | n/a: {why} |||||||||| "),
            Ran::Skipped(why) => format!("| {number} | {fault} | {database} | skipped: {why} |||||||||| "),
            Ran::Counted(counts) => {
                let Counts { injected, sent, applied, dead, lost, duplicated, out_of_order, phantoms, seed, .. } =
                    counts.as_ref();
                let verdict = if counts.failures.is_empty() { "holds" } else { "**FAILS**" };
                format!(
                    "| {number} | {fault} | {database} | {injected} | {sent} | {applied} | {dead} | {lost} | \
                     {duplicated} | {out_of_order} | {phantoms} | {} | {seed} | {verdict} |",
                    counts.unknown
                )
            }
        }
    }
}

/// The table in Markdown.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut table = String::from(
        "| # | fault | database | injected | sent | applied | dead | lost | duplicated | out of order | phantoms | \
         unknown commits | seed | |\n|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|\n",
    );
    for outcome in outcomes {
        let _ = writeln!(table, "{}", outcome.row().trim_end()); // a `String` takes all
    }
    table
}
