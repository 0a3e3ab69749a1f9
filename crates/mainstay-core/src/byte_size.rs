//! [`ByteSize`]: sizes as people write them.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

const EXPECTED: &str = "a size such as \"64KiB\", \"1MiB\" or a number of bytes";

/// The units from the largest to the smallest, those of 1024 first: [`ByteSize`] is written in them.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// A number of bytes, in settings as `1MiB`, `64KiB`, `10MB` or plain bytes.
///
/// ```
/// # use mainstay_core::ByteSize;
/// assert_eq!("64KiB".parse(), Ok(ByteSize::kib(64)));
/// assert_eq!(ByteSize::bytes(1_048_576).to_string(), "1MiB");
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ByteSize(u64);

impl ByteSize {
    /// As many bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// As many times 1024 bytes.
    pub const fn kib(number: u64) -> Self {
        Self(number.saturating_mul(1 << 10))
    }

    /// As many times 1024² bytes.
    pub const fn mib(number: u64) -> Self {
        Self(number.saturating_mul(1 << 20))
    }

    /// The number of bytes.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The number of bytes, or the largest `usize` if there are more.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Exactly, in the largest unit of 1024 that leaves no rest; [`FromStr`] reads it back.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, size): &&(&str, u64)| self.0 >= *size && self.0.is_multiple_of(*size);
        match UNITS[..4].iter().find(whole) {
            Some((name, size)) => write!(f, "{}{name}", self.0 / size),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// A text that is not a size.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InvalidByteSize(());

impl fmt::Display for InvalidByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {EXPECTED}")
    }
}

impl std::error::Error for InvalidByteSize {}

impl FromStr for ByteSize {
    type Err = InvalidByteSize;

    /// Reads a whole number and a unit, in any case. A letter alone (`64K`) is refused: for some programs it counts by
    /// 1000, for others by 1024.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let unit = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let number: u64 = text[..unit].parse().map_err(|_| InvalidByteSize(()))?;
        let size = match text[unit..].trim_start() {
            "" => 1,
            unit => UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or(InvalidByteSize(()))?.1,
        };
        number.checked_mul(size).map(Self).ok_or(InvalidByteSize(()))
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ByteSizeVisitor)
    }
}

struct ByteSizeVisitor;

impl Visitor<'_> for ByteSizeVisitor {
    type Value = ByteSize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<ByteSize, E> {
        Ok(ByteSize(bytes))
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<ByteSize, E> {
        u64::try_from(bytes).map(ByteSize).map_err(|_| E::custom(InvalidByteSize(())))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ByteSize, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, expected) in [
            ("512", Some(512)),
            ("512B", Some(512)),
            ("64KiB", Some(65_536)),
            ("64 kib", Some(65_536)),
            ("1MiB", Some(1_048_576)),
            ("10MB", Some(10_000_000)),
            ("2GiB", Some(2_147_483_648)),
            ("0", Some(0)),
            ("", None),
            ("-1", None),
            ("1.5MiB", None),
            ("1Mi", None),
            ("MiB", None),
            ("99999999TiB", None),
        ] {
            assert_eq!(text.parse().ok(), expected.map(ByteSize::bytes), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_read_from_numbers_and_texts_alike() {
        assert_eq!(serde_json::from_str::<ByteSize>("1024").unwrap(), ByteSize::kib(1));
        assert_eq!(serde_json::from_str::<ByteSize>("\"1KiB\"").unwrap(), ByteSize::kib(1));
        assert!(serde_json::from_str::<ByteSize>("-1").is_err());
    }

    proptest! {
        #[test]
        fn every_size_survives_being_written_and_read(bytes: u64) {
            prop_assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,40}") {
            let _ = text.parse::<ByteSize>();
        }
    }
}
