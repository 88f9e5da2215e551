//! Changing values by sets of fields.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    fields::{FieldSet, named},
    walk::{Type, is_empty, segment},
};

const NONE: &FieldSet = &FieldSet::NONE;

/// Removes fields that this manager set before, does not set any more, and no other manager owns.
pub fn remove(value: &mut Value, before: &FieldSet, wants: &FieldSet, others: &FieldSet, of: Type) {
    for (part, set) in before.below() {
        let (wanted, theirs) = (wants.get(part), others.get(part));
        if wanted.is_none() && theirs.is_none() && set.here {
            take(value, part, of);
            continue;
        }
        let Some((inner, inner_type)) = part_mut(value, part, of) else {
            continue;
        };
        let (wanted, theirs) = (wanted.unwrap_or(NONE), theirs.unwrap_or(NONE));
        remove(inner, set, wanted, theirs, inner_type);
        if is_empty(inner) && !wanted.here && !theirs.here {
            take(value, part, of);
        }
    }
}

/// Keeps only the fields of a set.
pub fn keep(value: &mut Value, set: &FieldSet, of: Type) {
    match (of, value) {
        (of, Value::Object(fields)) if of.has_parts() => {
            fields.retain(|name, value| match set.get(&named(name)) {
                Some(below) => {
                    keep(value, below, of.part(name));
                    true
                }
                None => false,
            });
        }
        (Type::Items(keys, _), Value::Array(items)) => {
            items.retain_mut(|item| match set.get(&segment(item, keys)) {
                Some(below) => {
                    keep(item, below, of.item());
                    true
                }
                None => false,
            });
        }
        _ => {}
    }
}

/// Removes what is as in `defaults` and in no set.
pub fn remove_defaults(value: &mut Value, defaults: &Value, owned: &FieldSet, of: Type) {
    match (of, value, defaults) {
        (of, Value::Object(fields), Value::Object(defaults)) if of.has_parts() => {
            fields.retain(|name, value| {
                let (Some(default), owned) = (defaults.get(name), owned.get(&named(name))) else {
                    return true;
                };
                if owned.is_none() && value == default {
                    return false;
                }
                remove_defaults(value, default, owned.unwrap_or(NONE), of.part(name));
                owned.is_some() || !is_empty(value)
            });
        }
        (Type::Items(keys, _), Value::Array(items), Value::Array(defaults)) => {
            for item in items {
                let part = segment(item, keys);
                let same = |default: &&Value| segment(default, keys) == part;
                if let Some(default) = defaults.iter().find(same) {
                    let owned = owned.get(&part).unwrap_or(NONE);
                    remove_defaults(item, default, owned, of.item());
                }
            }
        }
        _ => {}
    }
}

/// Sets what is wanted, and leaves the rest.
pub fn merge(value: &mut Value, wanted: &Value, of: Type) {
    match (of, value, wanted) {
        (of, Value::Object(fields), Value::Object(wanted)) if of.has_parts() => {
            for (name, wish) in wanted {
                match fields.get_mut(name) {
                    Some(value) => merge(value, wish, of.part(name)),
                    None => {
                        fields.insert(name.clone(), wish.clone());
                    }
                }
            }
        }
        (Type::Items(keys, _), Value::Array(items), Value::Array(wanted)) => {
            let wanted: Vec<_> = wanted.iter().map(|w| (segment(w, keys), w)).collect();
            let distinct: BTreeSet<_> = wanted.iter().map(|(part, _)| part).collect();
            if distinct.len() < wanted.len() {
                // Not for merging; whether it is allowed is for the validation to say.
                *items = wanted.into_iter().map(|(_, wish)| wish.clone()).collect();
                return;
            }
            let there = std::mem::take(items);
            let there = there.into_iter().map(|item| (segment(&item, keys), item));
            *items = ordered(there.collect(), &wanted, of.item());
        }
        (_, value, wanted) => value.clone_from(wanted),
    }
}

/// The items there are, with those that are wanted merged into them: in the places they had, in the order in which they are
/// wanted, so that two appliers of parts of one list do not change its order in turns. New ones follow the one that they
/// are wanted after.
fn ordered(mut there: Vec<(String, Value)>, wanted: &[(String, &Value)], item: Type) -> Vec<Value> {
    let is_wanted = |part: &str| wanted.iter().any(|(wish, _)| wish == part);
    let places: Vec<_> = (0..there.len())
        .filter(|&at| is_wanted(&there[at].0))
        .collect();
    let known = |part: &str| there.iter().find(|(known, _)| known == part);
    let merged: Vec<_> = wanted
        .iter()
        .filter_map(|(part, wish)| {
            let mut value = known(part)?.1.clone();
            merge(&mut value, wish, item);
            Some((part.clone(), value))
        })
        .collect();
    for (place, merged) in places.into_iter().zip(merged) {
        there[place] = merged;
    }
    for (index, (part, wish)) in wanted.iter().enumerate() {
        let place = |part: &String| there.iter().position(|(known, _)| known == part);
        if place(part).is_some() {
            continue;
        }
        let after = index
            .checked_sub(1)
            .and_then(|before| place(&wanted[before].0));
        let before = wanted[index..].iter().find_map(|(next, _)| place(next));
        let at = after.map(|at| at + 1).or(before).unwrap_or(there.len());
        there.insert(at, (part.clone(), (*wish).clone()));
    }
    there.into_iter().map(|(_, value)| value).collect()
}

fn part_mut<'a>(value: &'a mut Value, part: &str, of: Type) -> Option<(&'a mut Value, Type)> {
    match (of, value) {
        (Type::Items(keys, _), Value::Array(items)) => {
            let mut items = items.iter_mut();
            let item = items.find(|item| segment(item, keys) == part)?;
            Some((item, of.item()))
        }
        (_, Value::Object(fields)) => {
            let name = part.strip_prefix("f:")?;
            Some((fields.get_mut(name)?, of.part(name)))
        }
        _ => None,
    }
}

fn take(value: &mut Value, part: &str, of: Type) {
    match (of, value) {
        (Type::Items(keys, _), Value::Array(items)) => {
            items.retain(|item| segment(item, keys) != part);
        }
        (_, Value::Object(fields)) => {
            fields.remove(part.strip_prefix("f:").unwrap_or(part));
        }
        _ => {}
    }
}
