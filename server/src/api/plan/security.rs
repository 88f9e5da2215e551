//! Pod Security: what a namespace allows the pods in it.

use barge_proto::{
    v1::Object,
    validate::{self, Levels},
};

use crate::{calls::names, error::ApiError};

/// Compares the pod that an object is or makes with its namespace's levels. Answers what is to be warned of.
///
/// # Errors
/// INVALID with every field that the namespace does not allow, each with the namespace's label.
pub fn judge(object: &Object, levels: Levels) -> Result<Vec<String>, ApiError> {
    let Some((path, pod)) = validate::pod(object) else {
        return Ok(Vec::new());
    };
    let name = object.to_string();
    let mut refused = levels.enforce.violations(path, pod);
    if !refused.is_empty() {
        let namespace = object.namespace();
        for violation in &mut refused {
            violation.rule = format!(
                "{} (namespace {namespace} has {})",
                violation.rule,
                levels.label()
            );
        }
        return Err(ApiError::Invalid(names::violations(&name, refused)));
    }
    let warned = levels.warn.violations(path, pod).into_iter();
    let level = levels.warn.name();
    Ok(warned
        .map(|it| format!("{name}: {it} at the level {level}"))
        .collect())
}
