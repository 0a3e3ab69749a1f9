//! Doors for fuzzers into what is private.

use crate::{Dialect, lexer};

/// What the lexer finds in a text.
#[derive(Debug)]
pub struct Lexed<'a> {
    /// The statements without their semicolons.
    pub statements: Vec<&'a str>,
    /// The code, without white space and comments.
    pub code: Vec<&'a str>,
    /// The highest number of a placeholder.
    pub placeholders: usize,
    /// The keyword that would control a transaction.
    pub transaction_control: Option<&'static str>,
}

/// Everything the lexer says about a text.
pub fn lex(dialect: Dialect, sql: &str) -> Lexed<'_> {
    Lexed {
        statements: lexer::statements(dialect, sql),
        code: lexer::code(dialect, sql).collect(),
        placeholders: lexer::placeholder_count(dialect, sql),
        transaction_control: lexer::transaction_control(dialect, sql),
    }
}

/// The text for MySQL and the order of its values.
pub fn rewrite_placeholders(sql: &str) -> (String, Vec<usize>) {
    lexer::rewrite_placeholders(sql)
}
