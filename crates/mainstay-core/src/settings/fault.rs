//! [`Fault`]: one thing that is wrong with the settings, told so that it can be repaired without looking elsewhere.

use std::fmt;

use serde::de::{Expected, Unexpected};

use super::node::{Node, Source};
use crate::{Code, Error};

/// How many known names an error lists when none is near.
const MAX_NAMES: usize = 16;

/// What std's own parsers say, and what helps more.
const CLEARER: [(&str, &str); 6] = [
    ("invalid socket address syntax", "expected an address such as 127.0.0.1:8080"),
    ("invalid socketV4 address syntax", "expected an address such as 127.0.0.1:8080"),
    ("invalid socketV6 address syntax", "expected an address such as [::1]:8080"),
    ("invalid IP address syntax", "expected an IP address such as 127.0.0.1"),
    ("invalid IPv4 address syntax", "expected an IPv4 address such as 127.0.0.1"),
    ("invalid IPv6 address syntax", "expected an IPv6 address such as ::1"),
];

/// What is wrong, with which key, where, and what stands there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Fault {
    /// The path of the key, as `http.addr`; empty for a file that can't be read at all.
    pub(super) key: String,
    pub(super) source: Option<Box<Source>>,
    pub(super) problem: String,
    /// The value as it may be shown, or `None` if it says nothing or must not be shown.
    pub(super) value: Option<String>,
    /// The name of a field that has no value. While a fault has no place yet, it is relative to it.
    pub(super) missing: Option<&'static str>,
    /// Whether the place is known; serde's own errors come without.
    pub(super) placed: bool,
    /// Whether the problem is told in the words of a type outside this module, which may quote the value.
    pub(super) foreign: bool,
}

impl Fault {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self {
            key: String::new(),
            source: None,
            problem: problem.into(),
            value: None,
            missing: None,
            placed: false,
            foreign: false,
        }
    }

    pub(super) fn at(key: impl Into<String>, source: &Source, problem: impl Into<String>) -> Self {
        Self { key: key.into(), source: Some(Box::new(source.clone())), placed: true, ..Self::new(problem) }
    }

    pub(super) fn expected(expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}"))
    }

    /// A key that nobody reads.
    pub(super) fn unknown(key: String, node: &Node, known: &[&str]) -> Self {
        let name = key.rsplit('.').next().unwrap_or(&key);
        let what = if node.is_map() && !key.contains('.') { "section" } else { "key" };
        let problem = format!("unknown {what}{}", suggest(name, known));
        Self::at(key, &node.key_source, problem)
    }
}

/// All faults as one error.
pub(super) fn into_error(faults: &[Fault]) -> Error {
    let message = match faults {
        [fault] => format!("the configuration is not valid: {fault}"),
        faults => {
            let lines: String = faults.iter().map(|fault| format!("\n  {fault}")).collect();
            format!("the configuration has {} faults:{lines}", faults.len())
        }
    };
    Error::new(Code::InvalidArgument, message)
}

/// The nearest of the known names, or all of them if none is near.
fn suggest(name: &str, known: &[&str]) -> String {
    let near = known.iter().map(|candidate| (strsim::osa_distance(name, candidate), *candidate)).min();
    match near {
        // A third of the letters wrong is still recognisable, and one slip always is.
        Some((distance, candidate)) if distance <= (name.chars().count() / 3).max(1) => {
            format!("; did you mean `{candidate}`?")
        }
        Some(_) => {
            let mut names: Vec<&str> = known.to_vec();
            names.sort_unstable();
            let more = if names.len() > MAX_NAMES { ", …" } else { "" };
            names.truncate(MAX_NAMES);
            format!("; known here: `{}`{more}", names.join("`, `"))
        }
        None => "; nothing is known here".to_owned(),
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) if self.key.is_empty() => return write!(f, "{source}: {}", self.problem),
            _ if self.key.is_empty() => return f.write_str(&self.problem),
            _ => write!(f, "{}: {}", self.key, self.problem)?,
        }
        if let Some(value) = &self.value {
            write!(f, ", found {value}")?;
        }
        match self.source.as_deref() {
            Some(Source::Default) | None => Ok(()),
            Some(source) => write!(f, " ({source})"),
        }
    }
}

impl std::error::Error for Fault {}

/// serde's errors without the value: the reader adds it, masked where it must be.
impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        let message = message.to_string();
        let clearer = CLEARER.iter().find(|(text, _)| *text == message);
        match clearer {
            Some((_, clearer)) => Self::new(*clearer),
            None => Self { foreign: true, ..Self::new(message) },
        }
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::expected(expected)
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::expected(expected)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}, not {length} elements"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let near = suggest(variant, expected);
        let near = if near.contains("did you mean") { near } else { String::new() };
        Self::new(format!("expected `{}`{near}", expected.join("` or `")))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("unknown key `{field}`{}", suggest(field, expected)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self { missing: Some(field), ..Self::new("is required") }
    }
}
