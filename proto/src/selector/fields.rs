//! Selecting objects by field: the string of `--field-selector`.

use std::fmt;

use crate::{
    kinds,
    v1::{Kind, Object},
};

/// Fields of every kind.
const COMMON: &[&str] = &["metadata.name", "metadata.namespace"];

/// Why a field selector is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldSelectorError {
    /// A part without an operator.
    #[error(
        "in the field selector {text:?}: {part:?} should be FIELD=VALUE, FIELD==VALUE or FIELD!=VALUE"
    )]
    Syntax {
        /// The whole string.
        text: String,
        /// What is not understood.
        part: String,
    },
    /// A field that objects of the kind are not selected by.
    #[error("{plural} are not selected by the field {field:?}; there are {}", fields.join(", "))]
    Field {
        /// The field.
        field: String,
        /// Of the kind.
        plural: String,
        /// Those that are possible.
        fields: Vec<&'static str>,
    },
}

/// All of its requirements must be met; without any it selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    field: &'static str,
    equal: bool,
    value: String,
}

/// The fields that objects of a kind are selected by.
pub fn fields_of(kind: Kind) -> Vec<&'static str> {
    let own = kind.info().map_or(&[][..], |info| info.selectable);
    COMMON.iter().chain(own).copied().collect()
}

impl FieldSelector {
    /// Reads `a=b,c!=d` for a kind. The empty string selects everything.
    pub fn parse(kind: Kind, text: &str) -> Result<Self, FieldSelectorError> {
        let parts = text.split(',').map(str::trim);
        let known = fields_of(kind);
        let read = |part: &str| {
            let (field, equal, value) = split(part).ok_or_else(|| FieldSelectorError::Syntax {
                text: text.to_owned(),
                part: part.to_owned(),
            })?;
            match known.iter().find(|known| **known == field) {
                Some(field) => Ok(Requirement {
                    field,
                    equal,
                    value: value.to_owned(),
                }),
                None => Err(FieldSelectorError::Field {
                    field: field.to_owned(),
                    plural: kind
                        .info()
                        .map_or("objects", |info| &info.plural)
                        .to_owned(),
                    fields: known.clone(),
                }),
            }
        };
        let parts = parts.filter(|part| !part.is_empty());
        Ok(Self(parts.map(read).collect::<Result<_, _>>()?))
    }

    /// The one name that it selects, when it demands one.
    pub fn name(&self) -> Option<&str> {
        let mut requirements = self.0.iter();
        let by_name = requirements.find(|r| r.equal && r.field == "metadata.name");
        by_name.map(|requirement| requirement.value.as_str())
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object is selected.
    pub fn matches(&self, object: &Object) -> bool {
        let mut requirements = self.0.iter();
        requirements.all(|wanted| (value(object, wanted.field) == wanted.value) == wanted.equal)
    }
}

/// In the syntax that it is read from.
impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (
            index,
            Requirement {
                field,
                equal,
                value,
            },
        ) in self.0.iter().enumerate()
        {
            let comma = if index > 0 { "," } else { "" };
            let operator = if *equal { "=" } else { "!=" };
            write!(f, "{comma}{field}{operator}{value}")?;
        }
        Ok(())
    }
}

fn split(part: &str) -> Option<(&str, bool, &str)> {
    let at = part.find(['=', '!'])?;
    let (field, rest) = part.split_at(at);
    let (equal, value) = match (rest.strip_prefix("!="), rest.strip_prefix("==")) {
        (Some(value), _) => (false, value),
        (None, Some(value)) => (true, value),
        (None, None) => (true, rest.strip_prefix('=')?),
    };
    Some((field.trim(), equal, value.trim()))
}

/// A field as text; empty when it is absent.
fn value<'a>(object: &'a Object, field: &str) -> &'a str {
    match field {
        "metadata.name" => object.name(),
        "metadata.namespace" => object.namespace(),
        other => kinds::selected(object, other).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::v1::{Event, ObjectMeta, ObjectReference, Pod, PodSpec, PodStatus};

    fn pod(phase: &str, node: &str) -> Object {
        Pod {
            metadata: Some(ObjectMeta {
                name: "web".into(),
                ..ObjectMeta::default()
            }),
            spec: Some(PodSpec {
                node_name: node.into(),
                ..PodSpec::default()
            }),
            status: Some(PodStatus {
                phase: phase.into(),
                ..PodStatus::default()
            }),
            ..Pod::default()
        }
        .into()
    }

    #[test]
    fn every_requirement_counts() {
        let selects = |text: &str, object: &Object| {
            let selector = FieldSelector::parse(object.kind(), text).unwrap();
            selector.matches(object)
        };
        let running = pod("Running", "n1");
        for text in [
            "",
            "status.phase=Running",
            "status.phase == Running, spec.nodeName!=n2",
            "metadata.name=web,metadata.namespace=",
        ] {
            assert!(selects(text, &running), "{text}");
        }
        for text in [
            "status.phase!=Running",
            "status.phase=Running,spec.nodeName=",
        ] {
            assert!(!selects(text, &running), "{text}");
        }
        let event = Object::from(Event {
            involved_object: Some(ObjectReference {
                kind: "Pod".into(),
                ..ObjectReference::default()
            }),
            ..Event::default()
        });
        assert!(selects("involvedObject.kind=Pod", &event));
        assert!(!selects("involvedObject.kind=Node", &event));
    }

    #[test]
    fn what_is_not_possible_is_told_with_what_is() {
        let error = FieldSelector::parse(Kind::Deployment, "status.phase=Running").unwrap_err();
        assert_eq!(
            error.to_string(),
            "deployments are not selected by the field \"status.phase\"; there are metadata.name, metadata.namespace"
        );
        assert!(FieldSelector::parse(Kind::Pod, "status.phase").is_err());
        assert!(FieldSelector::parse(Kind::Pod, "status.phase!Running").is_err());
        let text = "status.phase!=Running,spec.nodeName=n1";
        let selector = FieldSelector::parse(Kind::Pod, text).unwrap();
        assert_eq!(selector.to_string(), text);
    }
}
