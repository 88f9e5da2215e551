//! Generates the registry of kinds: what the options of `kinds.proto` say, as Rust.
//!
//! - `for_each_kind!`, a macro that hands every kind of record to another macro. All code that does something "for each kind" is
//!   written with it, so the compiler demands of a new kind what it demands of the others.
//! - `KINDS`, what the API knows of each kind.
//! - `selected`, the fields that objects are selected by.

#[path = "kinds/options.rs"]
mod options;
#[path = "kinds/selected.rs"]
mod selected;

use std::fmt::Write;

use self::options::{Descriptor, DescriptorSet, Field, KindOptions};

const PACKAGE: &str = ".barge.v1.";
/// The message whose fields are the kinds of records.
const RECORD: &str = "Record";
/// The message whose fields are the kinds of objects, and the enumeration with their numbers.
const OBJECT: &str = "Object";
const KIND: &str = "Kind";
/// Fields of the messages of objects that are no content.
const HEAD: &[&str] = &["api_version", "kind", "metadata"];

/// A kind of record, and the kind of object that it is kept for.
struct Row<'a> {
    record: &'a Field,
    /// The field of `Object`, and its message.
    object: Option<(&'a Field, &'a Descriptor)>,
}

/// The source of the registry, from an encoded `FileDescriptorSet`.
///
/// # Errors
/// What does not fit together, in a sentence.
pub fn source(descriptors: &[u8]) -> Result<String, String> {
    let set = DescriptorSet::read(descriptors)?;
    let rows = rows(&set)?;
    let mut source = String::new();
    write_macro(&mut source, &set, &rows)?;
    write_table(&mut source, &rows)?;
    selected::write(&mut source, &set, &rows)?;
    Ok(source)
}

/// The rows in the order of their records' numbers.
fn rows(set: &DescriptorSet) -> Result<Vec<Row<'_>>, String> {
    let objects = &set.message(OBJECT)?.fields;
    for object in objects {
        let name = format!("KIND_{}", object.name.to_uppercase());
        if set.enumeration(KIND)?.number(&name) != Some(object.number) {
            return Err(format!(
                "{OBJECT}.{} is {}, and {name} of {KIND} is not",
                object.name, object.number
            ));
        }
    }
    let records = &set.message(RECORD)?.fields;
    let kept = |object: &&Field| records.iter().any(|record| record.name == object.name);
    if let Some(object) = objects.iter().find(|object| !kept(object)) {
        return Err(format!(
            "{OBJECT}.{0} has no {RECORD}.{0} that keeps it",
            object.name
        ));
    }
    let mut rows = Vec::new();
    for record in records {
        let object = objects.iter().find(|object| object.name == record.name);
        let object = object
            .map(|field| Ok::<_, String>((field, set.message(&field.message())?)))
            .transpose()?;
        rows.push(Row { record, object });
    }
    rows.sort_by_key(|row| row.record.number);
    Ok(rows)
}

impl Row<'_> {
    /// "ConfigMap"
    fn variant(&self) -> String {
        camel(&self.record.name)
    }

    /// The options of the kind of object; none for kinds that only the state knows, and for the one of all kinds at run time.
    fn options(&self) -> Option<&KindOptions> {
        self.object?.1.options.as_ref()?.api_kind.as_ref()
    }

    /// How the state checks it, as tokens for its macro.
    fn rules(&self, set: &DescriptorSet) -> Result<String, String> {
        let Some(options) = self.options() else {
            return Ok("own".to_owned());
        };
        if self.record.stored().own_rules || self.record.message() != self.shown() {
            return Ok("own".to_owned());
        }
        let message = set.message(&self.record.message())?;
        let has = |name: &str| message.fields.iter().any(|field| field.name == name);
        let spec = match options.spec.as_slice() {
            [] if has("spec") => vec!["spec".to_owned()],
            named => named.to_vec(),
        };
        if let Some(unknown) = spec.iter().find(|name| !has(name)) {
            return Err(format!("{}.{unknown} is no field", message.name));
        }
        let status = if has("status") { "status" } else { "" };
        Ok(format!("plain [{status}] [{}]", spec.join(" ")))
    }

    /// The message of the object; empty when there is none.
    fn shown(&self) -> String {
        self.object
            .map(|(field, _)| field.message())
            .unwrap_or_default()
    }
}

/// A row per kind, in this form:
///
/// `Event(Event) events = 8 [Event(Event)] { level 0, rules [plain [] []], about [involved_object], ends_with_owner false },`
fn write_macro(source: &mut String, set: &DescriptorSet, rows: &[Row<'_>]) -> Result<(), String> {
    source.push_str(
        "/// Calls a macro with every kind of record, by number: variant, message, table, number (of the field in `Record`), the kind of\n\
         /// object that it is kept for with that one's message, and options: feature level, how the state checks it, a field with\n\
         /// what it is about, and whether it ends with its owner. See `build/kinds.rs`.\n\
         #[macro_export]\n\
         macro_rules! for_each_kind {\n    ($then:ident) => {\n        $then! {\n",
    );
    for row in rows {
        let (variant, stored) = (row.variant(), row.record.stored());
        let object = match row.object {
            Some((_, message)) => format!("{variant}({})", message.name),
            None => String::new(),
        };
        let line = format!(
            "{variant}({}) {} = {} [{object}] {{ level {}, rules [{}], about [{}], ends_with_owner {} }},",
            row.record.message(),
            plural(&row.record.name),
            row.record.number,
            stored.level,
            row.rules(set)?,
            stored.about,
            stored.ends_with_owner,
        );
        writeln!(source, "            {line}").map_err(|error| error.to_string())?;
    }
    source.push_str("        }\n    };\n}\n");
    Ok(())
}

/// `KINDS`, by the number of the kind.
fn write_table(source: &mut String, rows: &[Row<'_>]) -> Result<(), String> {
    let mut kinds = Vec::new();
    for row in rows {
        let (Some((field, message)), Some(options)) = (row.object, row.options()) else {
            continue;
        };
        let named = match options.name.as_str() {
            "" => &message.name,
            name => name,
        };
        let singular = match options.singular.as_str() {
            "" => named.to_lowercase(),
            singular => singular.to_owned(),
        };
        if let Some(missing) = [
            ("api_version", &options.api_version),
            ("plural", &options.plural),
        ]
        .iter()
        .find(|(_, value)| value.is_empty())
        {
            return Err(format!("{}: api_kind has no {}", message.name, missing.0));
        }
        if let Some(missing) = HEAD
            .iter()
            .find(|head| !message.fields.iter().any(|field| field.name == **head))
        {
            return Err(format!("{} has no {missing}", message.name));
        }
        let text = format!(
            "    KindInfo {{ kind: Kind::{}, api_version: Cow::Borrowed({:?}), name: Cow::Borrowed({named:?}), plural: Cow::Borrowed({:?}), singular: Cow::Borrowed({singular:?}), short: &{:?}, \
             namespaced: {}, message: {:?}, kept_by_managers: {}, parts: &{:?}, read: {}, write: {}, selectable: &{:?}, level: {} }},\n",
            row.variant(),
            options.api_version,
            options.plural,
            options.short,
            !options.cluster_scoped,
            message.name,
            options.kept_by_managers,
            options.parts,
            role(options.read)?,
            role(options.write)?,
            options.selectable,
            row.record.stored().level,
        );
        kinds.push((field.number, text));
    }
    kinds.sort();
    for (index, (number, _)) in kinds.iter().enumerate() {
        if usize::try_from(*number) != Ok(index + 1) {
            return Err(format!(
                "the kinds of {OBJECT} are not numbered one by one: {number}"
            ));
        }
    }
    source.push_str("/// Every kind there is, by number.\npub const KINDS: &[KindInfo] = &[\n");
    source.extend(kinds.into_iter().map(|(_, text)| text));
    source.push_str("];\n");
    Ok(())
}

fn role(number: i32) -> Result<&'static str, String> {
    match number {
        0 => Ok("None"),
        1 => Ok("Some(BuiltinRole::View)"),
        2 => Ok("Some(BuiltinRole::Edit)"),
        3 => Ok("Some(BuiltinRole::Admin)"),
        other => Err(format!("{other} is no built-in role")),
    }
}

/// "config_map" as prost names a variant: "ConfigMap".
fn camel(name: &str) -> String {
    let words = name.split('_').map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_uppercase() + rest
    });
    words.collect()
}

/// "config_map" as the state names a table: "config_maps".
fn plural(name: &str) -> String {
    match name {
        name if name.ends_with("ss") => format!("{name}es"),
        name if name.ends_with('s') => name.to_owned(),
        name if name.ends_with("ey") => format!("{name}s"),
        name => match name.strip_suffix('y') {
            Some(stem) => format!("{stem}ies"),
            None => format!("{name}s"),
        },
    }
}
