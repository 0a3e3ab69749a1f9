//! `#[derive(Event)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Data, DeriveInput, Error, Path, Result};

use crate::library::{self, named};

mod attributes;
mod key;
mod name;

use attributes::Attributes;
use key::Key;

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    only_the_type_has_attributes(&input.data)?;
    owns_what_it_carries(input)?;
    let attributes = Attributes::of(input)?;
    let key = attributes.key.as_ref().map(|path| Key::of(&input.data, path)).transpose()?;
    let library = attributes.library.map_or_else(|| library::EVENTS.find(), Ok)?;

    let name_of_type = &attributes.name;
    let topic = attributes.topic.map(|topic| quote!(const TOPIC: &'static str = #topic;));
    let version = attributes.version.map(|version| quote!(const VERSION: u32 = #version;));
    let key_bound = key.as_ref().and_then(Key::bound);
    let key = key.map(|key| {
        let value = key.value();
        quote! {
            fn key(&self) -> ::core::option::Option<::std::string::String> {
                ::core::option::Option::Some(#value)
            }
        }
    });

    let mut generics = input.generics.clone();
    if generics.type_params().next().is_some() {
        let predicates = &mut generics.make_where_clause().predicates;
        predicates.push(can_be_stored(input, &library));
        predicates.extend(key_bound);
    }
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    let name = &input.ident;
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics #library::Event for #name #type_generics #where_clause {
            const TYPE: &'static str = #name_of_type;
            #topic
            #version
            #key
        }
    })
}

/// What `Event` asks of the whole type. Of the type and not of its parameters: only serde's derive knows what it needs
/// of them.
fn can_be_stored(input: &DeriveInput, library: &Path) -> syn::WherePredicate {
    let name = &input.ident;
    let (_, type_generics, _) = input.generics.split_for_impl();
    let private = quote!(#library::__private);
    syn::parse_quote! {
        #name #type_generics: #private::Serialize + #private::DeserializeOwned
            + ::core::marker::Send + ::core::marker::Sync + 'static
    }
}

/// The compiler would say that `Deserialize` is not general enough.
fn owns_what_it_carries(input: &DeriveInput) -> Result<()> {
    match input.generics.lifetimes().next() {
        None => Ok(()),
        Some(lifetime) => Err(Error::new_spanned(
            &lifetime.lifetime,
            "an event owns what it carries, for it is read back long after it happened: use `String` for `&str`, `Vec` \
             for a slice",
        )),
    }
}

/// The compiler lets a derive's attribute stand in places where it means nothing.
fn only_the_type_has_attributes(data: &Data) -> Result<()> {
    let refuse = |attributes: &[Attribute]| match named(attributes, "event").next() {
        None => Ok(()),
        Some(attribute) => Err(Error::new_spanned(
            attribute,
            "`event` stands on the type and names fields from there: `#[event(type = \"…\", key = \"field\")]`",
        )),
    };
    match data {
        Data::Struct(data) => data.fields.iter().try_for_each(|field| refuse(&field.attrs)),
        Data::Enum(data) => data.variants.iter().try_for_each(|variant| {
            refuse(&variant.attrs)?;
            variant.fields.iter().try_for_each(|field| refuse(&field.attrs))
        }),
        Data::Union(data) => Err(Error::new_spanned(
            data.union_token,
            "Event is for structs and enums: of a union nobody knows which field is there",
        )),
    }
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    fn expanded(input: &DeriveInput) -> Result<String> {
        expand(input).map(|code| code.to_string())
    }

    fn refused(input: &DeriveInput) -> String {
        expand(input).expect_err("should be refused").to_string()
    }

    #[test]
    fn what_is_not_said_is_left_to_the_trait() -> Result<()> {
        let code = expanded(&parse_quote! { #[event(type = "shop.opened")] struct Opened; })?;
        assert!(code.contains("impl :: mainstay :: events :: Event for Opened"), "{code}");
        assert!(code.contains("const TYPE : & 'static str = \"shop.opened\""), "{code}");
        for absent in ["TOPIC", "VERSION", "fn key", "where"] {
            assert!(!code.contains(absent), "{absent} in {code}");
        }
        Ok(())
    }

    #[test]
    fn all_that_is_said_is_generated() -> Result<()> {
        let code = expanded(&parse_quote! {
            #[event(type = "shop.order.placed", key = "order.id")]
            #[event(topic = "shop.orders", version = 2, crate = "elsewhere::events")]
            struct OrderPlaced { order: Order }
        })?;
        for expected in [
            "impl elsewhere :: events :: Event for OrderPlaced",
            "const TOPIC : & 'static str = \"shop.orders\"",
            "const VERSION : u32 = 2",
            "let field = & self . order . id ;",
        ] {
            assert!(code.contains(expected), "{expected} in {code}");
        }
        Ok(())
    }

    #[test]
    fn a_generic_type_asks_itself_for_what_an_event_is() -> Result<()> {
        let code = expanded(&parse_quote! {
            #[event(type = "a", key = "id", crate = "e")] struct Changed<I, T: Copy> where T: Eq { id: I, to: T }
        })?;
        assert!(code.contains("impl < I , T : Copy > e :: Event for Changed < I , T > where T : Eq ,"), "{code}");
        assert!(code.contains("Changed < I , T > : e :: __private :: Serialize"), "{code}");
        assert!(code.contains("I : :: std :: string :: ToString"), "{code}");
        Ok(())
    }

    #[test]
    fn what_can_not_be_an_event_is_refused() {
        let union = refused(&parse_quote! { #[event(type = "a")] union Bits { a: u8, b: i8 } });
        assert!(union.contains("structs and enums"), "{union}");
        let borrowed = refused(&parse_quote! { #[event(type = "a")] struct Named<'a> { name: &'a str } });
        assert!(borrowed.contains("owns what it carries"), "{borrowed}");
    }

    #[test]
    fn an_attribute_in_a_place_where_it_means_nothing_is_refused() {
        for input in [
            parse_quote! { #[event(type = "a")] struct Placed { #[event(key)] id: i64 } },
            parse_quote! { #[event(type = "a")] enum Change { #[event(type = "b")] Up } },
            parse_quote! { #[event(type = "a")] enum Change { Up(#[event(key)] i64) } },
        ] {
            let error = refused(&input);
            assert!(error.contains("stands on the type"), "{error}");
        }
    }
}
