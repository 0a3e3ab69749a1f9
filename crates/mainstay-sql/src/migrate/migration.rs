//! [`Migrations`]: the numbered scripts that a binary carries.

use std::borrow::Cow;

use mainstay_core::{Error, Result};
use sha2::{Digest, Sha256};

use crate::driver::Dialect;
use crate::lexer;

/// All migrations of a service, by version. Made by [`migrations!`](crate::migrations!), or by hand from
/// [`Migration`]s.
#[derive(Clone, Debug)]
pub struct Migrations(Cow<'static, [Migration]>);

/// One migration: a number, a name and its scripts.
///
/// ```
/// use mainstay_sql::Dialect;
/// use mainstay_sql::migrate::{Migration, Migrations};
///
/// let migrations = Migrations::new([
///     Migration::new(1, "create_stock", "CREATE TABLE stock (sku VARCHAR(64) PRIMARY KEY)")
///         .down("DROP TABLE stock"),
///     Migration::new(2, "add_note", "ALTER TABLE stock ADD COLUMN note TEXT")
///         .up_on(Dialect::Mysql, "ALTER TABLE stock ADD COLUMN note LONGTEXT"),
/// ])?;
/// assert_eq!(migrations.iter().count(), 2);
/// # mainstay_core::Result::<()>::Ok(())
/// ```
#[derive(Clone, Debug)]
pub struct Migration {
    version: i64,
    name: Cow<'static, str>,
    scripts: Cow<'static, [Script]>,
}

/// A script of a migration, as [`migrations!`](crate::migrations!) writes it down.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Script {
    /// `None` is for every database that has no script of its own.
    dialect: Option<Dialect>,
    direction: Direction,
    text: Cow<'static, str>,
}

/// Which way a script goes.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    Down,
    Up,
}

impl Migrations {
    /// `migrations` in the order of their versions.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`](mainstay_core::Code::InvalidArgument): two have the same version, or one is negative.
    pub fn new(migrations: impl IntoIterator<Item = Migration>) -> Result<Self> {
        let mut migrations: Vec<_> = migrations.into_iter().collect();
        migrations.sort_by_key(|migration| migration.version);
        if let Some(negative) = migrations.first().filter(|migration| migration.version < 0) {
            return Err(Error::invalid_argument(format!("migration {}: a version isn't negative", negative.label())));
        }
        for pair in migrations.windows(2) {
            if let [one, other] = pair
                && one.version == other.version
            {
                let message = format!("migrations {} and {} have the same version", one.label(), other.label());
                return Err(Error::invalid_argument(message));
            }
        }
        Ok(Self(migrations.into()))
    }

    /// The migrations by version.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Migration> {
        self.0.iter()
    }

    pub(super) fn find(&self, version: i64) -> Option<&Migration> {
        self.iter().find(|migration| migration.version == version)
    }

    #[doc(hidden)]
    pub const fn __embedded(migrations: &'static [Migration]) -> Self {
        Self(Cow::Borrowed(migrations))
    }
}

impl Migration {
    /// A migration with an up script for every database.
    pub fn new(version: i64, name: impl Into<Cow<'static, str>>, up: impl Into<Cow<'static, str>>) -> Self {
        let up = Script { dialect: None, direction: Direction::Up, text: up.into() };
        Self { version, name: name.into(), scripts: vec![up].into() }
    }

    /// Adds the script that takes it back.
    #[must_use]
    pub fn down(self, down: impl Into<Cow<'static, str>>) -> Self {
        self.with(None, Direction::Down, down.into())
    }

    /// Adds an up script that wins on one database.
    #[must_use]
    pub fn up_on(self, dialect: Dialect, up: impl Into<Cow<'static, str>>) -> Self {
        self.with(Some(dialect), Direction::Up, up.into())
    }

    /// Adds a down script that wins on one database.
    #[must_use]
    pub fn down_on(self, dialect: Dialect, down: impl Into<Cow<'static, str>>) -> Self {
        self.with(Some(dialect), Direction::Down, down.into())
    }

    /// The number.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// The name, without the number.
    pub fn name(&self) -> &str {
        &self.name
    }

    #[doc(hidden)]
    pub const fn __embedded(version: i64, name: &'static str, scripts: &'static [Script]) -> Self {
        Self { version, name: Cow::Borrowed(name), scripts: Cow::Borrowed(scripts) }
    }

    /// What messages call it, as its file is called: `0001_create_stock`.
    pub(super) fn label(&self) -> String {
        label(self.version, &self.name)
    }

    /// The script for `dialect`: its own, or else the common one.
    pub(super) fn script(&self, dialect: Dialect, direction: Direction) -> Option<&str> {
        let of = |wanted: Option<Dialect>| {
            self.scripts.iter().find(|script| script.dialect == wanted && script.direction == direction)
        };
        of(Some(dialect)).or_else(|| of(None)).map(|script| &*script.text)
    }

    /// # Errors
    /// There is none for `dialect`, or its head asks for something unknown.
    pub(super) fn steps(&self, dialect: Dialect, direction: Direction) -> Result<Steps<'_>> {
        let text = self.script(dialect, direction).ok_or_else(|| self.no_script(dialect, direction))?;
        let in_transaction = in_transaction(text)
            .map_err(|problem| Error::failed_precondition(format!("migration {}: {problem}", self.label())))?;
        Ok(Steps { statements: lexer::statements(dialect, text), in_transaction })
    }

    fn no_script(&self, dialect: Dialect, direction: Direction) -> Error {
        let (label, way) = (self.label(), direction.name());
        Error::failed_precondition(format!(
            "migration {label} has no {way} script for {dialect}: add {label}.{way}.sql, or {dialect}/{label}.{way}.sql \
             (an empty file says that there is nothing to do)"
        ))
    }

    /// Adds a script, in place of the one before it if there is one.
    fn with(mut self, dialect: Option<Dialect>, direction: Direction, text: Cow<'static, str>) -> Self {
        let scripts = self.scripts.to_mut();
        scripts.retain(|script| script.dialect != dialect || script.direction != direction);
        scripts.push(Script { dialect, direction, text });
        self
    }
}

impl Script {
    pub const fn __embedded(dialect: Option<Dialect>, direction: Direction, text: &'static str) -> Self {
        Self { dialect, direction, text: Cow::Borrowed(text) }
    }
}

impl Direction {
    pub(super) fn name(self) -> &'static str {
        match self {
            Direction::Down => "down",
            Direction::Up => "up",
        }
    }
}

/// A script, read.
#[derive(Debug)]
pub(super) struct Steps<'a> {
    pub(super) statements: Vec<&'a str>,
    pub(super) in_transaction: bool,
}

pub(super) fn label(version: i64, name: &str) -> String {
    format!("{version:04}_{name}")
}

/// SHA-256 in hex of `texts`, in which an end of line is a line feed however the file was checked out.
pub(super) fn checksum<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.replace("\r\n", "\n"));
        hash.update([0]); // so that "a", "b" isn't "ab"
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads the comments at the head of a script.
fn in_transaction(text: &str) -> Result<bool, String> {
    let mut in_transaction = true;
    let lines = text.lines().map(str::trim);
    let comments = lines.filter(|line| !line.is_empty()).map_while(|line| line.strip_prefix("--"));
    for directive in comments.filter_map(|comment| comment.trim().strip_prefix("mainstay:")) {
        match directive.trim() {
            "no transaction" => in_transaction = false,
            other => return Err(format!("`-- mainstay: {other}` isn't understood, `-- mainstay: no transaction` is")),
        }
    }
    Ok(in_transaction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_of_its_own_wins_over_the_common_one() {
        let migration = Migration::new(1, "a", "common").up_on(Dialect::Mysql, "own").down("back");
        assert_eq!(migration.script(Dialect::Mysql, Direction::Up), Some("own"));
        assert_eq!(migration.script(Dialect::Sqlite, Direction::Up), Some("common"));
        assert_eq!(migration.script(Dialect::Mysql, Direction::Down), Some("back"));
    }

    #[test]
    fn a_missing_script_is_named_with_the_file_to_write() {
        let error = Migration::new(7, "a", "x").steps(Dialect::Sqlite, Direction::Down).unwrap_err();
        assert!(error.message().contains("add 0007_a.down.sql, or sqlite/0007_a.down.sql"), "{error}");
    }

    #[test]
    fn versions_are_ordered_and_never_shared() {
        let named = |version, name| Migration::new(version, name, "x");
        let ordered = Migrations::new([named(10, "b"), named(2, "a")]).unwrap();
        assert_eq!(ordered.iter().map(Migration::version).collect::<Vec<_>>(), [2, 10]);
        let error = Migrations::new([named(1, "a"), named(1, "b")]).unwrap_err();
        assert!(error.message().contains("0001_a and 0001_b"), "{error}");
        assert!(Migrations::new([named(-1, "a")]).is_err());
    }

    #[test]
    fn a_line_ending_is_no_edit_and_everything_else_is() {
        assert_eq!(checksum(["a\r\nb"]), checksum(["a\nb"]));
        assert_ne!(checksum(["a\nb"]), checksum(["a b"]));
        assert_ne!(checksum(["a", "b"]), checksum(["ab"]));
        assert_eq!(checksum([""]).len(), 64);
    }

    #[test]
    fn the_head_is_read_and_a_typing_error_in_it_is_refused() {
        assert_eq!(in_transaction("\n-- Why\n--mainstay: no transaction\nSELECT 1"), Ok(false));
        assert_eq!(in_transaction("SELECT 1;\n-- mainstay: no transaction"), Ok(true));
        assert_eq!(in_transaction("-- mainstay is nice\nSELECT 1"), Ok(true));
        assert!(in_transaction("-- mainstay: no-transaction").is_err());
    }
}
