//! From the tree to the types. Every error names the field, the expected value in words, and the position.

mod fault;

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor},
    forward_to_deserialize_any,
};

pub(super) use self::fault::Fault;
use super::{
    kubernetes::{self, Verdict},
    tree::{Key, Node, Value},
};

impl Node {
    fn expected(&self, what: &str) -> Fault {
        Fault::custom(format_args!("expected {what}, found {}", self.value)).at_least(self.at)
    }

    fn whole_number<'de, V: Visitor<'de>>(
        &self,
        (min, max): (i128, i128),
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.value {
            Value::Int(value) if (min..=max).contains(&value) => match i64::try_from(value) {
                Ok(value) => visitor.visit_i64(value),
                Err(_) => visitor.visit_i128(value),
            },
            Value::Int(_) => Err(self.expected(&format!("a whole number from {min} to {max}"))),
            _ => Err(self.expected("a whole number")),
        }
    }

    fn list<'de, V: Visitor<'de>>(&'de self, visitor: V) -> Result<V::Value, Fault> {
        match &self.value {
            Value::List(items) => visitor.visit_seq(Items {
                items: items.iter().enumerate(),
            }),
            Value::Map(_) => Err(self.expected("a list (items that begin with `-`)")),
            _ => Err(self.expected("a list")),
        }
    }
}

macro_rules! whole_numbers {
    ($($method:ident $type:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.whole_number(($type::MIN.into(), $type::MAX.into()), visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let result = match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(value), _) => visitor.visit_i64(value),
                (_, Ok(value)) => visitor.visit_u64(value),
                _ => visitor.visit_i128(*value),
            },
            Value::Float(value) => visitor.visit_f64(*value),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::List(_) => self.list(visitor),
            Value::Map(_) => self.deserialize_map(visitor),
        };
        result.map_err(|fault| fault.at_least(self.at))
    }

    whole_numbers! {
        deserialize_i8 i8
        deserialize_i16 i16
        deserialize_i32 i32
        deserialize_i64 i64
        deserialize_u8 u8
        deserialize_u16 u16
        deserialize_u32 u32
        deserialize_u64 u64
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Bool(value) => visitor.visit_bool(value),
            _ => Err(self.expected("true or false")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.value {
            Value::String(text) => visitor
                .visit_borrowed_str(text)
                .map_err(|fault: Fault| fault.at_least(self.at)),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                let found = &self.value;
                let hint = format_args!("expected a string, found {found}: put it in quotes");
                Err(Fault::custom(hint).at_least(self.at))
            }
            _ => Err(self.expected("a string")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.list(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Map(fields) => visitor.visit_map(Entries {
                entries: named(fields).into_iter(),
                value: None,
                named: false,
            }),
            _ => Err(self.expected("a mapping (`key: value`)")),
        }
    }

    /// Fields that Barge does not have are refused here, unless they ask for nothing.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let Value::Map(fields) = &self.value else {
            let fields = kubernetes::listed(known);
            return Err(self.expected(&format!("a mapping with {fields}")));
        };
        let mut entries = Vec::with_capacity(fields.len());
        for (key, node) in fields {
            if known.contains(&key.name.as_str()) {
                entries.push((key.name.as_str(), node));
                continue;
            }
            let refusal = match kubernetes::judge(name, &key.name, node) {
                Verdict::Harmless => continue,
                Verdict::OtherName(field) => {
                    match fields.iter().find(|(other, _)| other.name == field) {
                        None => entries.push((field, node)),
                        Some((_, said)) if kubernetes::adds_nothing(node, said) => {}
                        Some(_) => {
                            let rule = format!(
                                "`{}` is another name of `{field}`, which says something else: leave one of them out",
                                key.name
                            );
                            return Err(Fault::custom(rule).at_least(key.at));
                        }
                    }
                    continue;
                }
                Verdict::NotImplemented(message) => message,
                Verdict::Unknown => kubernetes::unknown_field(&key.name, known),
            };
            return Err(Fault::custom(refusal).at_least(key.at));
        }
        visitor.visit_map(Entries {
            entries: entries.into_iter(),
            value: None,
            named: true,
        })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
        ignored_any
    }
}

fn named(fields: &[(Key, Node)]) -> Vec<(&str, &Node)> {
    let fields = fields.iter();
    fields
        .map(|(key, node)| (key.name.as_str(), node))
        .collect()
}

struct Entries<'de> {
    entries: std::vec::IntoIter<(&'de str, &'de Node)>,
    value: Option<(&'de str, &'de Node)>,
    /// Fields of a type, not keys of a map.
    named: bool,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        self.value = self.entries.next();
        match self.value {
            Some((key, _)) => {
                let name: serde::de::value::StrDeserializer<'_, Fault> = key.into_deserializer();
                seed.deserialize(name).map(Some)
            }
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((key, node)) = self.value.take() else {
            return Err(Fault::custom("a value was read before its key"));
        };
        seed.deserialize(node).map_err(|fault| {
            let part = match self.named {
                true => format!(".{key}"),
                false => format!("[{key}]"),
            };
            fault.at_least(node.at).within(part)
        })
    }
}

struct Items<'de> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some((index, node)) = self.items.next() else {
            return Ok(None);
        };
        seed.deserialize(node)
            .map(Some)
            .map_err(|fault| fault.at_least(node.at).within(format!("[{index}]")))
    }
}
