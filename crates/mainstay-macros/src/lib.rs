//! The procedural macros of Mainstay. Use them through the crates that re-export them: `mainstay`,
//! `mainstay-events` and `mainstay-sql`.

use proc_macro::TokenStream;

mod event;
mod from_row;
mod library;
mod migrations;

/// Implements `Event` for a struct or an enum: what happened, under a name that outlives the name in Rust.
///
/// The type is `serde::Serialize` and `serde::Deserialize` too, and owns what it carries.
///
/// | on the type | says |
/// |---|---|
/// | `#[event(type = "shop.order.placed")]` | the name that the event is stored and sent under; required. Lower-case words with dots between them, of `a` to `z`, `0` to `9`, `_` and `-`, at most 100 characters |
/// | `#[event(topic = "shop.orders")]` | where it is published, a name like that of `type`; otherwise the type |
/// | `#[event(key = "order_id")]` | the field, or `"order.id"` for a field of a field, by which events keep their order, through `ToString`; structs only. Otherwise the event has no key |
/// | `#[event(version = 2)]` | the version of its form, from 1, which is also what it is otherwise |
/// | `#[event(crate = "path")]` | where `mainstay_events` is, if Cargo knows it by another name |
///
/// They may stand in one attribute: `#[event(type = "shop.order.placed", key = "order_id", version = 2)]`.
#[proc_macro_derive(Event, attributes(event))]
pub fn derive_event(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    event::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

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
