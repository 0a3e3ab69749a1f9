//! Reads a [`Node`] into a type, and finds as many faults as it can on the way.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;

use super::fault::Fault;
use super::node::Node;
use super::value::NodeDeserializer;

/// What all deserializers of one reading share.
pub(super) struct Reading<'a> {
    /// The start of the environment variables' names, as `SHOP_`.
    pub(super) prefix: &'a str,
    /// Names that are known at the top level beside those of the type.
    pub(super) siblings: &'a BTreeSet<String>,
    /// Keys that were found faulty and are left out, so that the faults behind them come to light.
    skipped: RefCell<BTreeSet<String>>,
    unknown: RefCell<BTreeMap<String, Fault>>,
}

/// Reads `node`, which stands at `key`, into a `T`, or says all that is wrong with it.
pub(super) fn read<T: DeserializeOwned>(
    node: &Node,
    key: &str,
    prefix: &str,
    siblings: &BTreeSet<String>,
) -> Result<T, Vec<Fault>> {
    let reading = Reading { prefix, siblings, skipped: RefCell::default(), unknown: RefCell::default() };
    let mut faults = Vec::new();
    // serde stops at the first fault. So leave the faulty key out and read again, until the rest is right or the same
    // key comes back. Each round leaves out one more key of the tree, so that there is an end.
    let value = loop {
        match T::deserialize(NodeDeserializer::new(node, key.to_owned(), &reading)) {
            Ok(value) => break Some(value),
            // Missing now because it was left out, or still faulty because it could not be.
            Err(fault) if reading.is_skipped(skippable(&fault.key)) => break None,
            Err(fault) => {
                reading.skip(&fault.key);
                faults.push(fault);
            }
        }
    };
    faults.extend(reading.unknown.into_inner().into_values());
    match value {
        Some(value) if faults.is_empty() => Ok(value),
        _ => Err(faults),
    }
}

impl Reading<'_> {
    fn skip(&self, key: &str) {
        self.skipped.borrow_mut().insert(skippable(key).to_owned());
    }

    pub(super) fn is_skipped(&self, key: &str) -> bool {
        self.skipped.borrow().contains(key)
    }

    pub(super) fn report_unknown(&self, key: String, node: &Node, known: &[&str]) {
        let top = !key.contains('.');
        if top && node.alias {
            return; // a well-known variable for a part that this program doesn't have
        }
        let siblings = self.siblings.iter().map(String::as_str).filter(|_| top);
        let known: Vec<&str> = known.iter().copied().chain(siblings).collect();
        let fault = Fault::unknown(key.clone(), node, &known);
        self.unknown.borrow_mut().insert(key, fault);
    }

    /// The environment variable that sets `key`, if one can: `http.addr` is set by `SHOP_HTTP__ADDR`.
    pub(super) fn variable(&self, key: &str) -> Option<String> {
        let settable = key.contains('.') && !key.contains(['[', '-']) && key == key.to_lowercase();
        settable.then(|| format!("{}{}", self.prefix, key.replace('.', "__").to_uppercase()))
    }
}

/// What can be left out in the place of `key`: the list it is in, because leaving out an element would move the others.
fn skippable(key: &str) -> &str {
    key.split('[').next().unwrap_or(key)
}
