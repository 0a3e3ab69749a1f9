//! Where generated code finds the library that runs it.

use std::path::Path;
use std::{env, fs};

const PACKAGE: &str = "mainstay-grpc";

/// `::mainstay_grpc` in a package that depends on it, `::mainstay::grpc` in any other.
pub(crate) fn runtime() -> String {
    let folder = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    // What can't be read is left to the compiler, which says that the path doesn't exist.
    let manifest = fs::read_to_string(Path::new(&folder).join("Cargo.toml")).unwrap_or_default();
    let directly = manifest.lines().map(str::trim).any(depends);
    if directly { "::mainstay_grpc" } else { "::mainstay::grpc" }.to_owned()
}

/// `mainstay-grpc = …`, `mainstay-grpc.workspace = true`, `[dependencies.mainstay-grpc]`.
fn depends(line: &str) -> bool {
    let key = line.split(['=', '.', ' ', '\t']).next().unwrap_or_default().trim_matches('"');
    key == PACKAGE || line.strip_suffix(']').is_some_and(|table| table.ends_with(&format!("dependencies.{PACKAGE}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_is_seen_in_every_way_it_is_written() {
        for line in ["mainstay-grpc = \"1\"", "mainstay-grpc.workspace = true", "[dev-dependencies.mainstay-grpc]"] {
            assert!(depends(line), "{line}");
        }
        for line in ["mainstay = \"1\"", "# mainstay-grpc = \"1\"", "mainstay-grpc-extra = \"1\""] {
            assert!(!depends(line), "{line}");
        }
    }
}
