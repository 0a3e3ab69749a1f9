//! Warnings about statements that stop others from working while they run.
//!
//! They know PostgreSQL, where each of these has a way that doesn't block. They are advice: nothing is refused.

use crate::driver::Dialect;
use crate::lexer;

/// One sentence for each finding, with what to do instead.
pub(super) fn warnings(dialect: Dialect, statements: &[&str]) -> Vec<String> {
    if dialect != Dialect::Postgres {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut created = Vec::new(); // tables made by the same migration are empty, and nobody uses them
    for statement in statements {
        let code: Vec<_> = lexer::code(dialect, statement).collect();
        let words: Vec<_> = code.iter().map(|piece| piece.to_ascii_uppercase()).collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["CREATE", "TABLE", "IF", "NOT", "EXISTS", rest @ ..] | ["CREATE", "TABLE", rest @ ..] => {
                created.push(name(rest));
            }
            ["CREATE", "INDEX", rest @ ..] | ["CREATE", "UNIQUE", "INDEX", rest @ ..] => {
                let table = rest.iter().position(|word| *word == "ON").and_then(|on| rest.get(on + 1..)).map(name);
                if let Some(table) =
                    table.filter(|table| !rest.starts_with(&["CONCURRENTLY"]) && !created.contains(table))
                {
                    found.push(format!(
                        "CREATE INDEX stops all writes to {} while it builds: use CREATE INDEX CONCURRENTLY in a \
                         migration that begins with `-- mainstay: no transaction`",
                        table.to_ascii_lowercase()
                    ));
                }
            }
            ["ALTER", "TABLE", rest @ ..] => {
                let rest = rest.strip_prefix(&["IF", "EXISTS"]).unwrap_or(rest);
                let rest = rest.strip_prefix(&["ONLY"]).unwrap_or(rest);
                let table = name(rest);
                if !created.contains(&table) {
                    let table = table.to_ascii_lowercase();
                    found.extend(clauses(rest).filter_map(|clause| alter(&table, clause)));
                }
            }
            _ => {}
        }
    }
    found
}

/// A name with its schema, quoted or not.
fn name(words: &[&str]) -> String {
    let schema = words.get(1) == Some(&".");
    words.iter().take(if schema { 3 } else { 1 }).copied().collect()
}

/// The parts of an ALTER TABLE between its commas.
fn clauses<'a>(words: &'a [&'a str]) -> impl Iterator<Item = &'a [&'a str]> {
    let mut depth = 0_usize;
    words.split(move |word| {
        match *word {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && *word == ","
    })
}

fn alter(table: &str, clause: &[&str]) -> Option<String> {
    let has = |wanted: &[&str]| clause.windows(wanted.len()).any(|words| words == wanted);
    // `ADD CONSTRAINT …` and its like contain NOT NULL in other meanings.
    let constraint = ["CONSTRAINT", "CHECK", "UNIQUE", "PRIMARY", "FOREIGN"].iter().any(|kind| has(&["ADD", kind]));
    if has(&["RENAME"]) {
        Some(format!(
            "RENAME on {table} breaks the version of the service that still runs: add the new name beside the old one, \
             and drop the old one in a later release"
        ))
    } else if has(&["ALTER"]) && has(&["TYPE"]) {
        Some(format!(
            "a change of a column's type writes {table} anew and stops all reads and writes meanwhile: add a column, \
             copy in steps, and switch over"
        ))
    } else if has(&["ADD"]) && !constraint && has(&["NOT", "NULL"]) && !has(&["DEFAULT"]) && !has(&["GENERATED"]) {
        Some(format!(
            "a NOT NULL column without a DEFAULT can't be added to {table} once it has rows: give it a DEFAULT"
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(statements: &[&str]) -> Vec<String> {
        warnings(Dialect::Postgres, statements)
    }

    #[test]
    fn statements_that_block_are_found() {
        for (statement, part) in [
            ("create unique index /* x */ i on Shop.orders (id)", "all writes to shop.orders"),
            ("CREATE INDEX ON orders (id)", "all writes to orders"),
            ("ALTER TABLE IF EXISTS ONLY orders ADD COLUMN a NUMERIC(1, 2) NOT NULL", "NOT NULL column"),
            ("ALTER TABLE orders ADD a INT DEFAULT 1, ADD b INT NOT NULL", "NOT NULL column"),
            ("ALTER TABLE orders ALTER COLUMN a SET DATA TYPE BIGINT", "column's type"),
            ("ALTER TABLE orders ALTER a TYPE BIGINT", "column's type"),
            ("ALTER TABLE orders RENAME COLUMN a TO b", "RENAME on orders"),
            ("ALTER TABLE \"orders\" RENAME TO b", "RENAME on \"orders\""),
        ] {
            let found = found(&[statement]);
            assert!(found.len() == 1 && found[0].contains(part), "{statement}: {found:?}");
        }
    }

    #[test]
    fn statements_that_do_not_block_are_left_alone() {
        for statements in [
            &["CREATE INDEX CONCURRENTLY i ON orders (id)"][..],
            &["CREATE TABLE orders (id INT NOT NULL)", "CREATE INDEX i ON orders (id)"],
            &["CREATE TABLE IF NOT EXISTS shop.orders (id INT)", "ALTER TABLE shop.orders ADD a INT NOT NULL"],
            &["ALTER TABLE orders ADD COLUMN a INT NOT NULL DEFAULT 0, ADD COLUMN b INT"],
            &["ALTER TABLE orders ADD CONSTRAINT c CHECK (a IS NOT NULL) NOT VALID"],
            &["INSERT INTO log VALUES ('ALTER TABLE a RENAME TO b')", "-- CREATE INDEX i ON orders (id)"],
            &["ALTER INDEX i RENAME TO j", "CREATE INDEX", "ALTER TABLE", "CREATE TABLE"],
        ] {
            assert_eq!(found(statements), Vec::<String>::new(), "{statements:?}");
        }
        assert!(warnings(Dialect::Sqlite, &["CREATE INDEX i ON orders (id)"]).is_empty());
    }
}
