//! Where a crate that uses a derive finds what the generated code names: it depends on that crate itself, or on
//! `mainstay` alone.

use std::path::Path as FilePath;
use std::{env, fs};

use proc_macro2::Span;
use syn::{Attribute, Error, LitStr, Path, Result};

/// A crate that generated code names.
pub(crate) struct Library {
    package: &'static str,
    /// Its path in a crate that depends on it directly.
    directly: &'static str,
    /// Its path in a crate that depends on `mainstay`.
    through_mainstay: &'static str,
}

pub(crate) const EVENTS: Library =
    Library { package: "mainstay-events", directly: "::mainstay_events", through_mainstay: "::mainstay::events" };

pub(crate) const SQL: Library =
    Library { package: "mainstay-sql", directly: "::mainstay_sql", through_mainstay: "::mainstay::sql" };

impl Library {
    /// The path by which the crate under compilation can name it.
    pub(crate) fn find(&self) -> Result<Path> {
        if env::var("CARGO_PKG_NAME").is_ok_and(|name| name == self.package) {
            return syn::parse_str(self.directly);
        }
        let folder = env::var_os("CARGO_MANIFEST_DIR")
            .ok_or_else(|| Error::new(Span::call_site(), "CARGO_MANIFEST_DIR is not set: build with cargo"))?;
        // What can't be read is left to the compiler, which says that the path below doesn't exist.
        let manifest = fs::read_to_string(FilePath::new(&folder).join("Cargo.toml")).unwrap_or_default();
        syn::parse_str(if self.is_dependency(&manifest) { self.directly } else { self.through_mainstay })
    }

    /// Reads the manifest by lines, as much TOML as dependencies are written in.
    fn is_dependency(&self, manifest: &str) -> bool {
        let mut among_dependencies = false;
        manifest.lines().map(str::trim).any(|line| {
            if let Some(header) = line.strip_prefix('[') {
                let header = header.split(']').next().unwrap_or_default();
                among_dependencies = header.ends_with("dependencies");
                let table = header.strip_suffix(self.package);
                return table.is_some_and(|table| table.ends_with("dependencies."));
            }
            let key = line.split(['=', '.', ' ', '\t']).next().unwrap_or_default();
            among_dependencies && key.trim_matches('"') == self.package
        })
    }
}

/// The attributes of `name` among `attributes`.
pub(crate) fn named<'a>(attributes: &'a [Attribute], name: &'a str) -> impl Iterator<Item = &'a Attribute> {
    attributes.iter().filter(move |attribute| attribute.path().is_ident(name))
}

/// The value of `crate = "path"`, which says where the library is.
pub(crate) fn parse_path(meta: &syn::meta::ParseNestedMeta<'_>) -> Result<Path> {
    meta.value()?.parse::<LitStr>()?.parse::<Path>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_is_seen_in_every_way_it_is_written() {
        for manifest in [
            "[dependencies]\nmainstay-sql = \"1\"",
            "[dependencies]\n  mainstay-sql.workspace = true",
            "[dev-dependencies] # for tests\nmainstay = \"1\"\nmainstay-sql={ path = \"x\" }",
            "[target.'cfg(unix)'.dependencies.mainstay-sql]\nversion = \"1\"",
        ] {
            assert!(SQL.is_dependency(manifest), "{manifest}");
            assert!(!EVENTS.is_dependency(manifest), "{manifest}");
        }
        for manifest in [
            "[dependencies]\nmainstay = \"1\"\n# mainstay-sql = \"1\"",
            "[features]\nmainstay-sql = []\n[dependencies]\nmainstay-sql-extra = \"1\"",
            "[dependencies.extra-mainstay-sql]\nversion = \"1\"",
            "",
        ] {
            assert!(!SQL.is_dependency(manifest), "{manifest}");
        }
        assert!(EVENTS.is_dependency("[dependencies]\nmainstay-sql = \"1\"\nmainstay-events = \"1\""));
    }
}
