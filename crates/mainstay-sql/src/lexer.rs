//! What the library has to know about SQL text: where its placeholders, its statements and its comments are.
//!
//! This is no parser. It tells code from strings, quoted names and comments, by the rules of each database, so that
//! `$1` inside a string stays a text and `;` inside a trigger doesn't end it.

use crate::driver::Dialect;

mod token;

use token::{Kind, Token, Tokens, is_space};

/// The text for MySQL: every `$n` becomes `?`. The second part says for each `?` which value goes there, from zero, so
/// that a number may come twice or out of order.
#[cfg(any(feature = "mysql", test))]
pub(crate) fn rewrite_placeholders(sql: &str) -> (String, Vec<usize>) {
    let mut rewritten = String::with_capacity(sql.len());
    let mut order = Vec::new();
    for token in Tokens::new(Dialect::Mysql, sql) {
        match token.kind {
            Kind::Placeholder(number) => {
                rewritten.push('?');
                order.push(number - 1);
            }
            _ => rewritten.push_str(token.text),
        }
    }
    (rewritten, order)
}

/// How many values the text wants: the highest number of its placeholders.
///
/// It takes the dialect, because `'\'` is a whole string on two of the databases and the start of one on the third.
pub(crate) fn placeholder_count(dialect: Dialect, sql: &str) -> usize {
    Tokens::new(dialect, sql)
        .filter_map(|token| match token.kind {
            Kind::Placeholder(number) => Some(number),
            _ => None,
        })
        .max()
        .unwrap_or(0)
}

/// The statements of a script without their semicolons, in order; what holds no code (comments alone) is left out.
///
/// A compound body, from `BEGIN` to its `END` in a CREATE TRIGGER, PROCEDURE, FUNCTION or EVENT, stays whole.
pub(crate) fn statements(dialect: Dialect, sql: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut body = Body::default();
    let mut has_code = false;
    for token in Tokens::new(dialect, sql) {
        match token.kind {
            Kind::Semicolon if body.depth == 0 => {
                found.extend(sql.get(start..token.start).filter(|_| has_code));
                start = token.start + 1;
                body = Body::default();
                has_code = false;
            }
            Kind::Space | Kind::Comment => {}
            _ => {
                has_code = true;
                body.read(&token);
            }
        }
    }
    found.extend(sql.get(start..).filter(|_| has_code));
    found.into_iter().map(|statement| statement.trim_matches(|c| u8::try_from(c).is_ok_and(is_space))).collect()
}

/// The keyword, if any statement of the text would begin, end or change a transaction behind the library's back.
pub(crate) fn transaction_control(dialect: Dialect, sql: &str) -> Option<&'static str> {
    statements(dialect, sql).into_iter().find_map(|statement| {
        let mut words = Tokens::new(dialect, statement)
            .filter(|token| token.kind == Kind::Word)
            .map(|token| token.text.to_ascii_uppercase());
        let first = words.next()?;
        let mut followed_by = |wanted: &str, within: usize| words.by_ref().take(within).any(|word| word == wanted);
        match first.as_str() {
            "ABORT" => Some("ABORT"),
            "BEGIN" => Some("BEGIN"),
            "COMMIT" => Some("COMMIT"),
            "END" => Some("END"),
            "PREPARE" if followed_by("TRANSACTION", 1) => Some("PREPARE TRANSACTION"),
            "RELEASE" => Some("RELEASE"),
            "ROLLBACK" => Some("ROLLBACK"),
            "SAVEPOINT" => Some("SAVEPOINT"),
            // SET TRANSACTION, SET SESSION TRANSACTION, SET SESSION CHARACTERISTICS AS TRANSACTION.
            "SET" if followed_by("TRANSACTION", 4) => Some("SET TRANSACTION"),
            "START" if followed_by("TRANSACTION", 1) => Some("START TRANSACTION"),
            "LOCK" | "UNLOCK" if dialect == Dialect::Mysql => Some("LOCK TABLES"), // commits what is open
            "XA" if dialect == Dialect::Mysql => Some("XA"),
            _ => None,
        }
        .or_else(|| {
            let changes = dialect == Dialect::Mysql && first == "SET" && mentions(statement, "autocommit");
            changes.then_some("SET autocommit")
        })
    })
}

/// The code of a statement, piece by piece, without white space and comments.
pub(crate) fn code(dialect: Dialect, sql: &str) -> impl Iterator<Item = &str> {
    let tokens = Tokens::new(dialect, sql);
    tokens.filter(|token| !matches!(token.kind, Kind::Space | Kind::Comment)).map(|token| token.text)
}

/// Whether `word` stands in the code of a MySQL statement.
fn mentions(statement: &str, word: &str) -> bool {
    Tokens::new(Dialect::Mysql, statement)
        .any(|token| token.kind == Kind::Word && token.text.eq_ignore_ascii_case(word))
}

/// Follows one statement far enough to know whether it is inside a compound body.
#[derive(Default)]
struct Body {
    words: usize,
    is_create: bool,
    has_routine: bool,
    depth: usize,
    after_end: bool,
}

/// `CREATE OR REPLACE DEFINER = 'admin'@'%' SQL SECURITY INVOKER PROCEDURE` is the longest way to the word that counts.
const WORDS_BEFORE_ROUTINE: usize = 10;

impl Body {
    fn read(&mut self, token: &Token<'_>) {
        let after_end = std::mem::take(&mut self.after_end);
        if token.kind != Kind::Word {
            return;
        }
        let is = |keyword: &str| token.text.eq_ignore_ascii_case(keyword);
        self.words += 1;
        if self.words == 1 {
            self.is_create = is("CREATE");
        } else if self.is_create && !self.has_routine && self.words <= WORDS_BEFORE_ROUTINE {
            self.has_routine = ["TRIGGER", "PROCEDURE", "FUNCTION", "EVENT"].into_iter().any(is);
            // CREATE TABLE trigger (…): past the kind of the thing, a word of that spelling is only a name.
            self.is_create = !["TABLE", "INDEX", "VIEW"].into_iter().any(is);
        } else if self.has_routine {
            self.follow(after_end, is);
        }
    }

    fn follow(&mut self, after_end: bool, is: impl Fn(&str) -> bool) {
        // `END CASE` has closed at its END. `END IF`, `END LOOP`, `END WHILE` and `END REPEAT` close what was never
        // counted, because IF and REPEAT are functions too: their END is taken back.
        let taken_back = after_end && ["IF", "LOOP", "WHILE", "REPEAT"].into_iter().any(&is);
        if taken_back || is("BEGIN") || (is("CASE") && !after_end) {
            self.depth += 1;
        } else if is("END") {
            self.depth = self.depth.saturating_sub(1);
            self.after_end = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIALECTS: [Dialect; 3] = [Dialect::Mysql, Dialect::Postgres, Dialect::Sqlite];

    #[test]
    fn placeholders_are_rewritten_with_their_order() {
        let (sql, order) = rewrite_placeholders("UPDATE t SET a = $2, b = $1 WHERE c = $2 AND d = $10");
        assert_eq!(sql, "UPDATE t SET a = ?, b = ? WHERE c = ? AND d = ?");
        assert_eq!(order, [1, 0, 1, 9]);
    }

    #[test]
    fn text_that_only_looks_like_a_placeholder_stays() {
        for sql in [
            "'$1'",
            "'it''s $1'",
            r"'it\'s $1'",
            r#""a\"$1""#,
            "`$1`",
            "`a``$1`",
            "-- $1\n",
            "# $1\n",
            "/* $1 */",
            "$$ $1 $$",
            "$body$ $1 $$ $2 $body$",
            "name$1",
            "é$1",
            "$0",
            "$65536",
            "$99999999999999999999999",
            "$",
            "$a",
            "$1a",
            "a ? b",
            "'open $1",
            r"'open \",
            "/* open $1",
            "$x$ open $1",
        ] {
            assert_eq!(rewrite_placeholders(sql), (sql.to_owned(), vec![]), "{sql}");
        }
    }

    #[test]
    fn each_database_has_its_own_quotes_and_comments() {
        let count = |sql| DIALECTS.map(|dialect| placeholder_count(dialect, sql)); // MySQL, PostgreSQL, SQLite
        assert_eq!(count(r"'\' || $1"), [0, 1, 1]);
        assert_eq!(count(r"E'\' || $1' || $2"), [2, 2, 1]);
        assert_eq!(count(r"type'\' || $1"), [0, 1, 1]);
        assert_eq!(count("data #> $1"), [0, 1, 1]);
        assert_eq!(count("5--$1"), [1, 0, 0]);
        assert_eq!(count("5--\n$1"), [1, 1, 1]);
        assert_eq!(count("/* /* */ $1 */"), [1, 0, 1]);
        assert_eq!(count("/*!80000 $1 */"), [1, 0, 0]);
        assert_eq!(count("list[$1]"), [1, 1, 0]);
        assert_eq!(count("`$1`"), [0, 1, 0]);
        assert_eq!(count("$3 $1"), [3, 3, 3]);
    }

    #[test]
    fn a_script_is_cut_at_its_semicolons_only() {
        for dialect in DIALECTS {
            let script =
                "-- head;\nCREATE TABLE a (x TEXT DEFAULT ';'); /* ; */ ;\n;INSERT INTO a VALUES ('b;') -- c;\n";
            assert_eq!(
                statements(dialect, script),
                ["-- head;\nCREATE TABLE a (x TEXT DEFAULT ';')", "INSERT INTO a VALUES ('b;') -- c;"],
                "{dialect}"
            );
            assert!(statements(dialect, " \n-- nothing\n;;").is_empty(), "{dialect}");
            assert_eq!(statements(dialect, "SELECT $$a;b$$; SELECT 2").len(), 2, "{dialect}");
            assert_eq!(statements(dialect, "\u{b}\u{a0};"), ["\u{a0}"], "{dialect}");
        }
    }

    #[test]
    fn compound_bodies_stay_whole() {
        let trigger = "CREATE TRIGGER t AFTER INSERT ON a WHEN CASE WHEN 1 THEN 1 END BEGIN \
                       UPDATE a SET x = CASE WHEN y THEN 1 ELSE 2 END; DELETE FROM b; END";
        assert_eq!(statements(Dialect::Sqlite, &format!("{trigger}; SELECT 1")), [trigger, "SELECT 1"]);

        let procedure = "CREATE DEFINER = 'a'@'%' PROCEDURE p() BEGIN DECLARE n INT; \
            IF n > 1 THEN BEGIN SET n = IF(n, 1, 2); END; END IF; CASE n WHEN 1 THEN SELECT 1; END CASE; \
            again: LOOP SET n = REPEAT('x', 2); LEAVE again; END LOOP again; END";
        assert_eq!(statements(Dialect::Mysql, &format!("{procedure};\nSELECT 1;")), [procedure, "SELECT 1"]);

        let function = "CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END";
        assert_eq!(statements(Dialect::Postgres, &format!("{function}; SELECT 1")), [function, "SELECT 1"]);

        let single = "CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW SET NEW.x = 1; SELECT 1";
        assert_eq!(statements(Dialect::Mysql, single).len(), 2);
        assert_eq!(statements(Dialect::Sqlite, "CREATE TABLE trigger (begin INT); SELECT 1").len(), 2);
    }

    #[test]
    fn control_of_transactions_is_recognised_and_nothing_else_is() {
        for (sql, keyword) in [
            ("begin", "BEGIN"),
            (" /* x */ -- y\n Commit work", "COMMIT"),
            ("START  TRANSACTION READ ONLY", "START TRANSACTION"),
            ("SELECT 1; ROLLBACK", "ROLLBACK"),
            ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET TRANSACTION"),
            ("savepoint a", "SAVEPOINT"),
            ("END", "END"),
        ] {
            for dialect in DIALECTS {
                assert_eq!(transaction_control(dialect, sql), Some(keyword), "{sql} on {dialect}");
            }
        }
        assert_eq!(transaction_control(Dialect::Mysql, "/*!50000 COMMIT */"), Some("COMMIT"));
        assert_eq!(transaction_control(Dialect::Mysql, "SET @@session.autocommit = 0"), Some("SET autocommit"));
        for sql in [
            "SELECT 'commit'",
            "UPDATE t SET transaction = 1",
            "INSERT INTO t VALUES ('; COMMIT')",
            "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END",
            "PREPARE p AS SELECT 1",
            "",
        ] {
            for dialect in DIALECTS {
                assert_eq!(transaction_control(dialect, sql), None, "{sql} on {dialect}");
            }
        }
    }

    /// Text made of the pieces that matter to the lexer, in any order, closed or not.
    fn sql_like() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("'"),
            Just("''"),
            Just("\""),
            Just("`"),
            Just("["),
            Just("]"),
            Just("\\"),
            Just("--"),
            Just("-- "),
            Just("#"),
            Just("\n"),
            Just("/*"),
            Just("/*!"),
            Just("*/"),
            Just("$"),
            Just("$1"),
            Just("$12"),
            Just("$a$"),
            Just("$$"),
            Just(";"),
            Just("E"),
            Just("é"),
            Just("BEGIN "),
            Just(" END "),
            Just("CASE "),
            Just(" "),
            Just("CREATE TRIGGER "),
            Just("?"),
            Just("a"),
            Just("\0"),
            Just("COMMIT"),
        ];
        prop_oneof![any::<String>(), prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())]
    }

    proptest! {
        #[test]
        fn any_text_is_cut_without_loss(sql in sql_like()) {
            for dialect in DIALECTS {
                let joined: String = Tokens::new(dialect, &sql).map(|token| token.text).collect();
                prop_assert_eq!(&joined, &sql);
                let mut from = 0;
                for statement in statements(dialect, &sql) {
                    prop_assert!(!statement.is_empty());
                    let place = sql[from..].find(statement);
                    prop_assert!(place.is_some());
                    from += place.unwrap_or(0) + statement.len();
                }
                let _ = transaction_control(dialect, &sql);
            }
        }

        #[test]
        fn rewriting_changes_placeholders_only(sql in sql_like()) {
            let (rewritten, order) = rewrite_placeholders(&sql);
            prop_assert_eq!(order.iter().max().map_or(0, |highest| highest + 1), placeholder_count(Dialect::Mysql, &sql));
            prop_assert_eq!(placeholder_count(Dialect::Mysql, &rewritten), 0);
            if order.is_empty() {
                prop_assert_eq!(&rewritten, &sql);
            }
        }

        #[test]
        fn a_value_in_a_string_is_never_a_placeholder(text in "[^'\\\\]*") {
            for dialect in DIALECTS {
                prop_assert_eq!(placeholder_count(dialect, &format!("SELECT '{text}', $1")), 1);
            }
        }
    }
}
