//! Durations as people write them: `30s`, `250ms`, `1h30m`. For `#[serde(with = "mainstay_core::settings::duration")]`.
//!
//! ```
//! # use std::time::Duration;
//! use mainstay_core::settings::duration;
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Limits {
//!     #[serde(with = "duration")]
//!     request: Duration,
//!     #[serde(with = "duration::option")]
//!     idle: Option<Duration>,
//! }
//! let limits: Limits = serde_json::from_str(r#"{ "request": "1m30s", "idle": null }"#).unwrap();
//! assert_eq!(limits.request, Duration::from_secs(90));
//! assert_eq!(serde_json::to_string(&limits).unwrap(), r#"{"request":"1m30s","idle":null}"#);
//! ```

use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Serialize, Serializer};

/// What an error says was expected.
const EXPECTED: &str = "a duration such as \"30s\" or \"250ms\"";

/// The units from the longest to the shortest, in nanoseconds. A day is 24 hours: no clock changes in it.
const UNITS: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Reads a duration: whole numbers, each with a unit (`d`, `h`, `m`, `s`, `ms`, `us`, `ns`), added up. `0` needs no unit.
///
/// `None` for anything else: a bare number says nothing about its unit, and a negative duration is none.
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let unit = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..unit].parse().ok()?;
        let next = rest[unit..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |next| unit + next);
        let (_, nanoseconds) = UNITS.iter().find(|(name, _)| *name == rest[unit..next].trim_end())?;
        total = total.checked_add(u128::from(number) * nanoseconds)?;
        rest = &rest[next..];
    }
    let seconds = u64::try_from(total / 1_000_000_000).ok()?;
    let nanoseconds = u32::try_from(total % 1_000_000_000).ok()?;
    (!text.trim().is_empty()).then_some(Duration::new(seconds, nanoseconds))
}

/// Writes a duration so that [`parse`] reads the same: the longest units first, none that is zero.
pub fn format(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    let mut text = String::new();
    for (name, nanoseconds) in UNITS {
        let number = rest / nanoseconds;
        rest %= nanoseconds;
        if number > 0 {
            text.push_str(&format!("{number}{name}"));
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// For serde: as [`format`](fn@format) writes it.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    format(*duration).serialize(serializer)
}

/// For serde: as [`parse`] reads it.
///
/// # Errors
/// If the value is not a duration that `parse` understands.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_str(DurationVisitor)
}

/// The same for `Option<Duration>`: `#[serde(with = "mainstay_core::settings::duration::option")]`.
pub mod option {
    use super::{Deserializer, Duration, Serialize, Serializer};

    /// For serde: nothing, or as [`format`](fn@super::format) writes it.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        duration.map(super::format).serialize(serializer)
    }

    /// For serde: nothing, or as [`parse`](super::parse) reads it.
    ///
    /// # Errors
    /// If the value is neither nothing nor a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        deserializer.deserialize_option(super::OptionVisitor)
    }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        parse(text).ok_or_else(|| E::custom(format_args!("expected {EXPECTED}")))
    }
}

struct OptionVisitor;

impl<'de> Visitor<'de> for OptionVisitor {
    type Value = Option<Duration>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{EXPECTED}, or nothing")
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, expected) in [
            ("30s", Some(Duration::from_secs(30))),
            ("250ms", Some(Duration::from_millis(250))),
            ("5m", Some(Duration::from_secs(300))),
            ("1h30m", Some(Duration::from_secs(5400))),
            ("1h 30m", Some(Duration::from_secs(5400))),
            (" 2d ", Some(Duration::from_secs(172_800))),
            ("10us", Some(Duration::from_micros(10))),
            ("0", Some(Duration::ZERO)),
            ("0s", Some(Duration::ZERO)),
            ("", None),
            (" ", None),
            ("30", None),
            ("s", None),
            ("-1s", None),
            ("1.5s", None),
            ("30 seconds", None),
            ("30S", None),
            ("99999999999999999999s", None),
            ("18446744073709551615d", None),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_duration_survives_being_written_and_read(seconds: u64, nanoseconds in 0..1_000_000_000_u32) {
            let duration = Duration::new(seconds, nanoseconds);
            prop_assert_eq!(parse(&format(duration)), Some(duration));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,40}|[0-9dhmsun ]{0,30}") {
            let _ = parse(&text);
        }
    }
}
