//! Sets of fields, as tries of the segments of their paths: `f:NAME` for a field of a message or an entry of a map, `k:KEYS`
//! (JSON) for an item of a list. Written as Kubernetes' FieldsV1.

use std::collections::{BTreeMap, btree_map::Entry};

use serde_json::Value;

/// The segment of a name.
pub fn named(name: &str) -> String {
    format!("f:{name}")
}

/// Fields, each with those below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Whether the field itself is one of the set: a value, an item as such, or an empty mapping.
    pub here: bool,
    below: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    /// Nothing.
    pub const NONE: Self = Self {
        here: false,
        below: BTreeMap::new(),
    };

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        !self.here && self.below.is_empty()
    }

    /// What is below a segment.
    pub fn get(&self, segment: &str) -> Option<&Self> {
        self.below.get(segment)
    }

    /// The segments below, and what is below them.
    pub fn below(&self) -> impl Iterator<Item = (&str, &Self)> {
        let below = self.below.iter();
        below.map(|(segment, set)| (segment.as_str(), set))
    }

    /// Adds what is below a segment.
    pub fn insert(&mut self, segment: String, set: Self) {
        if set.is_empty() {
            return;
        }
        match self.below.entry(segment) {
            Entry::Vacant(place) => {
                place.insert(set);
            }
            Entry::Occupied(mut there) => there.get_mut().join(&set),
        }
    }

    /// Adds all fields of another set.
    pub fn join(&mut self, other: &Self) {
        self.here |= other.here;
        for (segment, set) in &other.below {
            self.below.entry(segment.clone()).or_default().join(set);
        }
    }

    /// The fields that are not in another set.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let below = self.below.iter().map(|(segment, set)| {
            let left = match other.below.get(segment) {
                Some(other) => set.without(other),
                None => set.clone(),
            };
            (segment.clone(), left)
        });
        Self {
            here: self.here && !other.here,
            below: below.filter(|(_, set)| !set.is_empty()).collect(),
        }
    }

    /// Takes one field out.
    pub fn remove(&mut self, path: &[String]) {
        let [first, rest @ ..] = path else {
            self.here = false;
            return;
        };
        if let Some(set) = self.below.get_mut(first) {
            set.remove(rest);
            if set.is_empty() {
                self.below.remove(first);
            }
        }
    }

    /// Calls `found` with each field that is in both sets.
    pub fn common(&self, other: &Self, path: &mut Vec<String>, found: &mut dyn FnMut(&[String])) {
        if self.here && other.here {
            found(path);
        }
        for (segment, set) in &self.below {
            if let Some(other) = other.below.get(segment) {
                path.push(segment.clone());
                set.common(other, path, found);
                path.pop();
            }
        }
    }

    /// As FieldsV1: compact JSON.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) {
        text.push('{');
        let itself = (self.here && !self.below.is_empty()).then_some("\".\":{}");
        text.push_str(itself.unwrap_or_default());
        for (index, (segment, set)) in self.below.iter().enumerate() {
            if index > 0 || itself.is_some() {
                text.push(',');
            }
            // A string always has a JSON form.
            text.push_str(&serde_json::to_string(segment).unwrap_or_default());
            text.push(':');
            set.write(text);
        }
        text.push('}');
    }

    /// From FieldsV1; no text is an empty set.
    ///
    /// # Errors
    /// When it is no JSON, or nested deeper than serde_json reads.
    pub fn decode(text: &str) -> Result<Self, serde_json::Error> {
        if text.is_empty() {
            return Ok(Self::NONE);
        }
        fn read(value: &Value) -> FieldSet {
            let Value::Object(fields) = value else {
                return FieldSet::default();
            };
            let below = fields.iter().filter(|(segment, _)| *segment != ".");
            FieldSet {
                here: fields.is_empty() || fields.contains_key("."),
                below: below.map(|(s, set)| (s.clone(), read(set))).collect(),
            }
        }
        let root = serde_json::from_str(text).map(|value| read(&value))?;
        Ok(Self {
            // The object itself has no owner.
            here: false,
            ..root
        })
    }
}

/// A path for people: "spec.template.spec.containers[name=web].image".
pub fn shown(path: &[String]) -> String {
    let mut text = String::new();
    for segment in path {
        let (kind, rest) = segment.split_at(segment.len().min(2));
        let plain = rest.chars().all(|c| c.is_ascii_alphanumeric());
        match kind {
            "k:" => text.push_str(&format!("[{}]", keys(rest))),
            _ if plain && text.is_empty() => text.push_str(rest),
            _ if plain => text.push_str(&format!(".{rest}")),
            _ => text.push_str(&format!("[{rest}]")),
        }
    }
    text
}

/// {"port":80,"protocol":"TCP"} as port=80,protocol=TCP.
fn keys(json: &str) -> String {
    let Ok(Value::Object(keys)) = serde_json::from_str(json) else {
        return json.to_owned();
    };
    let shown = keys.iter().map(|(name, value)| match value {
        Value::String(text) => format!("{name}={text}"),
        other => format!("{name}={other}"),
    });
    shown.collect::<Vec<_>>().join(",")
}
