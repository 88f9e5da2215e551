//! Selecting objects by label, with `LabelSelector` of manifests and the string of `-l`, and by field.
//!
//! ```
//! use barge_proto::selector::Selector;
//!
//! let selector: Selector = "app=web,tier notin (test, dev),!legacy".parse()?;
//! let labels = [("app".to_owned(), "web".to_owned())].into();
//! assert!(selector.matches(&labels));
//! # Ok::<_, barge_proto::selector::SelectorError>(())
//! ```

mod fields;
mod parse;

use std::{collections::BTreeMap, fmt};

pub use self::fields::{FieldSelector, FieldSelectorError, fields_of};

use crate::v1::{LabelSelector, LabelSelectorRequirement};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Why a selector is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The string is not understood from this character (counted from 1) on.
    #[error("in the selector {text:?}, at character {at}: expected {expected}")]
    Syntax {
        /// The whole string.
        text: String,
        /// Where it went wrong.
        at: usize,
        /// What could have stood there.
        expected: &'static str,
    },
    /// A key that no label can have, and why.
    #[error("the label key {key:?} in a selector: {rule}")]
    Key {
        /// The key.
        key: String,
        /// The rule it breaks.
        rule: String,
    },
    /// An operator that there is not.
    #[error("unknown operator {0:?} in a selector: there are In, NotIn, Exists, DoesNotExist")]
    Operator(String),
    /// In and NotIn need values, the others must have none.
    #[error("{key} {operator}: {rule}")]
    Values {
        /// The key of the requirement.
        key: String,
        /// Its operator.
        operator: String,
        /// The rule it breaks.
        rule: &'static str,
    },
}

/// What one label must be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    /// Also true when the label is absent, as in Kubernetes.
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

/// All of its requirements must be met; without any it selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

impl Selector {
    /// A selector for labels that include all of these, as a Service's.
    pub fn equal_to(labels: &Labels) -> Self {
        let requirements = labels
            .iter()
            .map(|(key, value)| Requirement {
                key: key.clone(),
                test: Test::In(vec![value.clone()]),
            })
            .collect();
        Self { requirements }
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            match &requirement.test {
                Test::In(values) => value.is_some_and(|value| values.contains(value)),
                Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Test::Exists => value.is_some(),
                Test::DoesNotExist => value.is_none(),
            }
        })
    }
}

impl TryFrom<&LabelSelector> for Selector {
    type Error = SelectorError;

    fn try_from(selector: &LabelSelector) -> Result<Self, SelectorError> {
        let mut result = Self::equal_to(&selector.match_labels);
        for expression in &selector.match_expressions {
            result.requirements.push(expression.try_into()?);
        }
        Ok(result)
    }
}

impl TryFrom<&LabelSelectorRequirement> for Requirement {
    type Error = SelectorError;

    fn try_from(requirement: &LabelSelectorRequirement) -> Result<Self, SelectorError> {
        let values = || requirement.values.clone();
        let (test, wants_values) = match requirement.operator.as_str() {
            "In" => (Test::In(values()), true),
            "NotIn" => (Test::NotIn(values()), true),
            "Exists" => (Test::Exists, false),
            "DoesNotExist" => (Test::DoesNotExist, false),
            other => return Err(SelectorError::Operator(other.to_owned())),
        };
        let rule = match (wants_values, requirement.values.is_empty()) {
            (true, true) => "needs at least one value",
            (false, false) => "must have no values",
            _ => {
                return Ok(Self {
                    key: requirement.key.clone(),
                    test,
                });
            }
        };
        Err(SelectorError::Values {
            key: requirement.key.clone(),
            operator: requirement.operator.clone(),
            rule,
        })
    }
}

/// In the syntax of `-l`.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Requirement { key, test }) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match test {
                Test::In(values) if values.len() == 1 => write!(f, "{key}={}", values[0])?,
                Test::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", values[0])?,
                Test::In(values) => write!(f, "{key} in ({})", values.join(","))?,
                Test::NotIn(values) => write!(f, "{key} notin ({})", values.join(","))?,
                Test::Exists => f.write_str(key)?,
                Test::DoesNotExist => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
