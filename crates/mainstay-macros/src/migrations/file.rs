//! The name of a migration's file: `0001_create_orders.up.sql`.

/// What a file's name says.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct File {
    pub(super) version: i64,
    pub(super) name: String,
    pub(super) direction: Direction,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Direction {
    Down,
    Up,
}

impl File {
    /// `None` for what is no SQL file and therefore no business of ours.
    pub(super) fn parse(file: &str) -> Result<Option<Self>, String> {
        let Some(stem) = file.strip_suffix(".sql").filter(|_| !file.starts_with('.')) else {
            return Ok(None);
        };
        let (stem, direction) = if let Some(stem) = stem.strip_suffix(".up") {
            (stem, Direction::Up)
        } else if let Some(stem) = stem.strip_suffix(".down") {
            (stem, Direction::Down)
        } else {
            return Err("a migration ends in `.up.sql` or `.down.sql`".to_owned());
        };
        let (number, name) = stem.split_once('_').unwrap_or((stem, ""));
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("a migration begins with its number, as in `0001_create_orders.up.sql`".to_owned());
        }
        let version = number.parse().map_err(|_| format!("the number {number} is greater than {}", i64::MAX))?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if name.is_empty() || !name.bytes().all(plain) {
            return Err("a migration has a name of letters, digits, `_` and `-` behind its number, as in \
                        `0001_create_orders.up.sql`"
                .to_owned());
        }
        Ok(Some(Self { version, name: name.to_owned(), direction }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_number_name_and_direction() {
        let file = File { version: 20_260_101, name: "add-index_2".to_owned(), direction: Direction::Down };
        assert_eq!(File::parse("20260101_add-index_2.down.sql"), Ok(Some(file)));
        for ignored in ["README.md", "0001_a.up.sql~", ".0001_a.up.sql", "0001_a.up.sql.orig"] {
            assert_eq!(File::parse(ignored), Ok(None), "{ignored}");
        }
    }

    #[test]
    fn a_malformed_name_says_what_is_missing() {
        for (file, problem) in [
            ("0001_a.sql", ".up.sql"),
            ("a.up.sql", "begins with its number"),
            ("_a.up.sql", "begins with its number"),
            ("-1_a.up.sql", "begins with its number"),
            ("1a_b.up.sql", "begins with its number"),
            ("0001.up.sql", "has a name"),
            ("0001_.up.sql", "has a name"),
            ("0001_a b.up.sql", "has a name"),
            ("0001_ä.up.sql", "has a name"),
            ("99999999999999999999_a.up.sql", "greater than"),
        ] {
            assert!(File::parse(file).is_err_and(|error| error.contains(problem)), "{file}");
        }
    }
}
