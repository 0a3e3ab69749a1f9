//! Reads a YAML file into a [`Node`], with the place of every value.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, StrInput};

use super::fault::Fault;
use super::node::{Kind, MAX_DEPTH, Node, Source};

/// How many nodes a file may have, those that aliases repeat included: a dozen lines could ask for millions.
const MAX_NODES: usize = 10_000;

/// Reads one YAML document whose root is a map. An empty document is an empty map.
///
/// Scalars keep their text: whether `1.10` is a number or a version is for the type to say that it is read into.
pub(super) fn parse(text: &str, path: &Path) -> Result<Node, Fault> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        path: path.into(),
        anchors: HashMap::new(),
        nodes_left: MAX_NODES,
    };
    let root = reader.document()?;
    match root.kind {
        Kind::Map(_) => Ok(root),
        Kind::Null => Ok(Node { kind: Kind::Map(BTreeMap::new()), ..root }),
        _ => Err(Fault::at("", &root.source, "expected keys with values, as `http:`")),
    }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    path: Arc<Path>,
    anchors: HashMap<usize, Node>,
    nodes_left: usize,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<Node, Fault> {
        let mut root = None;
        loop {
            let (event, source) = self.next()?;
            match event {
                Event::StreamEnd => {
                    return Ok(root.unwrap_or_else(|| Node::new(Kind::Null, source)));
                }
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                _ if root.is_some() => return Err(Fault::at("", &source, "expected one document, not several")),
                event => root = Some(self.node(event, source, 0)?),
            }
        }
    }

    fn node(&mut self, event: Event<'a>, source: Source, depth: usize) -> Result<Node, Fault> {
        self.count(1, &source)?;
        if depth > MAX_DEPTH {
            return Err(Fault::at("", &source, format!("is nested deeper than {MAX_DEPTH} levels")));
        }
        let tag = match &event {
            Event::Scalar(_, _, _, tag) | Event::SequenceStart(_, tag) | Event::MappingStart(_, tag) => tag.clone(),
            _ => None,
        };
        let as_text = tag.as_ref().is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
        if let Some(tag) = tag.filter(|_| !as_text) {
            let problem = format!("the tag {}{} is not understood: remove it", tag.handle, tag.suffix);
            return Err(Fault::at("", &source, problem));
        }
        let (kind, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => (scalar(&text, style == ScalarStyle::Plain && !as_text), anchor),
            Event::SequenceStart(anchor, _) => (self.list(depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.map(depth)?, anchor),
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                // An alias inside its own anchor names something that isn't there yet.
                let node = node.ok_or_else(|| Fault::at("", &source, "the alias refers to itself"))?;
                self.count(size(&node), &source)?;
                return Ok(node);
            }
            _ => return Err(Fault::at("", &source, "expected a value")),
        };
        let node = Node::new(kind, source);
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Kind, Fault> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Kind::List(items)),
                (event, source) => items.push(self.node(event, source, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Kind, Fault> {
        let mut entries: BTreeMap<String, Node> = BTreeMap::new();
        loop {
            let (key, key_source) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(Kind::Map(entries)),
                (Event::Scalar(key, ..), source) => (key.into_owned(), source),
                (_, source) => return Err(Fault::at("", &source, "expected a key that is a word")),
            };
            if let Some(first) = entries.get(&key) {
                let problem = format!("the key `{key}` is given twice, first at {}: keep one", first.key_source);
                return Err(Fault::at("", &key_source, problem));
            }
            let (event, source) = self.next()?;
            let mut value = self.node(event, source, depth + 1)?;
            value.key_source = key_source;
            entries.insert(key, value);
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Source), Fault> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, self.place(span.start))),
            Some(Err(error)) => {
                Err(Fault::at("", &self.place(*error.marker()), format!("is not valid YAML: {}", error.info())))
            }
            None => Ok((Event::StreamEnd, self.place(Marker::new(0, 1, 0)))),
        }
    }

    fn place(&self, marker: Marker) -> Source {
        Source::File { path: self.path.clone(), line: marker.line(), column: marker.col() + 1 }
    }

    fn count(&mut self, nodes: usize, source: &Source) -> Result<(), Fault> {
        self.nodes_left = self
            .nodes_left
            .checked_sub(nodes)
            .ok_or_else(|| Fault::at("", source, format!("has more than {MAX_NODES} values, aliases included")))?;
        Ok(())
    }
}

fn scalar(text: &str, plain: bool) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" if plain => Kind::Null,
        text => Kind::Text { text: text.to_owned(), plain },
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.kind {
        Kind::Null | Kind::Text { .. } => 0,
        Kind::List(items) => items.iter().map(size).sum(),
        Kind::Map(entries) => entries.values().map(size).sum(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(text: &str) -> String {
        parse(text, Path::new("config.yaml")).unwrap_err().to_string()
    }

    #[test]
    fn every_fault_of_a_file_has_its_place() {
        for (text, expected) in [
            ("a: 1\nb: 2\na: 3\n", "config.yaml:3:1: the key `a` is given twice, first at config.yaml:1:1: keep one"),
            ("http:\n  addr: [1, 2\n", "config.yaml:"),
            ("- a\n- b\n", "config.yaml:1:1: expected keys with values, as `http:`"),
            ("a: 1\n---\nb: 2\n", "config.yaml:3:1: expected one document, not several"),
            ("a: !secret x\n", "config.yaml:1:4: the tag !secret is not understood: remove it"),
            ("? [a, b]\n: c\n", "config.yaml:1:3: expected a key that is a word"),
            ("a: &x [*x]\n", "config.yaml:1:"),
            ("a:\n\tb: 1\n", "config.yaml:2:"),
        ] {
            assert!(error(text).starts_with(expected), "{text:?}: {}", error(text));
        }
    }

    #[test]
    fn an_empty_or_commented_file_is_an_empty_map() {
        for text in ["", "\n\n", "# nothing yet\n", "---\n", "~\n", "\u{feff}# with a byte order mark\n"] {
            let root = parse(text, Path::new("config.yaml")).unwrap();
            assert!(matches!(root.kind, Kind::Map(ref map) if map.is_empty()), "{text:?}");
        }
    }

    #[test]
    fn aliases_repeat_values_and_can_not_exhaust_memory() {
        let root = parse("a: &x [1, 2]\nb: *x\n", Path::new("config.yaml")).unwrap();
        assert_eq!(size(&root), 7);
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let before = level - 1;
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 10].join(", ")));
        }
        assert!(error(&bomb).contains("has more than 10000 values"), "{}", error(&bomb));
    }

    #[test]
    fn nesting_has_a_limit() {
        let flow = format!("a: {}{}", "[".repeat(200), "]".repeat(200));
        let block: String = (0..2000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
        assert!(error(&flow).contains("nested deeper"), "{}", error(&flow));
        assert!(error(&block).contains("nested deeper"), "{}", error(&block));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(\\PC|[\n\t :,&*!|>'\"%@`#?{}\\[\\]-]){0,80}") {
            let _ = parse(&text, Path::new("config.yaml"));
        }
    }
}
