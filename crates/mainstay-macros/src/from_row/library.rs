//! Where a crate that derives `FromRow` finds `mainstay_sql`: it depends on that itself, or on `mainstay` alone.

use std::path::Path as FilePath;
use std::{env, fs};

use proc_macro2::Span;
use syn::{Error, Path, Result};

/// The path by which the crate under compilation can name `mainstay_sql`.
pub(super) fn find() -> Result<Path> {
    if env::var("CARGO_PKG_NAME").is_ok_and(|name| name == "mainstay-sql") {
        return syn::parse_str("::mainstay_sql");
    }
    let folder = env::var_os("CARGO_MANIFEST_DIR")
        .ok_or_else(|| Error::new(Span::call_site(), "CARGO_MANIFEST_DIR is not set: build with cargo"))?;
    // What can't be read is left to the compiler, which says that the path below doesn't exist.
    let manifest = fs::read_to_string(FilePath::new(&folder).join("Cargo.toml")).unwrap_or_default();
    syn::parse_str(if depends_directly(&manifest) { "::mainstay_sql" } else { "::mainstay::sql" })
}

/// Reads the manifest by lines, as much TOML as dependencies are written in.
fn depends_directly(manifest: &str) -> bool {
    let mut among_dependencies = false;
    manifest.lines().map(str::trim).any(|line| {
        if let Some(header) = line.strip_prefix('[') {
            let header = header.split(']').next().unwrap_or_default();
            among_dependencies = header.ends_with("dependencies");
            return header.ends_with("dependencies.mainstay-sql");
        }
        let key = line.split(['=', '.', ' ', '\t']).next().unwrap_or_default();
        among_dependencies && key.trim_matches('"') == "mainstay-sql"
    })
}

#[cfg(test)]
mod tests {
    use super::depends_directly;

    #[test]
    fn a_dependency_is_seen_in_every_way_it_is_written() {
        for manifest in [
            "[dependencies]\nmainstay-sql = \"1\"",
            "[dependencies]\n  mainstay-sql.workspace = true",
            "[dev-dependencies] # for tests\nmainstay = \"1\"\nmainstay-sql={ path = \"x\" }",
            "[target.'cfg(unix)'.dependencies.mainstay-sql]\nversion = \"1\"",
        ] {
            assert!(depends_directly(manifest), "{manifest}");
        }
        for manifest in [
            "[dependencies]\nmainstay = \"1\"\n# mainstay-sql = \"1\"",
            "[features]\nmainstay-sql = []\n[dependencies]\nmainstay-sql-extra = \"1\"",
            "",
        ] {
            assert!(!depends_directly(manifest), "{manifest}");
        }
    }
}
