//! The file of a database: its folder, and words for when it can't be opened.

use mainstay_core::{Code, Error, Result};

use crate::fault::{DatabaseError, DatabaseErrorKind};
use crate::settings::SqliteFile;

/// Makes the folder of the file, with those above it.
pub(super) fn prepare(file: &SqliteFile) -> Result<()> {
    let SqliteFile::Path(path) = file else { return Ok(()) };
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    std::fs::create_dir_all(folder).map_err(|error| {
        Error::failed_precondition("the folder of the database can't be made").with_source(error).context(format!(
            "making {} for the SQLite database: give the service a folder it may write to, or change the url",
            folder.display()
        ))
    })
}

/// The error for a file that can't be opened.
pub(super) fn explain(file: &SqliteFile, fault: DatabaseError) -> Error {
    let SqliteFile::Path(path) = file else { return fault.into_error() };
    let path = path.display();
    match fault.kind {
        DatabaseErrorKind::Deadlock | DatabaseErrorKind::Serialization => {
            Error::unavailable("the database is busy, try again")
                .with_source(fault)
                .context(format!("opening {path}: another process kept it locked"))
        }
        DatabaseErrorKind::DiskFull => fault.into_error().context(format!("opening {path}")),
        _ => Error::new(Code::FailedPrecondition, "the database can't be opened").with_source(fault).context(format!(
            "opening {path}: the service must be able to write to the file and to its folder, in which SQLite \
             keeps its log beside it, and the file must be a SQLite database"
        )),
    }
}
