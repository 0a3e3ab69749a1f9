//! How serde walks through lists, maps and enums of [`Node`]s.

use std::collections::VecDeque;
use std::iter::Enumerate;
use std::slice::Iter;

use serde::Deserializer;
use serde::de::{DeserializeSeed, EnumAccess, Error as _, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::fault::Fault;
use super::node::Node;
use super::value::NodeDeserializer;

/// The elements of a list.
pub(super) struct Items<'a> {
    list: &'a NodeDeserializer<'a>,
    rest: Enumerate<Iter<'a, Node>>,
}

impl<'a> Items<'a> {
    pub(super) fn new(list: &'a NodeDeserializer<'a>, items: &'a [Node]) -> Self {
        Self { list, rest: items.iter().enumerate() }
    }

    /// How many elements the type did not ask for.
    pub(super) fn unread(&self) -> usize {
        self.rest.len()
    }
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some((index, node)) = self.rest.next() else { return Ok(None) };
        let key = format!("{}[{index}]", self.list.key);
        seed.deserialize(NodeDeserializer::new(node, key, self.list.reading)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

/// The keys and values of a map.
pub(super) struct Entries<'a> {
    map: &'a NodeDeserializer<'a>,
    rest: VecDeque<(&'a String, &'a Node)>,
}

impl<'a> Entries<'a> {
    pub(super) fn new(map: &'a NodeDeserializer<'a>, entries: Vec<(&'a String, &'a Node)>) -> Self {
        Self { map, rest: entries.into() }
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((name, node)) = self.rest.front() else { return Ok(None) };
        let name_node = Node::text(name.as_str(), node.key_source.clone());
        seed.deserialize(NodeDeserializer::new(&name_node, self.map.key_of(name), self.map.reading)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (name, node) = self.rest.pop_front().ok_or_else(|| Fault::custom("a value was read before its key"))?;
        seed.deserialize(NodeDeserializer::new(node, self.map.key_of(name), self.map.reading))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

/// A variant of an enum: a name alone, or a name with its content.
pub(super) struct Variant<'a> {
    value: &'a NodeDeserializer<'a>,
    name: &'a str,
    content: Option<&'a Node>,
}

impl<'a> Variant<'a> {
    pub(super) fn new(value: &'a NodeDeserializer<'a>, name: &'a str, content: Option<&'a Node>) -> Self {
        Self { value, name, content }
    }

    fn content(&self) -> Result<NodeDeserializer<'a>, Fault> {
        let content = self.content.ok_or_else(|| {
            let fault = Fault::custom(format_args!("expected `{}` as a key with a value", self.name));
            self.value.place(fault)
        })?;
        Ok(NodeDeserializer::new(content, self.value.key_of(self.name), self.value.reading))
    }
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        let name_node = Node::text(self.name, self.value.node.source.clone());
        let name = NodeDeserializer::new(&name_node, self.value.key.clone(), self.value.reading);
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        match self.content {
            None => Ok(()),
            Some(_) => serde::Deserialize::deserialize(self.content()?),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        seed.deserialize(self.content()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Fault> {
        self.content()?.deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.content()?.deserialize_struct("", fields, visitor)
    }
}
