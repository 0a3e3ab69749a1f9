//! The tree that files and environment are read into: every value remembers where it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::fault::Fault;

/// How deep a tree may be: more than any settings need, less than what a recursion could fall over.
pub(super) const MAX_DEPTH: usize = 32;

/// Where a value of the settings came from.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Source {
    /// Nobody gave it: the default of the program.
    Default,
    /// A file.
    File {
        /// The path as it was given or found.
        path: Arc<Path>,
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: Arc<str>,
    },
    /// The program itself, by [`Loader::set`](super::Loader::set).
    Program,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Source::Environment { variable } => write!(f, "environment variable {variable}"),
            Source::Program => f.write_str("set by the program"),
        }
    }
}

/// A value and its origin.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// Where the value stands.
    pub(super) source: Source,
    /// Where the key of the value stands: what an error about the key itself points at.
    pub(super) key_source: Source,
    /// Whether all of it came from aliases such as `DATABASE_URL`, which a program that knows no database may ignore.
    pub(super) alias: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Null,
    /// `plain` texts may stand for a number, a bool or nothing; quoted ones are texts.
    Text {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(BTreeMap<String, Node>),
}

impl Node {
    pub(super) fn new(kind: Kind, source: Source) -> Self {
        Self { kind, key_source: source.clone(), source, alias: false }
    }

    pub(super) fn text(text: impl Into<String>, source: Source) -> Self {
        Self::new(Kind::Text { text: text.into(), plain: true }, source)
    }

    pub(super) fn empty_map() -> Self {
        Self::new(Kind::Map(BTreeMap::new()), Source::Default)
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self.kind, Kind::Map(_))
    }

    /// Whether the value is an untyped text from outside a file, in which lists are written with commas and nothing is
    /// written as the empty text.
    pub(super) fn is_loose(&self) -> bool {
        matches!(self.source, Source::Environment { .. } | Source::Program)
    }

    /// Lays `over` on top: maps are joined key by key, anything else replaces what was there.
    pub(super) fn merge(&mut self, over: Node) {
        self.alias &= over.alias;
        match (&mut self.kind, over.kind) {
            (Kind::Map(base), Kind::Map(entries)) => {
                for (key, node) in entries {
                    match base.get_mut(&key) {
                        Some(existing) => existing.merge(node),
                        None => {
                            base.insert(key, node);
                        }
                    }
                }
            }
            // A section whose lines are all commented out reads as null; it takes nothing away.
            (Kind::Map(_), Kind::Null) => {}
            (kind, over_kind) => {
                *kind = over_kind;
                self.source = over.source;
                self.key_source = over.key_source;
            }
        }
    }

    /// Puts a leaf at `path` (at least one segment) of this map, which holds only what was put in this way.
    pub(super) fn insert(&mut self, path: &[&str], leaf: Node) -> Result<(), Fault> {
        let key = path.join(".");
        if path.len() > MAX_DEPTH {
            return Err(Fault::at(key, &leaf.source, format!("is nested deeper than {MAX_DEPTH} levels")));
        }
        let clash = |other: &Node| {
            let problem = format!("contradicts {}: keep one of the two", other.key_source);
            Err(Fault::at(key.clone(), &leaf.source, problem))
        };
        let mut map = match &mut self.kind {
            Kind::Map(map) => map,
            _ => return clash(self),
        };
        let Some((last, parents)) = path.split_last() else { return Ok(()) };
        for segment in parents {
            let parent = map.entry((*segment).to_owned()).or_insert_with(|| {
                let mut parent = Node::new(Kind::Map(BTreeMap::new()), leaf.source.clone());
                parent.alias = leaf.alias;
                parent
            });
            parent.alias &= leaf.alias;
            if !parent.is_map() {
                return clash(parent);
            }
            map = match &mut parent.kind {
                Kind::Map(map) => map,
                _ => return Ok(()), // just excluded
            };
        }
        if let Some(other) = map.get(*last) {
            return clash(other);
        }
        map.insert((*last).to_owned(), leaf);
        Ok(())
    }
}
