//! How objects are named in requests and in sentences.

use std::borrow::Cow;

use barge_proto::{
    kinds::{KindInfo, KindRef, Registry, custom},
    selector::{FieldSelector, Selector},
    v1::{GroupVersionResource, Kind, Object, ObjectMeta},
    validate,
};

use barge_state::{Kind as _, Stored, deployment_of};

use crate::error::{ApiError, Violation};

/// The namespace of namespaced objects that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// A kind as a request names it: by its number, and a registered one by group, version and plural.
///
/// # Errors
/// INVALID for none or an unknown one.
pub fn resolve(
    kinds: &Registry,
    number: i32,
    custom: Option<&GroupVersionResource>,
) -> Result<KindRef, ApiError> {
    let asked = Kind::try_from(number).unwrap_or_default();
    kinds.get(asked, custom).ok_or_else(|| match custom {
        Some(GroupVersionResource {
            group,
            version,
            resource,
        }) if asked == Kind::Custom => ApiError::invalid(
            "custom",
            format!("no kind {resource} of {group}/{version} is registered"),
        ),
        _ => ApiError::invalid("kind", format!("{number}: there is no such kind")),
    })
}

/// The name of the record behind an object: all registered kinds share one kind of record.
#[must_use]
pub fn record<'a>(info: &KindInfo, name: &'a str) -> Cow<'a, str> {
    match info.kind {
        Kind::Custom => Cow::Owned(custom::record_name(info, name)),
        _ => Cow::Borrowed(name),
    }
}

/// A built-in kind as a request names it.
///
/// # Errors
/// INVALID for none or an unknown one.
pub fn kind(number: i32) -> Result<(Kind, &'static KindInfo), ApiError> {
    Kind::try_from(number)
        .ok()
        .and_then(|kind| Some((kind, kind.info()?)))
        .ok_or_else(|| ApiError::invalid("kind", format!("{number}: there is no such kind")))
}

/// Checks that an object that is to be changed is the one that is meant, and is not being deleted.
///
/// # Errors
/// CONFLICT with what is the case.
pub fn check_current(
    name: &str,
    meta: &ObjectMeta,
    resource_version: &str,
) -> Result<(), ApiError> {
    check_version(name, meta, resource_version)?;
    match meta.deletion_timestamp {
        Some(_) => Err(ApiError::Conflict(format!("{name} is being deleted"))),
        None => Ok(()),
    }
}

/// Checks a resourceVersion that a request demands; an empty one demands nothing.
///
/// # Errors
/// CONFLICT with both.
pub fn check_version(name: &str, meta: &ObjectMeta, demanded: &str) -> Result<(), ApiError> {
    let now = &meta.resource_version;
    match demanded.is_empty() || demanded == now {
        true => Ok(()),
        false => Err(ApiError::Conflict(format!(
            "{name} has changed: its resourceVersion is {now}, not {demanded}"
        ))),
    }
}

/// Checks that an object is kept as itself, and is not a Deployment's revision that is shown as one.
///
/// # Errors
/// PRECONDITION, with what to change instead.
pub fn check_kept(record: &Stored) -> Result<(), ApiError> {
    let Stored::Revision(revision) = record else {
        return Ok(());
    };
    let deployment = deployment_of(revision).map_or("", |owner| owner.name.as_str());
    let way_out = match revision.meta().deletion_timestamp {
        None => "change, scale or delete the Deployment, which keeps it",
        Some(_) => "it is being deleted, and goes with its last pod",
    };
    Err(ApiError::Precondition(format!(
        "replicaset/{} is a revision of deployment/{deployment}: {way_out}",
        record.name()
    )))
}

/// Checks a uid that a request demands; an empty one demands nothing.
///
/// # Errors
/// CONFLICT with both.
pub fn check_uid(name: &str, meta: &ObjectMeta, demanded: &str) -> Result<(), ApiError> {
    match demanded.is_empty() || demanded == meta.uid {
        true => Ok(()),
        false => Err(ApiError::Conflict(format!(
            "{name} is another one now: its uid is {}, not {demanded}",
            meta.uid
        ))),
    }
}

/// A label selector as a request writes it.
///
/// # Errors
/// INVALID, with the place that is not understood.
pub fn selector(text: &str) -> Result<Selector, ApiError> {
    text.parse()
        .map_err(|error| ApiError::invalid("label_selector", format!("{error}")))
}

/// A field selector as a request writes it.
///
/// # Errors
/// INVALID, with what is possible for the kind.
pub fn field_selector(kind: Kind, text: &str) -> Result<FieldSelector, ApiError> {
    FieldSelector::parse(kind, text)
        .map_err(|error| ApiError::invalid("field_selector", error.to_string()))
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

/// The name of something that is no object of the API.
///
/// # Errors
/// INVALID, with the rule that it breaks.
pub fn check_dns_label(field: &str, name: &str) -> Result<(), ApiError> {
    validate::dns_label(name).map_err(|rule| ApiError::invalid(field, format!("{name:?} {rule}")))
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

/// An object as the audit log names it.
#[must_use]
pub fn of_object(kinds: &Registry, object: &Object) -> String {
    match kinds.of(object) {
        Some(info) => of_kind(&info, object.namespace(), object.name()),
        None => object.to_string(),
    }
}

/// What a request is about, as the audit log names it: "widget.example.com default/a". Of a kind that is not registered, what the request
/// says of it.
#[must_use]
pub fn of_request(
    kinds: &Registry,
    kind: i32,
    custom: Option<&GroupVersionResource>,
    namespace: &str,
    name: &str,
) -> String {
    match (resolve(kinds, kind, custom), custom) {
        (Ok(info), _) => of_kind(&info, namespace, name),
        (Err(_), Some(it)) => format!("{}.{} {namespace}/{name}", it.resource, it.group),
        (Err(_), None) => name.to_owned(),
    }
}

fn of_kind(info: &KindInfo, namespace: &str, name: &str) -> String {
    describe(info, self::namespace(info, namespace), name)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use barge_proto::kinds::CustomKind;

    use super::*;

    #[test]
    fn the_audit_log_names_kind_group_namespace_and_name() {
        let kinds = Registry::default();
        let resource = GroupVersionResource {
            group: "example.com".to_owned(),
            version: "v1".to_owned(),
            resource: "widgets".to_owned(),
        };
        let asked = |kinds: &Registry, namespace: &str| {
            let custom = Some(&resource);
            of_request(kinds, Kind::Custom.into(), custom, namespace, "a")
        };
        assert_eq!(asked(&kinds, "shop"), "widgets.example.com shop/a");
        let kind = CustomKind {
            resource: resource.clone(),
            name: "Widget".to_owned(),
            singular: String::new(),
            namespaced: true,
        };
        kinds.register(&kind).unwrap();
        assert_eq!(asked(&kinds, "shop"), "widget.example.com shop/a");
        assert_eq!(asked(&kinds, ""), "widget.example.com default/a");
        let built_in = of_request(&kinds, Kind::Deployment.into(), None, "", "web");
        assert_eq!(built_in, "deployment.apps default/web");
    }
}
