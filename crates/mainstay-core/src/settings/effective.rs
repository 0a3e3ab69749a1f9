//! [`Setting`]: the settings as they are in effect, for people.

use serde_json::Value;

use super::node::{Kind, Node, Source};
use crate::secret::{MASK, is_secret_name, mask_url};

/// One setting in effect: what the `config` command prints.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Setting {
    /// The path of the key, as `http.addr`.
    pub key: String,
    /// The value as it was understood, secrets masked.
    pub value: String,
    /// Where it came from.
    pub source: Source,
}

/// Lists the leaves of `value`, which was read from `node`.
pub(super) fn list(key: &str, value: &Value, node: Option<&Node>, settings: &mut Vec<Setting>) {
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            for (name, value) in entries {
                let child = node.and_then(|node| match &node.kind {
                    Kind::Map(entries) => entries.get(name),
                    _ => None,
                });
                list(&if key.is_empty() { name.clone() } else { format!("{key}.{name}") }, value, child, settings);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, value) in items.iter().enumerate() {
                let child = node.and_then(|node| match &node.kind {
                    Kind::List(items) => items.get(index),
                    _ => None,
                });
                list(&format!("{key}[{index}]"), value, child, settings);
            }
        }
        // A type without fields, as `()` for a program without settings of its own.
        Value::Null if key.is_empty() => {}
        leaf => settings.push(Setting {
            key: key.to_owned(),
            value: show(key, leaf),
            source: node.map_or(Source::Default, |node| node.source.clone()),
        }),
    }
}

fn show(key: &str, leaf: &Value) -> String {
    match leaf {
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::Null | Value::Bool(_) => leaf.to_string(),
        // A secret that was declared as a plain text is still one.
        _ if is_secret_name(key) => MASK.to_owned(),
        Value::String(text) => mask_url(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| show(key, item)).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}
