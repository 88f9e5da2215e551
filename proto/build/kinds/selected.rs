//! The fields that objects are selected by, from their JSON paths.

use super::{
    Row,
    options::{Descriptor, DescriptorSet},
};

// Of descriptor.proto.
const TYPE_BOOL: i32 = 8;
const TYPE_STRING: i32 = 9;
const TYPE_MESSAGE: i32 = 11;

/// Writes `selected`, which finds a field of an object.
///
/// # Errors
/// A path that leads to nothing, or to something else than a string or a bool.
pub fn write(source: &mut String, set: &DescriptorSet, rows: &[Row<'_>]) -> Result<(), String> {
    source.push_str(
        "/// A field that objects of its kind are selected by, as text; none when it is absent, or another.\n\
         pub(crate) fn selected<'a>(object: &'a Object, field: &str) -> Option<&'a str> {\n    match &object.kind {\n",
    );
    for row in rows {
        let Some((_, message)) = row.object else {
            continue;
        };
        let paths = row.options().map_or(&[][..], |options| &options.selectable);
        if paths.is_empty() {
            let arm = format!(
                "        Some(object::Kind::{}(_)) => None,\n",
                row.variant()
            );
            source.push_str(&arm);
            continue;
        }
        let arm = format!(
            "        Some(object::Kind::{}(it)) => match field {{\n",
            row.variant()
        );
        source.push_str(&arm);
        for path in paths {
            let value = value(set, message, path)?;
            source.push_str(&format!("            {path:?} => {value},\n"));
        }
        source.push_str("            _ => None,\n        },\n");
    }
    source.push_str("        None => None,\n    }\n}\n");
    Ok(())
}

/// An expression for the field of `it` at a path.
fn value(set: &DescriptorSet, message: &Descriptor, path: &str) -> Result<String, String> {
    let wrong = |why: &str| format!("{}: selectable {path:?}: {why}", message.name);
    let (way, last) = path.rsplit_once('.').unwrap_or(("", path));
    let (mut inside, mut found) = (message, String::new());
    for step in way.split('.').filter(|step| !step.is_empty()) {
        let field = inside
            .field(step)
            .ok_or_else(|| wrong("there is no such field"))?;
        if field.r#type != TYPE_MESSAGE {
            return Err(wrong("it leads through a value"));
        }
        match found.is_empty() {
            true => found = format!("it.{}.as_ref()", identifier(&field.name)),
            false => {
                let step = format!(".and_then(|it| it.{}.as_ref())", identifier(&field.name));
                found.push_str(&step);
            }
        }
        inside = set.message(&field.message())?;
    }
    let field = inside
        .field(last)
        .ok_or_else(|| wrong("there is no such field"))?;
    let name = identifier(&field.name);
    match (field.r#type, found.is_empty()) {
        (TYPE_STRING, true) => Ok(format!("Some(it.{name}.as_str())")),
        (TYPE_STRING, false) => Ok(format!("{found}.map(|it| it.{name}.as_str())")),
        (TYPE_BOOL, true) => Ok(format!("Some(word(it.{name}))")),
        (TYPE_BOOL, false) => Ok(format!("Some(word({found}.is_some_and(|it| it.{name})))")),
        _ => Err(wrong("it is neither a string nor a bool")),
    }
}

/// As prost names a field.
fn identifier(name: &str) -> String {
    match name {
        "type" => "r#type".to_owned(),
        name => name.to_owned(),
    }
}

impl Descriptor {
    fn field(&self, json_name: &str) -> Option<&super::Field> {
        self.fields
            .iter()
            .find(|field| field.json_name == json_name)
    }
}
