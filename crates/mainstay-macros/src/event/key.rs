//! The key of an event: a field, or a field of a field.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Data, Error, Field, Fields, Ident, Index, LitStr, Member, Result, Type};

/// Where the key is found.
pub(super) struct Key<'a> {
    ty: &'a Type,
    /// From the event's own field to the one that is the key.
    path: Vec<Member>,
    /// Where a type that isn't `ToString` is told: at the field if that is one of the event's own, which is all that a
    /// derive sees, and otherwise at the path.
    span: Span,
}

impl<'a> Key<'a> {
    pub(super) fn of(data: &'a Data, literal: &LitStr) -> Result<Self> {
        let fields = match data {
            Data::Struct(data) => &data.fields,
            Data::Enum(_) | Data::Union(_) => {
                return Err(Error::new(
                    literal.span(),
                    "an enum has no field that is there in every variant: put it into a struct with the key beside it, \
                     or implement `Event` by hand",
                ));
            }
        };
        let value = literal.value();
        let (first, rest) = value.split_once('.').map_or((&*value, None), |(first, rest)| (first, Some(rest)));
        let (own, field) = own_field(fields, first).ok_or_else(|| unknown_field(fields, first, literal))?;
        let mut path = vec![own];
        for name in rest.iter().flat_map(|rest| rest.split('.')) {
            path.push(member(name, literal)?);
        }
        let span = if path.len() == 1 { field.ty.span() } else { literal.span() };
        Ok(Self { ty: &field.ty, path, span })
    }

    /// The expression of the key, of `self`.
    pub(super) fn value(&self) -> TokenStream {
        let path = &self.path;
        // Bound first, so that a type that isn't `ToString` is told at its own place and not at `self`. And `self` is
        // not of that place: in a macro that is handed the field, it would be the `self` of the macro's caller.
        let field = Ident::new("field", self.span);
        let text = quote_spanned!(self.span=> ::std::string::ToString::to_string(#field));
        quote!({
            let #field = &self #(.#path)*;
            #text
        })
    }

    /// What the field's type has to be able to do, where a derive knows that type.
    pub(super) fn bound(&self) -> Option<syn::WherePredicate> {
        let ty = self.ty;
        (self.path.len() == 1).then(|| syn::parse_quote!(#ty: ::std::string::ToString))
    }
}

fn own_field<'a>(fields: &'a Fields, name: &str) -> Option<(Member, &'a Field)> {
    fields.members().zip(fields).find(|(member, _)| spelt(member) == name)
}

fn unknown_field(fields: &Fields, name: &str, literal: &LitStr) -> Error {
    let known: Vec<_> = fields.members().map(|member| format!("`{}`", spelt(&member))).collect();
    let known = if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
    Error::new(literal.span(), format!("the event has no field `{name}` to be its key: {known}"))
}

/// A field of a field, which only the compiler can look for.
fn member(name: &str, literal: &LitStr) -> Result<Member> {
    let span = literal.span();
    if let Ok(index) = name.parse() {
        return Ok(Member::Unnamed(Index { index, span }));
    }
    let keyword = || syn::parse_str::<Ident>(&format!("r#{name}"));
    match syn::parse_str::<Ident>(name).or_else(|_| keyword()) {
        Ok(mut ident) => {
            ident.set_span(span);
            Ok(Member::Named(ident))
        }
        Err(_) => Err(Error::new(
            span,
            format!("a key is a field, or a path of fields with dots between them, as in \"order.id\", not `{name}`"),
        )),
    }
}

/// As it stands in `key = "…"`.
fn spelt(member: &Member) -> String {
    match member {
        Member::Named(ident) => ident.unraw().to_string(),
        Member::Unnamed(index) => index.index.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use syn::{DeriveInput, parse_quote};

    use super::*;

    fn key(input: &DeriveInput, path: &str) -> Result<String> {
        Key::of(&input.data, &LitStr::new(path, Span::call_site())).map(|key| key.value().to_string())
    }

    #[test]
    fn a_key_is_a_field_or_a_field_of_a_field() -> Result<()> {
        let order: DeriveInput = parse_quote! { struct Order { id: i64, r#type: String, line: Line } };
        for (path, expected) in [
            ("id", "& self . id"),
            ("type", "& self . r#type"),
            ("line.sku", "& self . line . sku"),
            ("line.type.0", "& self . line . r#type . 0"),
        ] {
            let code = key(&order, path)?;
            assert!(code.contains(&format!("= {expected} ;")), "{expected} in {code}");
        }
        let wrapped: DeriveInput = parse_quote! { struct Wrapped(Order); };
        assert!(key(&wrapped, "0.id")?.contains("& self . 0 . id"));
        Ok(())
    }

    #[test]
    fn a_key_that_is_not_there_is_refused_with_those_that_are() {
        let order: DeriveInput = parse_quote! { struct Order { id: i64, r#type: String } };
        let unit: DeriveInput = parse_quote! { struct Opened; };
        let choice: DeriveInput = parse_quote! { enum Change { Up { id: i64 }, Down { id: i64 } } };
        for (input, path, expected) in [
            (&order, "ident", "no field `ident` to be its key: it has `id`, `type`"),
            (&order, "", "no field ``"),
            (&order, "r#type", "it has `id`, `type`"),
            (&order, "id.", "path of fields"),
            (&order, "id..x", "path of fields"),
            (&order, "id.to_string()", "path of fields"),
            (&order, "id.self", "path of fields"),
            (&unit, "id", "it has none"),
            (&choice, "id", "in every variant"),
        ] {
            let error = key(input, path).expect_err(path).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
