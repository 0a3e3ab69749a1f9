//! [`NodeDeserializer`]: one value on its way into a type; how it is read and how a fault in it is told.

use serde::de::{Expected, Visitor};

use super::access::{Entries, Items};
use super::fault::Fault;
use super::node::{Kind, Node};
use super::reader::Reading;
use crate::secret::{MASK, is_secret_name, mask_url};

/// How much of a wrong value an error quotes.
const MAX_QUOTED: usize = 80;

/// One value, on its way into a type.
#[derive(Clone)]
pub(super) struct NodeDeserializer<'a> {
    pub(super) node: &'a Node,
    pub(super) key: String,
    pub(super) reading: &'a Reading<'a>,
    /// Whether the target is a secret, so that an error doesn't quote the value.
    pub(super) secret: bool,
}

impl<'a> NodeDeserializer<'a> {
    pub(super) fn new(node: &'a Node, key: String, reading: &'a Reading<'a>) -> Self {
        let secret = is_secret_name(&key);
        Self { node, key, reading, secret }
    }

    /// The key of a part of this value.
    pub(super) fn key_of(&self, name: &str) -> String {
        if self.key.is_empty() { name.to_owned() } else { format!("{}.{name}", self.key) }
    }

    /// Says of a fault that came without a place that it is here.
    pub(super) fn place(&self, mut fault: Fault) -> Fault {
        if fault.placed {
            return fault;
        }
        fault.placed = true;
        if let Some(field) = fault.missing {
            fault.key = self.key_of(field);
            let variable = self.reading.variable(&fault.key).map_or(String::new(), |name| format!(" or {name}"));
            fault.problem = format!("is required and has no default: set it in config.yaml{variable}");
            return fault;
        }
        fault.key.clone_from(&self.key);
        fault.source = Some(Box::new(self.node.source.clone()));
        fault.value = self.quoted();
        match &self.node.kind {
            _ if !fault.foreign => {}
            _ if self.secret => fault.problem = "is not a value that this secret can have".to_owned(),
            Kind::Text { text, .. } if !text.is_empty() => fault.problem = fault.problem.replace(text, &mask_url(text)),
            _ => {}
        }
        fault
    }

    pub(super) fn wrong(&self, expected: &dyn Expected) -> Fault {
        self.place(Fault::expected(expected))
    }

    pub(super) fn not_a(&self, expected: &str) -> Fault {
        self.place(Fault::new(format!("expected {expected}")))
    }

    /// As `not_a`, for what has parts: a text in their place is not quoted, because one of them may be a secret.
    fn not_made_of(&self, expected: &str) -> Fault {
        let mut fault = self.not_a(expected);
        if let Kind::Text { .. } = self.node.kind {
            fault.value = Some("a text".to_owned());
        }
        fault
    }

    fn quoted(&self) -> Option<String> {
        match &self.node.kind {
            Kind::Null => Some("nothing".to_owned()),
            Kind::List(_) => Some("a list".to_owned()),
            Kind::Map(_) => Some("keys with values".to_owned()),
            Kind::Text { .. } if self.secret => Some(MASK.to_owned()),
            Kind::Text { text, .. } => {
                let masked = mask_url(text);
                let shown: String = masked.chars().take(MAX_QUOTED).collect();
                Some(format!("{shown:?}{}", if shown.len() < masked.len() { "…" } else { "" }))
            }
        }
    }

    pub(super) fn text(&self, expected: &dyn Expected) -> Result<&'a str, Fault> {
        match &self.node.kind {
            Kind::Text { text, .. } => Ok(text),
            _ => Err(self.wrong(expected)),
        }
    }

    /// A whole number, in decimal or, as YAML has it, after `0x` or `0o`.
    pub(super) fn whole(&self) -> Option<i128> {
        let Kind::Text { text, .. } = &self.node.kind else { return None };
        let text = text.trim();
        match (text.strip_prefix("0x"), text.strip_prefix("0o")) {
            // A sign would come through the prefix: "0x-1" is no number.
            (Some(digits), _) if !digits.starts_with(['+', '-']) => i128::from_str_radix(digits, 16).ok(),
            (_, Some(digits)) if !digits.starts_with(['+', '-']) => i128::from_str_radix(digits, 8).ok(),
            _ => text.parse().ok(),
        }
    }

    pub(super) fn seq<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let parts: Vec<Node>;
        let items = match &self.node.kind {
            Kind::List(items) => items,
            Kind::Text { text, .. } if self.node.is_loose() => {
                let words = text.split(',').map(str::trim).filter(|_| !text.trim().is_empty());
                parts = words.map(|word| Node::text(word, self.node.source.clone())).collect();
                &parts
            }
            _ => return Err(self.not_made_of("a list, as [a, b]")),
        };
        let mut elements = Items::new(&self, items);
        let value = visitor.visit_seq(&mut elements).map_err(|fault| self.place(fault))?;
        match elements.unread() {
            0 => Ok(value),
            unread => Err(self.not_a(&format!("a list of {}, not of {}", items.len() - unread, items.len()))),
        }
    }

    pub(super) fn map<'de, V: Visitor<'de>>(self, known: Option<&[&str]>, visitor: V) -> Result<V::Value, Fault> {
        let entries = match &self.node.kind {
            Kind::Map(entries) => entries.iter().collect(),
            Kind::Null => Vec::new(),
            _ => {
                let keys = known.filter(|known| !known.is_empty()).map(|known| format!(" `{}`", known.join("`, `")));
                let hint = self.reading.variable(&self.key_of("x")).filter(|_| self.node.is_loose());
                let hint =
                    hint.map_or(String::new(), |name| format!(", each set as {}<KEY>", name.trim_end_matches('X')));
                return Err(self.not_made_of(&format!("keys{}{hint}", keys.unwrap_or_default())));
            }
        };
        let mut read = Vec::with_capacity(entries.len());
        for (name, node) in entries {
            let key = self.key_of(name);
            match known {
                Some(known) if !known.contains(&name.as_str()) => {
                    self.reading.report_unknown(key, node, known);
                }
                _ if self.reading.is_skipped(&key) => {}
                _ => read.push((name, node)),
            }
        }
        visitor.visit_map(Entries::new(&self, read)).map_err(|fault| self.place(fault))
    }
}
