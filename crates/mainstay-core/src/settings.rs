//! Settings: layers of files and environment, read into plain types, with errors that say what to repair where.
//!
//! A section is a struct with `#[derive(Default, Serialize, Deserialize)]` and `#[serde(default)]`. Its fields are the
//! keys that exist: any other key is an error that names the nearest one. A map (`HashMap`, `BTreeMap`) is open.
//!
//! ```
//! use mainstay_core::settings::{Loader, duration};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! #[serde(default)]
//! struct Http {
//!     addr: std::net::SocketAddr,
//!     #[serde(with = "duration")]
//!     idle_timeout: std::time::Duration,
//! }
//! impl Default for Http {
//!     fn default() -> Self {
//!         Self { addr: ([127, 0, 0, 1], 8080).into(), idle_timeout: std::time::Duration::from_secs(60) }
//!     }
//! }
//! # fn main() -> mainstay_core::Result<()> {
//! let mut sources = Loader::new("shop").environment([("SHOP_HTTP__IDLE_TIMEOUT", "5m")]).load()?;
//! let http: Http = sources.section("http")?;
//! assert_eq!(http.idle_timeout.as_secs(), 300);
//! let settings = sources.finish()?;
//! assert_eq!(settings[1].source.to_string(), "environment variable SHOP_HTTP__IDLE_TIMEOUT");
//! # Ok(()) }
//! ```
//!
//! In the environment every value is a text: lists are written with commas, nothing (of an `Option`) is the empty text.
//! Keys are lower-cased, so that a key with capitals or a dash can be set by files only. `#[serde(flatten)]` makes a
//! struct open, because serde then hides its keys.

use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;

mod access;
mod deserializer;
pub mod duration;
mod effective;
mod environment;
mod fault;
mod loader;
mod node;
mod reader;
mod value;
mod yaml;

pub use effective::Setting;
pub use loader::Loader;
pub use node::Source;

use fault::Fault;
use node::{Kind, Node};

use crate::Result;

/// All layers laid on top of each other: what types are read from. Made by [`Loader::load`].
///
/// Read the sections that exist, then the program's own settings with [`Sources::rest`], then call
/// [`Sources::finish`]. To tell about all faults at once, look at the results of `section` only after `finish`: it
/// fails if any of them did.
#[derive(Debug)]
pub struct Sources {
    root: Node,
    prefix: String,
    claimed: BTreeSet<String>,
    faults: Vec<Fault>,
    settings: Vec<Setting>,
}

impl Sources {
    fn new(root: Node, prefix: String) -> Self {
        Self { root, prefix, claimed: BTreeSet::new(), faults: Vec::new(), settings: Vec::new() }
    }

    /// Reads the section `name`, a key of the top level, into a `T`. A section that nobody gave is `T`'s defaults.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`](crate::Code::InvalidArgument) with everything that is wrong with this section; it
    /// stays recorded for [`Sources::finish`].
    pub fn section<T: Serialize + DeserializeOwned>(&mut self, name: &str) -> Result<T> {
        self.claimed.insert(name.to_owned());
        let node = self.entry(name).cloned().unwrap_or_else(Node::empty_map);
        self.read(name, &node)
    }

    /// Declares that the section `name` exists without reading it: for a part that this run does not need.
    pub fn skip(&mut self, name: &str) {
        self.claimed.insert(name.to_owned());
    }

    /// Reads what no section has claimed into the program's own `T`, whose fields are keys of the top level; `()` for a
    /// program that has none. To be called after all sections, because it makes every other key an error.
    ///
    /// # Errors
    /// As [`Sources::section`].
    pub fn rest<T: Serialize + DeserializeOwned>(&mut self) -> Result<T> {
        let mut node = self.root.clone();
        let mut names = Vec::new();
        if let Kind::Map(entries) = &mut node.kind {
            entries.retain(|name, _| !self.claimed.contains(name));
            names.extend(entries.keys().cloned());
        }
        let result = self.read("", &node);
        self.claimed.extend(names); // after the reading, whose errors suggest the names claimed before
        result
    }

    /// Ends the reading: every setting in effect, in the order of the keys, with its source and secrets masked.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`](crate::Code::InvalidArgument) with everything that was wrong with any section, and
    /// with the sections that nobody knows.
    pub fn finish(mut self) -> Result<Vec<Setting>> {
        if let Kind::Map(entries) = &self.root.kind {
            let known: Vec<&str> = self.claimed.iter().map(String::as_str).collect();
            let unclaimed = entries.iter().filter(|(name, node)| !self.claimed.contains(*name) && !node.alias);
            self.faults.extend(unclaimed.map(|(name, node)| Fault::unknown(name.clone(), node, &known)));
        }
        if !self.faults.is_empty() {
            return Err(fault::into_error(&self.faults));
        }
        self.settings.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(self.settings)
    }

    fn entry(&self, name: &str) -> Option<&Node> {
        match &self.root.kind {
            Kind::Map(entries) => entries.get(name),
            _ => None,
        }
    }

    fn read<T: Serialize + DeserializeOwned>(&mut self, key: &str, node: &Node) -> Result<T> {
        let read = reader::read(node, key, &self.prefix, &self.claimed).and_then(|value: T| {
            let tree = serde_json::to_value(&value)
                .map_err(|error| vec![Fault::at(key, &node.source, format!("can't be shown: {error}"))])?;
            effective::list(key, &tree, Some(node), &mut self.settings);
            Ok(value)
        });
        read.map_err(|faults| {
            let error = fault::into_error(&faults);
            self.faults.extend(faults);
            error
        })
    }
}
