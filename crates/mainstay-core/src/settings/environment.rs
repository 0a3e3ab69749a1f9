//! Which environment variables are settings, and the tree they make.

use std::ffi::OsString;
use std::sync::Arc;

use super::fault::Fault;
use super::node::{Node, Source};

/// The variables by name; each name is there once.
pub(super) type Variables = Vec<(OsString, OsString)>;

/// The tree of all `<PREFIX><SECTION>__<KEY>`. Any other name under the prefix is none of our business: Kubernetes
/// alone puts `SHOP_PORT` and `SHOP_SERVICE_HOST` there for a service called shop.
pub(super) fn settings(variables: &Variables, prefix: &str, faults: &mut Vec<Fault>) -> Node {
    let mut root = Node::empty_map();
    for (name, value) in variables {
        let Some(path) = name.to_str().and_then(|name| path_of(name, prefix)) else { continue };
        let segments: Vec<&str> = path.split("__").collect();
        let source = source_of(&name.to_string_lossy());
        let inserted = match value.to_str() {
            Some(text) => root.insert(&segments, Node::text(text, source)),
            None => Err(Fault::at(segments.join("."), &source, "is not valid UTF-8")),
        };
        faults.extend(inserted.err());
    }
    root
}

/// The tree of the well-known names, as `DATABASE_URL` for `database.url`. An empty one counts as not set, because that
/// is what compose files make of a variable that nobody gave.
pub(super) fn aliases(variables: &Variables, aliases: &[(String, String)], faults: &mut Vec<Fault>) -> Node {
    let mut root = Node::empty_map();
    root.alias = true;
    for (alias, key) in aliases {
        let Some((_, value)) = variables.iter().find(|(name, value)| name == alias.as_str() && !value.is_empty())
        else {
            continue;
        };
        let source = source_of(alias);
        let inserted = match value.to_str() {
            Some(text) => {
                let mut leaf = Node::text(text, source);
                leaf.alias = true;
                root.insert(&key.split('.').collect::<Vec<_>>(), leaf)
            }
            None => Err(Fault::at(key, &source, "is not valid UTF-8")),
        };
        faults.extend(inserted.err());
    }
    root
}

/// The value of the variable `name`; an empty one counts as not set.
pub(super) fn variable<'a>(variables: &'a Variables, name: &str) -> Option<&'a OsString> {
    variables.iter().find(|(candidate, value)| candidate == name && !value.is_empty()).map(|(_, value)| value)
}

pub(super) fn source_of(variable: &str) -> Source {
    Source::Environment { variable: Arc::from(variable) }
}

/// `http__addr` for `SHOP_HTTP__ADDR`, `None` for what is not configuration.
fn path_of(name: &str, prefix: &str) -> Option<String> {
    let path = name.strip_prefix(prefix)?.to_lowercase();
    // `___` could be read in two ways, so that it is read in none; empty segments name nothing.
    let shaped = path.contains("__") && !path.contains("___") && !path.starts_with('_') && !path.ends_with('_');
    shaped.then_some(path)
}
