//! `--sort-by`: objects by a value that a path finds in each.

use std::cmp::Ordering;

use anyhow::{Result, bail};
use barge_client::v1::Object;
use barge_proto::quantity::Amount;
use serde_json::Value;

use crate::jsonpath::{EvalError, Template};

/// Sorts by the first value that the path finds; objects in which it finds none come first.
///
/// # Errors
/// No object has such a field; the path multiplies values.
pub fn sort_by(objects: &mut Vec<Object>, path: &Template) -> Result<()> {
    let mut keyed = Vec::with_capacity(objects.len());
    for object in objects.drain(..) {
        let value = super::value(&object)?;
        let key = match path.values(&value) {
            Ok(found) => found.first().map(|found| (*found).clone()),
            Err(EvalError::Bounds { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        keyed.push((key, object));
    }
    if !keyed.is_empty() && keyed.iter().all(|(key, _)| key.is_none()) {
        bail!("--sort-by {path}: no object that was found has such a field");
    }
    let texts = || keyed.iter().filter_map(|(key, _)| key.as_ref()?.as_str());
    // All or none: an order that changes from pair to pair is none.
    let compare = match texts().all(|text| text.parse::<Amount>().is_ok()) {
        true => by_amount as fn(&Value, &Value) -> Ordering,
        false => compare,
    };
    keyed.sort_by(|(a, _), (b, _)| match (a, b) {
        (Some(a), Some(b)) => compare(a, b),
        (a, b) => a.is_some().cmp(&b.is_some()),
    });
    objects.extend(keyed.into_iter().map(|(_, object)| object));
    Ok(())
}

/// Numbers by size, texts with the numbers in them by size; values of several sorts by sort.
fn compare(a: &Value, b: &Value) -> Ordering {
    let sort = |value: &Value| match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    };
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap_or(0.0), b.as_f64().unwrap_or(0.0));
            a.total_cmp(&b)
        }
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => natural(a, b),
        (a, b) => sort(a).cmp(&sort(b)),
    }
}

/// As `compare`, with texts that are all quantities: "500m" before "2", "900Mi" before "1Gi".
fn by_amount(a: &Value, b: &Value) -> Ordering {
    let amount = |value: &Value| value.as_str()?.parse::<Amount>().ok();
    match (amount(a), amount(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => compare(a, b),
    }
}

/// "web-9" before "web-10".
fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let (x, y) = (digits(left), digits(right));
        if x > 0 && y > 0 {
            let ((p, left_rest), (q, right_rest)) = (left.split_at(x), right.split_at(y));
            let (p, q) = (p.trim_start_matches('0'), q.trim_start_matches('0'));
            let order = p.len().cmp(&q.len()).then_with(|| p.cmp(q));
            if order.is_ne() {
                return order;
            }
            (left, right) = (left_rest, right_rest);
            continue;
        }
        let (mut p, mut q) = (left.chars(), right.chars());
        match (p.next(), q.next()) {
            (None, None) => return a.cmp(b),
            (x, y) if x != y => return x.cmp(&y),
            _ => (left, right) = (p.as_str(), q.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use barge_client::v1::{Deployment, DeploymentSpec, ObjectMeta};

    fn deployment(name: &str, replicas: Option<i32>) -> Object {
        Deployment {
            metadata: Some(ObjectMeta {
                name: name.into(),
                ..ObjectMeta::default()
            }),
            spec: Some(DeploymentSpec {
                replicas,
                ..DeploymentSpec::default()
            }),
            ..Deployment::default()
        }
        .into()
    }

    fn sorted(path: &str) -> Result<Vec<String>> {
        let mut objects = vec![
            deployment("web-10", Some(2)),
            deployment("web-9", Some(10)),
            deployment("api", None),
        ];
        sort_by(&mut objects, &Template::path(path)?)?;
        Ok(objects.iter().map(|it| it.name().to_owned()).collect())
    }

    #[test]
    fn numbers_sort_as_numbers_and_what_is_missing_comes_first() {
        assert_eq!(
            sorted(".spec.replicas").unwrap(),
            ["api", "web-10", "web-9"]
        );
        assert_eq!(
            sorted("{.metadata.name}").unwrap(),
            ["api", "web-9", "web-10"]
        );
    }

    #[test]
    fn quantities_sort_by_size_and_other_texts_do_not() {
        let with = |name: &str, value: &str| {
            let labels = [("v".to_owned(), value.to_owned())].into();
            let mut object = deployment(name, None);
            object.metadata_mut().unwrap().labels = labels;
            object
        };
        let sorted = |mut objects: Vec<Object>| {
            sort_by(&mut objects, &Template::path(".metadata.labels.v").unwrap()).unwrap();
            let names = objects.iter().map(|it| it.name().to_owned());
            names.collect::<Vec<_>>()
        };
        let memory = vec![with("c", "1Gi"), with("b", "900Mi"), with("a", "500k")];
        assert_eq!(sorted(memory), ["a", "b", "c"]);
        let cpu = vec![with("b", "2"), with("c", "2500m"), with("a", "500m")];
        assert_eq!(sorted(cpu), ["a", "b", "c"]);
        // By the numbers in them, because one is no quantity.
        let texts = vec![with("b", "2"), with("c", "500m"), with("a", "1-x")];
        assert_eq!(sorted(texts), ["a", "b", "c"]);
    }

    #[test]
    fn a_field_that_none_has_is_an_error() {
        let error = sorted(".spec.none").unwrap_err().to_string();
        assert!(error.contains("--sort-by .spec.none"), "{error}");
    }

    #[test]
    fn numbers_in_names_count() {
        for (a, b) in [
            ("a2", "a10"),
            ("a", "b"),
            ("a", "aa"),
            ("1", "a"),
            ("a1b", "a01c"),
        ] {
            assert_eq!(natural(a, b), Ordering::Less, "{a} {b}");
            assert_eq!(natural(b, a), Ordering::Greater, "{a} {b}");
        }
        assert_eq!(natural("a1", "a1"), Ordering::Equal);
    }
}
