//! Library SQL has nothing that only MariaDB understands, so that MySQL 8 can run it too.

#![expect(clippy::unwrap_used, reason = "a helper of a test, which the lint's allowance for tests does not reach")]

use std::fs;
use std::path::{Path, PathBuf};

/// What MariaDB has and MySQL 8 has not, as upper-case words.
const MARIADB_ONLY: [&str; 7] =
    ["RETURNING", "CREATE SEQUENCE", "NEXT VALUE FOR", "NEXTVAL", "OR REPLACE TABLE", "UUID NOT NULL", "INET6"];

#[test]
fn library_sql_for_mysql_uses_nothing_that_only_mariadb_has() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src/mysql", "src/migrate", "../../examples/shop/migrations/mysql"] {
        collect(&root.join(folder), &mut files);
    }
    files.push(root.join("src/mysql.rs"));
    files.push(root.join("../../examples/shop/src/repository/sql.rs"));
    assert!(files.len() > 5, "the folders have moved: {files:?}");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("").split("-- ").next().unwrap_or("").to_uppercase();
            for words in MARIADB_ONLY {
                assert!(!code.contains(words), "{}:{}: `{words}` is MariaDB's own", file.display(), number + 1);
            }
        }
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}
