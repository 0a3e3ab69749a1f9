//! `#[derive(FromRow)]`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Field, Fields, LitStr, Path, Result};

use crate::library::{self, named};

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let library = library_path(input)?;
    let fields = named_fields(input)?;
    let (mut reads, mut names, mut bounds, mut errors) = (Vec::new(), Vec::new(), Vec::new(), None::<Error>);
    for (index, field) in fields.iter().enumerate() {
        // Every wrong field is reported, not only the first.
        match read(field, index, &library) {
            Ok(Read { statement, bound }) => {
                reads.push(statement);
                bounds.push(bound);
            }
            Err(error) => match &mut errors {
                Some(errors) => errors.combine(error),
                None => errors = Some(error),
            },
        }
        let name = &field.ident;
        let value = format_ident!("field_{index}");
        names.push(quote!(#name: #value));
    }
    if let Some(errors) = errors {
        return Err(errors);
    }

    let mut generics = input.generics.clone();
    if generics.type_params().next().is_some() {
        generics.make_where_clause().predicates.extend(bounds);
    }
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    let name = &input.ident;
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics #library::FromRow for #name #type_generics #where_clause {
            fn from_row(row: &mut #library::Row) -> #library::__private::Result<Self> {
                #(#reads)*
                ::core::result::Result::Ok(Self { #(#names),* })
            }
        }
    })
}

/// How one field is read.
struct Read {
    statement: TokenStream,
    /// What its type has to be able to do.
    bound: syn::WherePredicate,
}

fn read(field: &Field, index: usize, library: &Path) -> Result<Read> {
    let attributes = Attributes::of(field)?;
    let ty = &field.ty;
    let column = match (&attributes.rename, &field.ident) {
        (Some(rename), _) => rename.clone(),
        (None, Some(ident)) => LitStr::new(&ident.unraw().to_string(), ident.span()),
        (None, None) => return Err(Error::new(field.span(), "the field has no name")),
    };
    let value = format_ident!("field_{index}");
    let private = quote!(#library::__private);
    // Spanned by the type, so that "the trait `FromValue` is not implemented" points at the field.
    let (read, bound) = match (attributes.flatten, attributes.json, attributes.default) {
        (true, ..) => {
            (quote_spanned!(ty.span()=> <#ty as #library::FromRow>::from_row(row)), quote!(#library::FromRow))
        }
        (_, true, false) => {
            (quote_spanned!(ty.span()=> #private::take_json::<#ty>(row, #column)), quote!(#private::DeserializeOwned))
        }
        (_, true, true) => (
            quote_spanned!(ty.span()=> #private::take_json_or_default::<#ty>(row, #column)),
            quote!(#private::DeserializeOwned + ::core::default::Default),
        ),
        (_, false, true) => (
            quote_spanned!(ty.span()=> #private::take_or_default::<#ty>(row, #column)),
            quote!(#library::FromValue + ::core::default::Default),
        ),
        (_, false, false) => {
            (quote_spanned!(ty.span()=> #library::Row::take::<#ty>(row, #column)), quote!(#library::FromValue))
        }
    };
    Ok(Read { statement: quote!(let #value = #read?;), bound: syn::parse_quote!(#ty: #bound) })
}

fn named_fields(input: &DeriveInput) -> Result<&syn::punctuated::Punctuated<Field, syn::Token![,]>> {
    match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => Ok(&fields.named),
            _ => Err(Error::new(
                input.ident.span(),
                "FromRow reads columns by the names of the fields, and these have none: name them, or read a tuple `(A, B)`",
            )),
        },
        Data::Enum(_) | Data::Union(_) => Err(Error::new(
            input.ident.span(),
            "FromRow is for structs: a row has all of its columns, not one of several",
        )),
    }
}

/// Where the generated code finds `mainstay_sql`.
fn library_path(input: &DeriveInput) -> Result<Path> {
    let mut path = None;
    for attribute in named(&input.attrs, "row") {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("crate") {
                return Err(meta.error("on the struct, `row` knows `crate = \"path\"` only"));
            }
            path = Some(library::parse_path(&meta)?);
            Ok(())
        })?;
    }
    path.map_or_else(|| library::SQL.find(), Ok)
}

/// What `#[row(…)]` says about a field.
#[derive(Default)]
struct Attributes {
    rename: Option<LitStr>,
    json: bool,
    default: bool,
    flatten: bool,
}

impl Attributes {
    fn of(field: &Field) -> Result<Self> {
        let mut found = Self::default();
        for attribute in named(&field.attrs, "row") {
            attribute.parse_nested_meta(|meta| {
                let seen = match &meta.path {
                    path if path.is_ident("rename") => {
                        return match found.rename.replace(meta.value()?.parse()?) {
                            None => Ok(()),
                            Some(_) => Err(meta.error("`rename` is given twice")),
                        };
                    }
                    path if path.is_ident("json") => &mut found.json,
                    path if path.is_ident("default") => &mut found.default,
                    path if path.is_ident("flatten") => &mut found.flatten,
                    _ => {
                        return Err(meta.error("`row` knows `rename = \"column\"`, `json`, `default` and `flatten`"));
                    }
                };
                match std::mem::replace(seen, true) {
                    false => Ok(()),
                    true => Err(meta.error("given twice")),
                }
            })?;
            if found.flatten && (found.rename.is_some() || found.json || found.default) {
                return Err(Error::new(
                    attribute.span(),
                    "`flatten` reads no column of its own: it goes with nothing else",
                ));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    fn refused(input: &DeriveInput) -> Vec<String> {
        expand(input).expect_err("should be refused").into_iter().map(|error| error.to_string()).collect()
    }

    #[test]
    fn a_field_is_read_from_the_column_of_its_name() -> Result<()> {
        let code = expand(&parse_quote! {
            struct Order { id: i64, r#type: String, #[row(rename = "total_cents")] total: i64 }
        })?
        .to_string();
        for column in ["\"id\"", "\"type\"", "\"total_cents\""] {
            assert!(code.contains(column), "{column} in {code}");
        }
        assert!(!code.contains("\"total\""), "{code}");
        Ok(())
    }

    #[test]
    fn a_generic_struct_asks_its_fields_for_what_they_need() -> Result<()> {
        let code = expand(&parse_quote! { #[row(crate = "elsewhere::sql")] struct Page<T> { body: T, id: i64 } })?;
        assert!(code.to_string().contains("where T : elsewhere :: sql :: FromValue"), "{code}");
        Ok(())
    }

    #[test]
    fn what_can_not_be_read_by_names_is_refused() {
        assert!(
            refused(&parse_quote!(
                struct Order(i64);
            ))[0]
                .contains("name them")
        );
        assert!(
            refused(&parse_quote!(
                struct Order;
            ))[0]
                .contains("name them")
        );
        assert!(
            refused(&parse_quote!(
                enum Order {
                    A,
                }
            ))[0]
                .contains("FromRow is for structs")
        );
    }

    #[test]
    fn every_wrong_attribute_is_reported() {
        let errors = refused(&parse_quote! {
            struct Order {
                #[row(renamed = "x")] a: i64,
                b: i64,
                #[row(json, json)] c: i64,
                #[row(flatten, json)] d: i64,
                #[row(rename)] e: i64,
                #[row(default = 1)] f: i64,
            }
        });
        assert_eq!(errors.len(), 5, "{errors:?}");
        assert!(errors[0].contains("`rename = \"column\"`"), "{errors:?}");
        assert!(errors[1].contains("given twice"), "{errors:?}");
        assert!(errors[2].contains("goes with nothing else"), "{errors:?}");
        assert!(refused(&parse_quote! { #[row(rename = "x")] struct Order { a: i64 } })[0].contains("`crate"));
    }
}
