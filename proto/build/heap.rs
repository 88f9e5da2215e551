//! Generates what messages of records hold on the heap: the sum over their fields.

use std::collections::{BTreeMap, BTreeSet};

use prost_types::{DescriptorProto, FileDescriptorSet};

/// The message whose fields are the records.
const ROOT: &str = ".barge.v1.Record";

/// Messages with a oneof; in `src/heap.rs`.
const BY_HAND: &[&str] = &[".barge.v1.IntOrString"];

/// The source of an `impl Heap` for each message that a record is made of.
///
/// # Errors
/// The name of one with a oneof that nobody wrote by hand.
pub fn impls(descriptors: &FileDescriptorSet) -> Result<String, String> {
    let mut messages = BTreeMap::new();
    for file in &descriptors.file {
        for message in &file.message_type {
            let path = format!(".{}.{}", file.package(), message.name());
            for nested in &message.nested_type {
                messages.insert(format!("{path}.{}", nested.name()), nested);
            }
            messages.insert(path, message);
        }
    }
    let (mut found, mut waiting) = (BTreeSet::new(), vec![ROOT.to_owned()]);
    while let Some(message) = waiting.pop().and_then(|path| messages.get(&path)) {
        for field in &message.field {
            let path = field.type_name();
            if messages.contains_key(path) && found.insert(path.to_owned()) {
                waiting.push(path.to_owned());
            }
        }
    }
    let mut source = String::new();
    for path in &found {
        let Some(message) = messages.get(path) else {
            continue;
        };
        let is_map = message.options.as_ref().is_some_and(|o| o.map_entry());
        if is_map || BY_HAND.contains(&path.as_str()) {
            continue;
        }
        source.push_str(&written(message)?);
    }
    Ok(source)
}

fn written(message: &DescriptorProto) -> Result<String, String> {
    // A proto3 optional is a oneof by itself.
    let in_oneof = |field: &&prost_types::FieldDescriptorProto| {
        field.oneof_index.is_some() && !field.proto3_optional()
    };
    if message.field.iter().any(|field| in_oneof(&field)) {
        return Err(format!("{} has a oneof", message.name()));
    }
    let held = message.field.iter().map(|field| {
        let name = match field.name() {
            "type" => "r#type",
            name => name,
        };
        format!("self.{name}.heap()")
    });
    let held: Vec<_> = held.collect();
    let sum = match held.is_empty() {
        true => "0".to_owned(),
        false => held.join(" + "),
    };
    let name = camel(message.name());
    Ok(format!(
        "impl Heap for {name} {{ fn heap(&self) -> usize {{ {sum} }} }}\n"
    ))
}

/// As prost names types: of capitals that follow each other, only the first stays ("PodIP" is `PodIp`).
fn camel(name: &str) -> String {
    let mut before = false;
    let letters = name.chars().map(|letter| {
        let capital = letter.is_ascii_uppercase();
        let kept = if before && capital {
            letter.to_ascii_lowercase()
        } else {
            letter
        };
        before = capital;
        kept
    });
    letters.collect()
}
