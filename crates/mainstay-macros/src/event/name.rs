//! Names of types and topics: one form that every broker takes, and every log and dashboard prints as it is.

use syn::meta::ParseNestedMeta;
use syn::{Error, LitStr, Result};

/// A name is part of keys and indexes.
const LONGEST: usize = 100;

/// The value of `type = "…"` or `topic = "…"`.
pub(super) fn parse(meta: &ParseNestedMeta<'_>) -> Result<LitStr> {
    let name: LitStr = meta.value()?.parse()?;
    match fault(&name.value()) {
        None => Ok(name),
        Some(fault) => Err(Error::new(name.span(), fault)),
    }
}

fn fault(name: &str) -> Option<String> {
    let form = "a name is lower-case words with dots between them, as in \"shop.order.placed\"";
    let wrong = name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-'));
    match wrong {
        Some(wrong) => Some(format!("{form}: of `a` to `z`, `0` to `9`, `_` and `-`, not {wrong:?}")),
        None if name.is_empty() => Some(format!("{form}: this one is empty")),
        None if name.len() > LONGEST => {
            Some(format!("a name has at most {LONGEST} characters, and this one has {}", name.len()))
        }
        None if name.split('.').any(str::is_empty) => Some(format!("{form}: a dot here has no word beside it")),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_words_with_dots() {
        for name in ["a", "shop.order.placed", "v2.order_line-added", "2", &"x".repeat(LONGEST)] {
            assert_eq!(fault(name), None);
        }
        for (name, expected) in [
            ("", "empty"),
            ("Shop.order", "not 'S'"),
            ("shop order", "not ' '"),
            ("shop/order", "not '/'"),
            ("größe", "not 'ö'"),
            (".shop", "no word"),
            ("shop.", "no word"),
            ("shop..order", "no word"),
            (&"x".repeat(LONGEST + 1), "has 101"),
        ] {
            assert!(fault(name).is_some_and(|fault| fault.contains(expected)), "{name}: {:?}", fault(name));
        }
    }
}
