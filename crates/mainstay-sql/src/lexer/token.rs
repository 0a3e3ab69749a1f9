//! [`Tokens`]: SQL text cut into the few kinds of pieces that the library has to tell apart.

use crate::driver::Dialect;

/// A piece of SQL text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    /// Where it begins, in bytes.
    pub(super) start: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// A comment, to its end.
    Comment,
    /// `$n`, with its number from 1.
    Placeholder(usize),
    /// A string, a quoted identifier or a dollar-quoted text, to its end.
    Quoted,
    Semicolon,
    Space,
    /// Any other single character.
    Symbol,
    /// A keyword, an identifier or a number.
    Word,
}

/// Cuts `sql` in a single pass by the rules of `dialect`. The pieces, put together, are the text again.
///
/// Text that is not closed (a string, a comment) reaches to the end: the database will say so better.
pub(super) struct Tokens<'a> {
    sql: &'a str,
    dialect: Dialect,
    at: usize,
    /// The word before this point, without space between, was PostgreSQL's `E`.
    escape_prefix: bool,
}

/// The most values that any of the three wire protocols carries; a higher number is not a placeholder.
const MAX_PLACEHOLDER: usize = 65_535;

impl<'a> Tokens<'a> {
    pub(super) fn new(dialect: Dialect, sql: &'a str) -> Self {
        Self { sql, dialect, at: 0, escape_prefix: false }
    }

    fn piece(&self, bytes: &[u8]) -> Option<(Kind, usize)> {
        let mysql = self.dialect == Dialect::Mysql;
        let at = self.at;
        let first = *bytes.get(at)?;
        let second = bytes.get(at + 1).copied().unwrap_or(0);
        Some(match first {
            b';' => (Kind::Semicolon, at + 1),
            b'\'' => (Kind::Quoted, quoted(bytes, at, first, mysql || self.escape_prefix)),
            b'"' => (Kind::Quoted, quoted(bytes, at, first, mysql)),
            b'`' if self.dialect != Dialect::Postgres => (Kind::Quoted, quoted(bytes, at, first, false)),
            b'[' if self.dialect == Dialect::Sqlite => (Kind::Quoted, find(bytes, at + 1, b"]")),
            // MySQL wants white space after the dashes: `5--1` is arithmetic there.
            b'-' if second == b'-' && (!mysql || bytes.get(at + 2).is_none_or(|&next| next <= b' ')) => {
                (Kind::Comment, line(bytes, at))
            }
            b'#' if mysql => (Kind::Comment, line(bytes, at)),
            b'/' if second == b'*' => (Kind::Comment, self.block_comment(bytes, at)),
            b'$' => dollar(bytes, at),
            _ if is_word(first) => (Kind::Word, run(bytes, at, |byte| is_word(byte) || byte == b'$')),
            _ if is_space(first) => (Kind::Space, run(bytes, at, is_space)),
            _ => (Kind::Symbol, at + 1),
        })
    }

    fn block_comment(&self, bytes: &[u8], start: usize) -> usize {
        match self.dialect {
            Dialect::Mysql => {
                let rest = bytes.get(start + 2..).unwrap_or_default();
                // The server runs what stands in `/*!80000 … */`: only its opening is a comment.
                let marker = if rest.starts_with(b"!") {
                    1
                } else if rest.starts_with(b"M!") {
                    2
                } else {
                    0
                };
                match marker {
                    0 => find(bytes, start + 2, b"*/"),
                    marker => run(bytes, start + 2 + marker, |byte| byte.is_ascii_digit()),
                }
            }
            Dialect::Postgres => nested_comment(bytes, start),
            Dialect::Sqlite => find(bytes, start + 2, b"*/"),
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let start = self.at;
        let (kind, end) = self.piece(self.sql.as_bytes())?;
        // Every piece ends behind an ASCII character or at the end, so it is always whole characters.
        let text = self.sql.get(start..end)?;
        self.at = end;
        self.escape_prefix = self.dialect == Dialect::Postgres && kind == Kind::Word && text.eq_ignore_ascii_case("e");
        Some(Token { kind, text, start })
    }
}

/// White space of SQL. What Unicode has beyond it is part of a name to a server.
pub(super) fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// Bytes of characters outside ASCII count as letters, as they do in all three databases.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn run(bytes: &[u8], from: usize, belongs: impl Fn(u8) -> bool) -> usize {
    bytes.iter().skip(from).position(|&byte| !belongs(byte)).map_or(bytes.len(), |length| from + length)
}

/// The place behind the next `end`, or the end of the text.
fn find(bytes: &[u8], from: usize, end: &[u8]) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    rest.windows(end.len()).position(|window| window == end).map_or(bytes.len(), |place| from + place + end.len())
}

fn line(bytes: &[u8], from: usize) -> usize {
    run(bytes, from, |byte| byte != b'\n')
}

/// The place behind the closing `quote`. A doubled quote stays inside, and so does an escaped one.
fn quoted(bytes: &[u8], start: usize, quote: u8, backslash: bool) -> usize {
    let mut at = start + 1;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'\\' && backslash {
            at += 2;
        } else if byte != quote {
            at += 1;
        } else if bytes.get(at + 1) == Some(&quote) {
            at += 2;
        } else {
            return at + 1;
        }
    }
    bytes.len()
}

fn nested_comment(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while let Some(pair) = bytes.get(at..at + 2) {
        match pair {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

/// `$1` or `$tag$ … $tag$` or a lone dollar.
fn dollar(bytes: &[u8], start: usize) -> (Kind, usize) {
    let end = run(bytes, start + 1, is_word);
    let name = bytes.get(start + 1..end).unwrap_or_default();
    if let Some(number) = placeholder(name) {
        return (Kind::Placeholder(number), end);
    }
    if bytes.get(end) == Some(&b'$') && !name.first().is_some_and(u8::is_ascii_digit) {
        let tag = bytes.get(start..=end).unwrap_or_default();
        return (Kind::Quoted, find(bytes, end + 1, tag));
    }
    (Kind::Symbol, start + 1)
}

fn placeholder(digits: &[u8]) -> Option<usize> {
    let number: usize =
        std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
    (1..=MAX_PLACEHOLDER).contains(&number).then_some(number)
}
