//! The serde side of [`NodeDeserializer`]: what each kind of type makes of a value.

use serde::de::{Deserializer, Visitor};

use super::access::Variant;
use super::fault::Fault;
use super::node::Kind;
use super::value::NodeDeserializer;
use crate::secret::SECRET_TYPES;

/// Whole numbers are checked against the range of their type here, so that the error can name it.
macro_rules! whole_numbers {
    ($($deserialize:ident $visit:ident $type:ty, $range:expr;)*) => {$(
        fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            match self.whole().and_then(|number| <$type>::try_from(number).ok()) {
                Some(number) => visitor.$visit(number).map_err(|fault| self.place(fault)),
                None => Err(self.not_a(&$range)),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for NodeDeserializer<'_> {
    type Error = Fault;

    whole_numbers! {
        deserialize_i8 visit_i8 i8, format!("a whole number from {} to {}", i8::MIN, i8::MAX);
        deserialize_i16 visit_i16 i16, format!("a whole number from {} to {}", i16::MIN, i16::MAX);
        deserialize_i32 visit_i32 i32, format!("a whole number from {} to {}", i32::MIN, i32::MAX);
        deserialize_i64 visit_i64 i64, "a whole number of 64 bits";
        deserialize_i128 visit_i128 i128, "a whole number";
        deserialize_u8 visit_u8 u8, format!("a whole number from 0 to {}", u8::MAX);
        deserialize_u16 visit_u16 u16, format!("a whole number from 0 to {}", u16::MAX);
        deserialize_u32 visit_u32 u32, format!("a whole number from 0 to {}", u32::MAX);
        deserialize_u64 visit_u64 u64, "a whole number of 64 bits, 0 or more";
        deserialize_u128 visit_u128 u128, "a whole number, 0 or more";
    }

    /// For types that ask the value what it is: plain texts are what YAML's core schema says that they are.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let (text, plain) = match &self.node.kind {
            Kind::Null => return visitor.visit_unit().map_err(|fault| self.place(fault)),
            Kind::List(_) => return self.seq(visitor),
            Kind::Map(_) => return self.map(None, visitor),
            Kind::Text { text, plain } => (text.as_str(), *plain),
        };
        let number = self.whole().filter(|_| plain).map(|number| (u64::try_from(number), i64::try_from(number)));
        // Rust reads `inf` and `nan` too, which are words here.
        let float = || text.parse().ok().filter(|number: &f64| plain && number.is_finite());
        let result = match (text, number) {
            ("true", _) if plain => visitor.visit_bool(true),
            ("false", _) if plain => visitor.visit_bool(false),
            (_, Some((Ok(number), _))) => visitor.visit_u64(number),
            (_, Some((_, Ok(number)))) => visitor.visit_i64(number),
            _ => match float() {
                Some(number) => visitor.visit_f64(number),
                None => visitor.visit_str(text),
            },
        };
        result.map_err(|fault| self.place(fault))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let value = match &self.node.kind {
            Kind::Text { text, .. } => match text.as_str() {
                "true" | "True" | "TRUE" => true,
                "false" | "False" | "FALSE" => false,
                _ => return Err(self.not_a("true or false")),
            },
            _ => return Err(self.not_a("true or false")),
        };
        visitor.visit_bool(value).map_err(|fault| self.place(fault))
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let number = match &self.node.kind {
            Kind::Text { text, .. } => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
            _ => None,
        };
        match number {
            Some(number) => visitor.visit_f64(number).map_err(|fault| self.place(fault)),
            None => Err(self.not_a("a number")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let text = self.text(&visitor)?;
        visitor.visit_str(text).map_err(|fault| self.place(fault))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let text = self.text(&visitor)?;
        visitor.visit_bytes(text.as_bytes()).map_err(|fault| self.place(fault))
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let none = match &self.node.kind {
            Kind::Null => true,
            Kind::Text { text, .. } => text.is_empty() && self.node.is_loose(),
            _ => false,
        };
        if none {
            return visitor.visit_none().map_err(|fault| self.place(fault));
        }
        visitor.visit_some(self.clone()).map_err(|fault| self.place(fault))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.kind {
            Kind::Null => {}
            Kind::Map(entries) => {
                for (name, node) in entries {
                    self.reading.report_unknown(self.key_of(name), node, &[]);
                }
            }
            _ => return Err(self.not_a("nothing")),
        }
        visitor.visit_unit().map_err(|fault| self.place(fault))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.secret |= SECRET_TYPES.contains(&name);
        visitor.visit_newtype_struct(self.clone()).map_err(|fault| self.place(fault))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.seq(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.map(None, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.map(Some(fields), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let variant = match &self.node.kind {
            Kind::Text { text, .. } => Variant::new(&self, text, None),
            Kind::Map(entries) => match entries.iter().next() {
                Some((name, content)) if entries.len() == 1 => Variant::new(&self, name, Some(content)),
                _ => return Err(self.not_a(&format!("one of the keys `{}`", variants.join("`, `")))),
            },
            _ => return Err(self.not_a(&format!("`{}`", variants.join("` or `")))),
        };
        visitor.visit_enum(variant).map_err(|fault| self.place(fault))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }
}
