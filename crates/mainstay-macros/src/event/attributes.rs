//! What `#[event(…)]` says about a type.

use syn::meta::ParseNestedMeta;
use syn::{DeriveInput, Error, LitInt, LitStr, Path, Result};

use super::name;
use crate::library::{self, named};

pub(super) struct Attributes {
    /// `type`
    pub(super) name: LitStr,
    pub(super) topic: Option<LitStr>,
    pub(super) key: Option<LitStr>,
    pub(super) version: Option<u32>,
    /// `crate`
    pub(super) library: Option<Path>,
}

impl Attributes {
    pub(super) fn of(input: &DeriveInput) -> Result<Self> {
        let (mut event_type, mut topic, mut key, mut version, mut library) = (None, None, None, None, None);
        for attribute in named(&input.attrs, "event") {
            attribute.parse_nested_meta(|meta| match &meta.path {
                path if path.is_ident("type") => once(&meta, &mut event_type, name::parse),
                path if path.is_ident("topic") => once(&meta, &mut topic, name::parse),
                path if path.is_ident("key") => once(&meta, &mut key, |meta| meta.value()?.parse::<LitStr>()),
                path if path.is_ident("version") => once(&meta, &mut version, parse_version),
                path if path.is_ident("crate") => once(&meta, &mut library, library::parse_path),
                _ => Err(meta.error(
                    "`event` knows `type = \"shop.order.placed\"`, `topic = \"shop.orders\"`, `key = \"field\"`, \
                     `version = 2` and `crate = \"path\"`",
                )),
            })?;
        }
        let Some(name) = event_type else {
            return Err(Error::new(
                input.ident.span(),
                "an event has a name of its own, which stays when the type is renamed: add \
                 `#[event(type = \"shop.order.placed\")]`",
            ));
        };
        Ok(Self { name, topic, key, version, library })
    }
}

fn once<'a, T>(
    meta: &ParseNestedMeta<'a>,
    slot: &mut Option<T>,
    parse: impl FnOnce(&ParseNestedMeta<'a>) -> Result<T>,
) -> Result<()> {
    if slot.is_some() {
        return Err(meta.error("given twice"));
    }
    *slot = Some(parse(meta)?);
    Ok(())
}

fn parse_version(meta: &ParseNestedMeta<'_>) -> Result<u32> {
    let literal: LitInt = meta.value()?.parse()?;
    match literal.base10_parse()? {
        0 => Err(Error::new(literal.span(), "versions count from 1")),
        version => Ok(version),
    }
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    #[test]
    fn wrong_attributes_say_what_to_do() {
        let cases: [(DeriveInput, &str); 10] = [
            (parse_quote! { struct A; }, "add `#[event(type = \"shop.order.placed\")]`"),
            (parse_quote! { #[event(topic = "a")] struct A; }, "add `#[event(type"),
            (parse_quote! { #[event(type = "a", name = "b")] struct A; }, "`event` knows `type"),
            (parse_quote! { #[event(type = "a", type = "b")] struct A; }, "given twice"),
            (parse_quote! { #[event(type = "a")] #[event(type = "b")] struct A; }, "given twice"),
            (parse_quote! { #[event(type = "A")] struct A; }, "lower-case"),
            (parse_quote! { #[event(type = "a", topic = "a b")] struct A; }, "lower-case"),
            (parse_quote! { #[event(type = "a", version = 0)] struct A; }, "versions count from 1"),
            (parse_quote! { #[event(type = "a", version = 4294967296)] struct A; }, "too large"),
            (parse_quote! { #[event(type = "a", key = id)] struct A; }, "string literal"),
        ];
        for (input, expected) in cases {
            let error = Attributes::of(&input).err().expect(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
