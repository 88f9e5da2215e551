//! From a template and a value to text.

use std::cmp::Ordering;

use serde_json::Value;

use super::{Filter, Operand, Operator, Part, Path, Step, shown};

/// Values that one path may find on its way: more comes of `..` upon `..` only.
const MOST: usize = 1_000_000;

/// Why a template finds no answer in a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// A list is shorter.
    #[error("array index out of bounds: index {index}, length {length}")]
    Bounds {
        /// The one that was asked for.
        index: i64,
        /// What the list has.
        length: usize,
    },
    /// The path multiplies values.
    #[error("the JSONPath template finds more than {MOST} values: leave out a \"..\"")]
    TooMany,
}

/// Appends what the parts make of a value.
pub fn render(
    parts: &[Part],
    root: &Value,
    here: &Value,
    out: &mut String,
) -> Result<(), EvalError> {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Show(path) => {
                let found = find(path, root, here)?;
                let found: Vec<_> = found.into_iter().map(shown).collect();
                out.push_str(&found.join(" "));
            }
            // Templates are nested as deeply as the parser allows.
            Part::Range(path, body) => {
                for value in find(path, root, here)? {
                    render(body, root, value, out)?;
                }
            }
        }
    }
    Ok(())
}

/// The values at the end of a path.
pub fn find<'a>(
    path: &'a Path,
    root: &'a Value,
    here: &'a Value,
) -> Result<Vec<&'a Value>, EvalError> {
    let mut values = vec![if path.whole { root } else { here }];
    for step in &path.steps {
        let mut next = Vec::new();
        for value in values {
            take(step, root, value, &mut next)?;
            if next.len() > MOST {
                return Err(EvalError::TooMany);
            }
        }
        values = next;
    }
    Ok(values)
}

fn take<'a>(
    step: &'a Step,
    root: &'a Value,
    value: &'a Value,
    found: &mut Vec<&'a Value>,
) -> Result<(), EvalError> {
    match (step, value) {
        (Step::Field(name), Value::Object(fields)) => found.extend(fields.get(name)),
        (Step::All, Value::Array(items)) => found.extend(items),
        (Step::All, Value::Object(fields)) => found.extend(fields.values()),
        (Step::Below, value) => below(value, found)?,
        (Step::Index(index), Value::Array(items)) => {
            let place = place(*index, items.len());
            let item = usize::try_from(place).ok().and_then(|at| items.get(at));
            found.push(item.ok_or(EvalError::Bounds {
                index: *index,
                length: items.len(),
            })?);
        }
        (Step::Slice { from, to, by }, Value::Array(items)) => {
            let length = items.len();
            let bound = |it: Option<i64>, default| {
                let at = it.map_or(default, |it| place(it, length));
                usize::try_from(at.max(0)).map_or(length, |at| at.min(length))
            };
            let all = i64::try_from(length).unwrap_or(i64::MAX);
            let (from, to) = (bound(*from, 0), bound(*to, all));
            let by = usize::try_from(*by).unwrap_or(usize::MAX);
            found.extend(items.get(from..to).unwrap_or_default().iter().step_by(by));
        }
        (Step::Union(paths), value) => {
            for path in paths {
                found.extend(find(path, root, value)?);
            }
        }
        (Step::Filter(filter), Value::Array(items)) => {
            for item in items {
                if holds(filter, root, item)? {
                    found.push(item);
                }
            }
        }
        // As a missing field: nothing.
        _ => {}
    }
    Ok(())
}

/// From the end when negative.
fn place(index: i64, length: usize) -> i64 {
    match index < 0 {
        true => index.saturating_add(i64::try_from(length).unwrap_or(i64::MAX)),
        false => index,
    }
}

/// The value and all below it, by a list of what is to be looked at instead of by recursion.
fn below<'a>(value: &'a Value, found: &mut Vec<&'a Value>) -> Result<(), EvalError> {
    let mut ahead = vec![value];
    while let Some(value) = ahead.pop() {
        if found.len() > MOST {
            return Err(EvalError::TooMany);
        }
        found.push(value);
        match value {
            Value::Array(items) => ahead.extend(items.iter().rev()),
            Value::Object(fields) => {
                let values: Vec<_> = fields.values().collect();
                ahead.extend(values.into_iter().rev());
            }
            _ => {}
        }
    }
    Ok(())
}

fn holds(filter: &Filter, root: &Value, item: &Value) -> Result<bool, EvalError> {
    match filter {
        Filter::Exists(path) => Ok(!values(path, root, item)?.is_empty()),
        Filter::Compare(left, operator, right) => {
            let (left, right) = (side(left, root, item)?, side(right, root, item)?);
            let (Some(left), Some(right)) = (left, right) else {
                return Ok(false);
            };
            let order = order(left, right);
            Ok(match operator {
                Operator::Equal => left == right || order == Some(Ordering::Equal),
                Operator::NotEqual => !(left == right || order == Some(Ordering::Equal)),
                Operator::Less => order == Some(Ordering::Less),
                Operator::Greater => order == Some(Ordering::Greater),
                Operator::LessOrEqual => order.is_some_and(Ordering::is_le),
                Operator::GreaterOrEqual => order.is_some_and(Ordering::is_ge),
            })
        }
    }
}

/// As [`find`], where an index beyond the end finds nothing: an item of a filter may be shorter than another.
fn values<'a>(
    path: &'a Path,
    root: &'a Value,
    item: &'a Value,
) -> Result<Vec<&'a Value>, EvalError> {
    match find(path, root, item) {
        Err(EvalError::Bounds { .. }) => Ok(Vec::new()),
        found => found,
    }
}

fn side<'a>(
    operand: &'a Operand,
    root: &'a Value,
    item: &'a Value,
) -> Result<Option<&'a Value>, EvalError> {
    match operand {
        Operand::Literal(value) => Ok(Some(value)),
        Operand::Path(path) => Ok(values(path, root, item)?.first().copied()),
    }
}

/// Numbers by size, texts and truths by order; nothing for what cannot be compared.
fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    }
}
