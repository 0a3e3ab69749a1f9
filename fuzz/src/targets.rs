//! What is fed, with what, and what has to hold. A check that fails panics.

#![allow(clippy::unwrap_used, reason = "a panic is how a check fails")]

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use mainstay_core::Code;
use mainstay_core::settings::Loader;
use mainstay_http::HttpSettings;
use mainstay_sql::{DatabaseSettings, Dialect, fuzzing};

/// A parser under test.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) corpus: &'static [&'static [u8]],
    pub(crate) check: fn(&[u8]),
}

pub(crate) const TARGETS: [Target; 3] = [
    Target { name: "placeholder lexer", corpus: SQL, check: placeholders },
    Target { name: "timeout headers", corpus: TIMEOUTS, check: timeouts },
    Target { name: "settings loader", corpus: SETTINGS, check: settings },
];

const SQL: &[&[u8]] = &[
    b"SELECT a, $1 FROM t WHERE b = $2 AND c = '$3' -- $4\n AND d = $12;",
    b"INSERT INTO \"t$1\" VALUES ($1, E'\\'$2', $$ $3 $$, $tag$ $4 $tag$, `$5`)",
    b"CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT CASE WHEN 1 THEN 2 END; SELECT $1; END; COMMIT",
    b"/* a /* nested */ $1 */ SELECT '\\'' || ''' $2' # $3\n, x'00' /*! $4 */ ; BEGIN; SET autocommit = 0",
    "SELECT 'ä€😀' AS \"ü$1\", $99999999999999999999, $0, $1a, a$1".as_bytes(),
];

fn placeholders(input: &[u8]) {
    let sql = &*String::from_utf8_lossy(input);
    for dialect in [Dialect::Sqlite, Dialect::Postgres, Dialect::Mysql] {
        let lexed = fuzzing::lex(dialect, sql);
        in_order(sql, &lexed.statements);
        in_order(sql, &lexed.code);
        assert!(lexed.statements.iter().all(|statement| !statement.is_empty()));
    }
    let (rewritten, order) = fuzzing::rewrite_placeholders(sql);
    let wanted = fuzzing::lex(Dialect::Mysql, sql).placeholders;
    assert_eq!(order.iter().max().map_or(0, |highest| highest + 1), wanted);
    assert_eq!(fuzzing::lex(Dialect::Mysql, &rewritten).placeholders, 0, "none is left in {rewritten:?}");
}

/// Every piece stands in the text, one behind the other.
fn in_order(text: &str, pieces: &[&str]) {
    pieces.iter().fold(text, |rest, piece| {
        let place = rest.find(piece).unwrap();
        &rest[place + piece.len()..]
    });
}

const TIMEOUTS: &[&[u8]] =
    &[b"500m\n500", b"99999999H\n9999999999", b"1S\n", b"\n0", b"0n\n1", b"007u\n+5", b"1M\n-1", b"1000000u\n250"];

/// The first line is a `Grpc-Timeout`, the second a `Connect-Timeout-Ms`; an empty one isn't sent.
fn timeouts(input: &[u8]) {
    const SERVER: Duration = Duration::from_secs(30);
    let mut headers = HeaderMap::new();
    let mut lines = input.splitn(2, |byte| *byte == b'\n');
    for name in ["grpc-timeout", "connect-timeout-ms"] {
        let line = lines.next().unwrap_or_default();
        if let Ok(value) = HeaderValue::from_bytes(line)
            && !line.is_empty()
        {
            headers.insert(name, value);
        }
    }
    let digits = |text: &[u8], most| (1..=most).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    let well_formed = headers.iter().all(|(name, value)| match (name.as_str(), value.as_bytes()) {
        ("grpc-timeout", [number @ .., b'H' | b'M' | b'S' | b'm' | b'u' | b'n']) => digits(number, 8),
        ("connect-timeout-ms", number) => digits(number, 10),
        _ => false,
    });
    let limit = mainstay_http::fuzzing::time_limit(&headers, SERVER);
    assert_eq!(limit.is_some(), well_formed, "{headers:?}");
    assert!(limit.is_none_or(|limit| limit <= SERVER), "a caller lengthens it: {headers:?}");
}

const SETTINGS: &[&[u8]] = &[
    b"http:\n  addr: 127.0.0.1:8080\n  request_timeout: 30s\n  max_body_bytes: 1MiB\ndatabase:\n  url: sqlite::memory:\n",
    b"a: &x {b: [1, 2, {c: d}]}\ne: *x\nhttp: {max_connections: 0x10, addr: \"[::1]:80\"}\n",
    b"http:\n  request_timeout: '1h30m'\n\0SHOP_HTTP__ADDR=0.0.0.0:1\nSHOP_DATABASE__MAX_CONNECTIONS=12\nSHOP_HTTP=x",
    b"? key\n: - |\n    text\n  - >-\n    more\n---\nsecond: !!str 1\n",
    b"database:\n  url: postgres://u:p%40w@h:5432/d?host=/run&sslmode=require\n  acquire_timeout: 99999999999999h\n",
    "[[[[{{{{\nü: \"\\u0000\\x41\"\n\u{feff}%YAML 1.2\n".as_bytes(),
];

/// A file, and behind a NUL the variables, one a line.
fn settings(input: &[u8]) {
    thread_local! {
        static FILE: tempfile::NamedTempFile = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    }
    let mut parts = input.splitn(2, |byte| *byte == 0);
    let path = FILE.with(|file| file.path().to_owned());
    fs::write(&path, parts.next().unwrap_or_default()).unwrap();
    let variables = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let variables = variables.lines().filter_map(|line| line.split_once('='));
    let variables: Vec<_> = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();

    let loaded = Loader::new("shop").config_file(Some(path)).environment(variables).load();
    let read = loaded.and_then(|mut sources| {
        let http = sources.section::<HttpSettings>("http");
        let database = sources.section::<DatabaseSettings>("database");
        let rest = sources.rest::<BTreeMap<String, String>>();
        let listed = sources.finish();
        assert!(listed.is_err() || (http.is_ok() && database.is_ok() && rest.is_ok()), "finish hides a fault");
        listed
    });
    if let Err(error) = read {
        assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
        assert!(!error.message().is_empty());
    }
}
