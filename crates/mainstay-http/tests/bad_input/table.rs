//! `docs/bad-input.md` as data.

use crate::exchange::Outcome;

/// A row: what comes in and what becomes of it.
pub(crate) struct Row {
    pub(crate) input: String,
    pub(crate) expected: Outcome,
}

/// Every row of the table.
pub(crate) fn rows() -> Vec<Row> {
    let lines = include_str!("../../docs/bad-input.md").lines().filter(|line| line.starts_with('|'));
    let rows = lines.skip(2).map(|line| {
        let cells: Vec<_> =
            line.trim_matches('|').split('|').map(|cell| cell.replace('`', "").trim().to_owned()).collect();
        let [input, answer, connection] = cells.try_into().unwrap_or_else(|_| panic!("not three cells: {line}"));
        Row { input, expected: Outcome { answer, connection } }
    });
    let rows: Vec<_> = rows.collect();
    assert!(rows.len() > 10, "the table in docs/bad-input.md was not found");
    rows
}
