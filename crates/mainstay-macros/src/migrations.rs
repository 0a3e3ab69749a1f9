//! `embed_migrations!`: a folder of SQL files as a constant.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};
use std::{env, fs};

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::parse::{Parse, ParseStream};
use syn::{Error, LitStr};

mod file;

use file::{Direction, File};

/// The folders whose files win over the common ones, as `Dialect::name` spells them, with the variant of `Dialect`.
const DATABASES: [(&str, &str); 3] = [("mysql", "Mysql"), ("postgres", "Postgres"), ("sqlite", "Sqlite")];

pub(crate) fn expand(input: TokenStream) -> syn::Result<TokenStream> {
    let Input { library, folder } = syn::parse2(input)?;
    let root = env::var_os("CARGO_MANIFEST_DIR")
        .ok_or_else(|| Error::new(folder.span(), "CARGO_MANIFEST_DIR is not set: build with cargo"))?;
    let path = FilePath::new(&root).join(folder.value());
    let migrations = collect(&path).map_err(|problem| Error::new(folder.span(), problem))?;
    // Each slice is a `const` of its own, because only there may a borrowed value with a destructor live for ever.
    let (mut scripts, mut entries) = (Vec::new(), Vec::new());
    for (index, (version, migration)) in migrations.into_iter().enumerate() {
        let (slice, name) = (format_ident!("SCRIPTS_{index}"), migration.name);
        let tokens = migration.scripts.into_iter().map(|script| script.tokens(&library));
        scripts.push(quote!(const #slice: &[#library::migrate::Script] = &[#(#tokens),*];));
        entries.push(quote!(#library::migrate::Migration::__embedded(#version, #name, #slice)));
    }
    Ok(quote!({
        #(#scripts)*
        const MIGRATIONS: &[#library::migrate::Migration] = &[#(#entries),*];
        #library::migrate::Migrations::__embedded(MIGRATIONS)
    }))
}

/// `$crate, "folder"`: the path comes as the token that `macro_rules!` makes, so that it is right in every crate.
struct Input {
    library: TokenStream,
    folder: LitStr,
}

impl Parse for Input {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut library = TokenStream::new();
        while !input.peek(syn::Token![,]) && !input.is_empty() {
            library.extend([input.parse::<proc_macro2::TokenTree>()?]);
        }
        input.parse::<syn::Token![,]>()?;
        Ok(Self { library, folder: input.parse()? })
    }
}

#[derive(Debug)]
struct Migration {
    name: String,
    scripts: Vec<Script>,
}

#[derive(Debug)]
struct Script {
    database: Option<&'static str>,
    direction: Direction,
    path: PathBuf,
}

impl Script {
    fn tokens(&self, library: &TokenStream) -> TokenStream {
        let database = match self.database {
            None => quote!(::core::option::Option::None),
            Some(variant) => {
                let variant = proc_macro2::Ident::new(variant, proc_macro2::Span::call_site());
                quote!(::core::option::Option::Some(#library::Dialect::#variant))
            }
        };
        let direction = match self.direction {
            Direction::Up => quote!(#library::migrate::Direction::Up),
            Direction::Down => quote!(#library::migrate::Direction::Down),
        };
        // include_str, so that cargo builds again when the file changes.
        let path = self.path.to_string_lossy();
        quote!(#library::migrate::Script::__embedded(#database, #direction, ::core::include_str!(#path)))
    }
}

/// Everything in `folder` and its folders per database, by version. The error is a sentence that names the file.
fn collect(folder: &FilePath) -> Result<BTreeMap<i64, Migration>, String> {
    let mut found = BTreeMap::new();
    for path in entries(folder)? {
        let name = file_name(&path);
        if !path.is_dir() {
            add(&mut found, None, path)?;
        } else if let Some((_, variant)) = DATABASES.iter().find(|(database, _)| *database == name) {
            for path in entries(&path)? {
                add(&mut found, Some(variant), path)?;
            }
        } else if !name.starts_with('.') {
            return Err(format!(
                "{}: a folder of migrations holds files and the folders mysql, postgres, sqlite",
                path.display()
            ));
        }
    }
    for (version, migration) in &found {
        if let Some(down) = migration.scripts.iter().find(|script| script.direction == Direction::Down)
            && !migration.scripts.iter().any(|script| script.direction == Direction::Up)
        {
            return Err(format!("{}: there is no `.up.sql` for version {version}", down.path.display()));
        }
    }
    Ok(found)
}

fn add(found: &mut BTreeMap<i64, Migration>, database: Option<&'static str>, path: PathBuf) -> Result<(), String> {
    let Some(file) = File::parse(&file_name(&path)).map_err(|problem| format!("{}: {problem}", path.display()))? else {
        return Ok(());
    };
    let migration =
        found.entry(file.version).or_insert_with(|| Migration { name: file.name.clone(), scripts: Vec::new() });
    let twin = migration.scripts.iter().find(|script| {
        migration.name != file.name || (script.database == database && script.direction == file.direction)
    });
    if let Some(twin) = twin {
        let (version, twin) = (file.version, twin.path.display());
        return Err(format!("{}: version {version} is taken by {twin}", path.display()));
    }
    migration.scripts.push(Script { database, direction: file.direction, path });
    Ok(())
}

/// The entries in an order that doesn't depend on the file system.
fn entries(folder: &FilePath) -> Result<Vec<PathBuf>, String> {
    let problem = |error: std::io::Error| format!("{}: {error}", folder.display());
    let entries = fs::read_dir(folder).map_err(problem)?;
    let mut paths =
        entries.map(|entry| entry.map(|entry| entry.path()).map_err(problem)).collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    Ok(paths)
}

fn file_name(path: &FilePath) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("it is in the folder")).expect("a folder");
            fs::write(path, "SELECT 1").expect("a file");
        }
        folder
    }

    fn refused(files: &[&str]) -> String {
        let folder = folder(files);
        collect(folder.path()).expect_err("should be refused").replace(&folder.path().display().to_string(), "")
    }

    #[test]
    fn files_are_ordered_by_number_and_grouped_by_version() {
        let folder = folder(&[
            "10_ten.up.sql",
            "0002_two.up.sql",
            "0002_two.down.sql",
            "mysql/0002_two.up.sql",
            "README.md",
            ".hidden/x",
        ]);
        let found = collect(folder.path()).expect("well formed");
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [2, 10]);
        assert_eq!((found[&2].name.as_str(), found[&2].scripts.len()), ("two", 3));
    }

    #[test]
    fn what_is_not_well_formed_is_refused_by_file() {
        assert_eq!(refused(&["1_a.up.sql", "0001_b.up.sql"]), "/1_a.up.sql: version 1 is taken by /0001_b.up.sql");
        assert_eq!(refused(&["1_a.up.sql", "01_a.up.sql"]), "/1_a.up.sql: version 1 is taken by /01_a.up.sql");
        assert_eq!(
            refused(&["1_a.up.sql", "sqlite/1_other.up.sql"]),
            "/sqlite/1_other.up.sql: version 1 is taken by /1_a.up.sql"
        );
        assert_eq!(refused(&["1_a.down.sql"]), "/1_a.down.sql: there is no `.up.sql` for version 1");
        assert!(refused(&["oracle/1_a.up.sql"]).starts_with("/oracle: a folder of migrations holds"));
        assert!(refused(&["add_index.up.sql"]).starts_with("/add_index.up.sql: "));
        assert!(collect(FilePath::new("/no/such/folder")).expect_err("missing").starts_with("/no/such/folder: "));
    }
}
