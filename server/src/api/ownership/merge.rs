//! Changing values by sets of fields.

use std::collections::{BTreeSet, HashMap, HashSet, hash_map::Entry};

use serde_json::Value;

use super::{
    fields::{FieldSet, named},
    walk::{Type, by_segment, is_empty, segment},
};

const NONE: &FieldSet = &FieldSet::NONE;

/// Removes fields that this manager set before, does not set any more, and no other manager owns.
pub fn remove(value: &mut Value, before: &FieldSet, wants: &FieldSet, others: &FieldSet, of: Type) {
    let goes = |value: &mut Value, part: &str, of: Type| {
        let Some(set) = before.get(part) else {
            return false;
        };
        let (wanted, theirs) = (wants.get(part), others.get(part));
        if wanted.is_none() && theirs.is_none() && set.here {
            return true;
        }
        let (wanted, theirs) = (wanted.unwrap_or(NONE), theirs.unwrap_or(NONE));
        remove(value, set, wanted, theirs, of);
        is_empty(value) && !wanted.here && !theirs.here
    };
    match (of, value) {
        (Type::Items(keys, _), Value::Array(items)) => {
            items.retain_mut(|item| {
                let part = segment(item, keys);
                !goes(item, &part, of.item())
            });
        }
        (_, Value::Object(fields)) => {
            fields.retain(|name, value| !goes(value, &named(name), of.part(name)));
        }
        _ => {}
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
            let defaults = by_segment(defaults, keys);
            for item in items {
                let part = segment(item, keys);
                if let Some(default) = defaults.get(&part) {
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
fn ordered(there: Vec<(String, Value)>, wanted: &[(String, &Value)], item: Type) -> Vec<Value> {
    let wishes: HashSet<_> = wanted.iter().map(|(part, _)| part.as_str()).collect();
    let mut known = HashMap::new();
    // Nothing at the places of those that are wanted.
    let mut places = Vec::with_capacity(there.len());
    for (part, value) in there {
        if !wishes.contains(part.as_str()) {
            places.push(Some(value));
        } else if let Entry::Vacant(first) = known.entry(part) {
            first.insert(value);
            places.push(None);
        }
    }
    // Each that was known, with the new ones after it.
    let (mut first, mut groups) = (Vec::new(), Vec::new());
    for (part, wish) in wanted {
        match (known.remove(part), groups.last_mut()) {
            (Some(mut value), _) => {
                merge(&mut value, wish, item);
                groups.push(vec![value]);
            }
            (None, Some(group)) => group.push((*wish).clone()),
            (None, None) => first.push((*wish).clone()),
        }
    }
    let mut groups = groups.into_iter();
    let mut all = Vec::with_capacity(places.len() + wanted.len());
    for place in places {
        match place {
            Some(value) => all.push(value),
            None => {
                all.append(&mut first);
                all.extend(groups.next().unwrap_or_default());
            }
        }
    }
    all.append(&mut first);
    all
}
