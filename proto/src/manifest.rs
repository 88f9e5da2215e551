//! Manifests: objects as people write them, in YAML or JSON, several in one file, with errors that point at the
//! line; and objects as they are printed. What is printed can be read again.
//!
//! ```
//! use barge_proto::manifest::{self, Source};
//!
//! let text = "apiVersion: v1\nkind: Namespace\nmetadata:\n  nmae: shop\n";
//! let error = manifest::parse([Source::new("shop.yaml", text)]).unwrap_err();
//! assert_eq!((error.line(), error.column()), (4, 3));
//! assert!(error.to_string().contains("did you mean `name`?"));
//! ```

mod de;
mod error;
mod kubernetes;
mod print;
mod tree;

use std::{collections::HashMap, sync::Arc};

pub use error::ManifestError;
pub use print::{PrintError, list_to_json, list_to_yaml, to_json, to_yaml, to_yaml_with};
pub use tree::Position;

use self::tree::{Node, Value};
use crate::{
    kinds::{self, KINDS},
    v1::Object,
};

/// The kind of a list of objects, as `get -o yaml` prints several.
const LIST: &str = "List";

/// A text and what to call it in errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    name: String,
    text: String,
}

impl Source {
    /// `name` is usually a path.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
        }
    }
}

/// An object and where it was written.
#[derive(Debug, Clone)]
pub struct Located {
    /// The object as it was written: no defaults filled in, nothing validated but its form.
    pub object: Object,
    source: Arc<Source>,
    node: Node,
}

impl Located {
    /// The name of the source.
    pub fn file(&self) -> &str {
        &self.source.name
    }

    /// Where the object begins.
    pub fn position(&self) -> Position {
        self.node.at
    }

    /// An error that points at a field ("spec.template.spec.containers[0].image"), or at what there is of
    /// the way to it.
    pub fn error(&self, field: &str, message: impl Into<String>) -> ManifestError {
        ManifestError::new(&self.source, self.node.locate(field), message)
    }
}

/// Reads every object of some texts, in order. Empty documents are skipped; lists are taken apart.
///
/// The same object twice is an error, also in different texts.
pub fn parse(sources: impl IntoIterator<Item = Source>) -> Result<Vec<Located>, ManifestError> {
    let mut objects = Vec::new();
    for source in sources {
        let source = Arc::new(source);
        for document in tree::parse(&source)? {
            collect(&source, document, &mut objects)?;
        }
    }
    refuse_duplicates(&objects)?;
    Ok(objects)
}

/// Adds the object of a node, or the objects of a list.
fn collect(
    source: &Arc<Source>,
    node: Node,
    objects: &mut Vec<Located>,
) -> Result<(), ManifestError> {
    let fail = |at, message: String| Err(ManifestError::new(source, at, message));
    let Value::Map(fields) = &node.value else {
        return fail(
            node.at,
            format!(
                "expected an object with apiVersion, kind and metadata, found {}",
                node.value
            ),
        );
    };
    let stated = |field: &str| match node.get(field).map(|node| (node.at, &node.value)) {
        Some((at, Value::String(text))) => Ok(Some((at, text.as_str()))),
        None | Some((_, Value::Null)) => Ok(None),
        Some((at, other)) => {
            fail(at, format!("{field}: expected a string, found {other}")).map(|()| None)
        }
    };
    let start = fields.first().map_or(node.at, |(key, _)| key.at);
    let Some((kind_at, kind)) = stated("kind")? else {
        return fail(start, format!("missing `kind`: one of {}", kind_names()));
    };
    let Some((api_version_at, api_version)) = stated("apiVersion")? else {
        let hint = match KINDS.iter().find(|info| info.name == kind) {
            Some(info) => format!(": {kind} has `apiVersion: {}`", info.api_version),
            None => String::new(),
        };
        return fail(start, format!("missing `apiVersion`{hint}"));
    };
    if (api_version, kind) == ("v1", LIST) {
        return collect_list(source, node, objects);
    }
    let info = match kinds::by_type(api_version, kind) {
        Ok(info) => info,
        Err(error @ kinds::UnknownKind::Name(_)) => return fail(kind_at, error.to_string()),
        Err(error) => return fail(api_version_at, error.to_string()),
    };
    let object = kinds::deserialize(info.kind, &node)
        .map_err(|fault| ManifestError::new(source, fault.at(), fault.to_string()))?;
    objects.push(Located {
        object,
        source: Arc::clone(source),
        node,
    });
    Ok(())
}

fn collect_list(
    source: &Arc<Source>,
    node: Node,
    objects: &mut Vec<Located>,
) -> Result<(), ManifestError> {
    let Value::Map(fields) = node.value else {
        return Ok(());
    };
    for (key, value) in fields {
        match (key.name.as_str(), value.value) {
            // A list's metadata says where a watch may go on; it is nothing to apply.
            ("apiVersion" | "kind", _) | ("metadata", Value::Map(_) | Value::Null) => {}
            ("items", Value::List(items)) => {
                for item in items {
                    collect(source, item, objects)?;
                }
            }
            ("items" | "metadata", other) => {
                let message = format!("{}: found {other} in a List", key.name);
                return Err(ManifestError::new(source, value.at, message));
            }
            (other, _) => {
                let message = format!(
                    "unknown field `{other}` in a List: there are apiVersion, kind, metadata, items"
                );
                return Err(ManifestError::new(source, key.at, message));
            }
        }
    }
    Ok(())
}

fn refuse_duplicates(objects: &[Located]) -> Result<(), ManifestError> {
    let mut seen = HashMap::new();
    for located in objects {
        let object = &located.object;
        let namespace = match (object.kind().info(), object.namespace()) {
            (Some(info), "") if info.namespaced => "default",
            (_, namespace) => namespace,
        };
        if object.name().is_empty() {
            continue;
        }
        if let Some(first) = seen.insert((object.kind(), namespace, object.name()), located) {
            let at = first.node.locate("metadata.name");
            let message = format!(
                "{object} is there twice; first at {}:{}:{}",
                first.file(),
                at.line,
                at.column
            );
            return Err(located.error("metadata.name", message));
        }
    }
    Ok(())
}

fn kind_names() -> String {
    let names: Vec<_> = KINDS.iter().map(|info| &*info.name).collect();
    names.join(", ")
}
