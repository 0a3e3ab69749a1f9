//! The procedural macros of Mainstay. Use them through the crates that re-export them: `mainstay` and `mainstay-sql`.

use proc_macro::TokenStream;

mod from_row;
mod migrations;

/// Implements `FromRow` for a struct: every field is read from the column of its name.
///
/// | attribute on a field | effect |
/// |---|---|
/// | `#[row(rename = "column")]` | reads that column |
/// | `#[row(json)]` | the column is a JSON document of the field's type, by `serde::Deserialize`; NULL is JSON's null |
/// | `#[row(default)]` | `Default::default()` where the column is NULL or not in the answer |
/// | `#[row(flatten)]` | the field is a struct of its own, `FromRow` too, read from the same row |
///
/// `#[row(crate = "path")]` on the struct says where `mainstay_sql` is, if Cargo knows it by another name.
#[proc_macro_derive(FromRow, attributes(row))]
pub fn derive_from_row(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    from_row::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Embeds a folder of migrations: `(path of mainstay_sql, "folder")`. Behind `mainstay_sql::migrations!`.
#[doc(hidden)]
#[proc_macro]
pub fn embed_migrations(input: TokenStream) -> TokenStream {
    migrations::expand(input.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
