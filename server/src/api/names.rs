//! How objects are named in requests and in sentences.

use barge_proto::{kinds::KindInfo, selector::Selector, v1::Kind, validate};

use crate::error::{ApiError, Violation};

/// The namespace of namespaced objects that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// A kind as a request names it.
///
/// # Errors
/// INVALID for none or an unknown one.
pub fn kind(number: i32) -> Result<(Kind, &'static KindInfo), ApiError> {
    Kind::try_from(number)
        .ok()
        .and_then(|kind| Some((kind, kind.info()?)))
        .ok_or_else(|| ApiError::invalid("kind", format!("{number}: there is no such kind")))
}

/// A label selector as a request writes it.
///
/// # Errors
/// INVALID, with the place that is not understood.
pub fn selector(text: &str) -> Result<Selector, ApiError> {
    text.parse()
        .map_err(|error| ApiError::invalid("label_selector", format!("{error}")))
}

/// Broken rules of an object, as an answer names them.
pub fn violations(object: &str, broken: Vec<validate::Violation>) -> Vec<Violation> {
    let with_value = |v: &validate::Violation| match v.value.as_str() {
        "" => v.rule.clone(),
        value => format!("{value} {}", v.rule),
    };
    broken
        .into_iter()
        .map(|violation| Violation {
            description: with_value(&violation),
            field: match violation.field.as_str() {
                "" => object.to_owned(),
                field => format!("{object}: {field}"),
            },
        })
        .collect()
}

/// The namespace that is meant; empty for kinds without.
#[must_use]
pub fn namespace<'a>(info: &KindInfo, asked: &'a str) -> &'a str {
    match (info.namespaced, asked) {
        (false, _) => "",
        (true, "") => DEFAULT_NAMESPACE,
        (true, asked) => asked,
    }
}

/// "deployment.apps default/web does not exist"
#[must_use]
pub fn not_found(info: &KindInfo, namespace: &str, name: &str) -> ApiError {
    ApiError::NotFound(format!(
        "{} does not exist",
        describe(info, namespace, name)
    ))
}

/// "deployment.apps default/web"
#[must_use]
pub fn describe(info: &KindInfo, namespace: &str, name: &str) -> String {
    match namespace {
        "" => format!("{} {name}", info.qualified()),
        namespace => format!("{} {namespace}/{name}", info.qualified()),
    }
}
