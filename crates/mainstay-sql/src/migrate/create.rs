//! `migrate new`: the files of a new migration.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use mainstay_core::{Error, Result, ResultExt};

use super::migration::label;

/// Writes `0007_<name>.up.sql` and `.down.sql` into `folder`, which is made if need be, with the number behind the
/// greatest there, and returns their paths, up first. Nothing is overwritten.
///
/// # Errors
/// [`Code::InvalidArgument`](mainstay_core::Code::InvalidArgument): `name` has other characters than letters, digits,
/// `_` and `-`. What the file system says.
pub fn create(folder: impl AsRef<Path>, name: &str) -> Result<[PathBuf; 2]> {
    let folder = folder.as_ref();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if name.is_empty() || !name.bytes().all(plain) {
        let message =
            format!("`{name}` can't name a migration: use letters, digits, `_` and `-`, as in `create_orders`");
        return Err(Error::invalid_argument(message));
    }
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let version = greatest_version(folder)?
        .checked_add(1)
        .ok_or_else(|| Error::invalid_argument("the greatest version is taken: there is no number behind it"))?;
    let label = label(version, name);
    let write = |direction: &str, comment: &str| {
        let path = folder.join(format!("{label}.{direction}.sql"));
        let mut file =
            OpenOptions::new().write(true).create_new(true).open(&path).with_context(|| path.display().to_string())?;
        writeln!(file, "-- {comment}").with_context(|| path.display().to_string())?;
        Ok::<_, Error>(path)
    };
    Ok([
        write("up", "What this changes, and why.")?,
        write("down", "How to take it back; delete this file if you can't.")?,
    ])
}

/// Among the common files and those of each database; zero if there is none.
fn greatest_version(folder: &Path) -> Result<i64> {
    let mut greatest = 0;
    for part in ["", "mysql", "postgres", "sqlite"] {
        let part = folder.join(part);
        let entries = match fs::read_dir(&part) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries.with_context(|| part.display().to_string())?,
        };
        for entry in entries {
            let name = entry.with_context(|| part.display().to_string())?.file_name();
            let name = name.to_string_lossy();
            let number =
                name.split_once('_').filter(|_| name.ends_with(".sql")).and_then(|(number, _)| number.parse().ok());
            greatest = greatest.max(number.unwrap_or(0));
        }
    }
    Ok(greatest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_behind_the_greatest_of_all_folders() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("migrations");
        let names = |paths: [PathBuf; 2]| paths.map(|path| path.file_name().unwrap().to_string_lossy().into_owned());
        assert_eq!(names(create(&path, "one").unwrap()), ["0001_one.up.sql", "0001_one.down.sql"]);
        fs::create_dir(path.join("mysql")).unwrap();
        fs::write(path.join("mysql/0041_forty.up.sql"), "").unwrap();
        fs::write(path.join("9999_notes.txt"), "").unwrap();
        assert_eq!(names(create(&path, "next").unwrap()), ["0042_next.up.sql", "0042_next.down.sql"]);
    }

    #[test]
    fn a_name_that_would_leave_the_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["", "../x", "a b", "ä", "a.up"] {
            assert!(create(folder.path(), name).is_err(), "{name}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
