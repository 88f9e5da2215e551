//! Changing objects that are there: read one, change it, put it back if nobody was faster.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use barge_client::{
    Client, ClientError,
    backoff::Backoff,
    v1::{ApplyOutcome, Kind, Object},
};
use barge_proto::kinds;
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    args::{DryRun, Where},
    names, output,
    targets::Target,
};

/// How often an object is read again that others changed meanwhile.
const TRIES: usize = 6;

/// In whose name, and whether for real.
#[derive(Debug, Clone)]
pub struct How {
    pub manager: String,
    pub dry: DryRun,
}

impl How {
    /// What follows the words of what was done.
    pub fn note(&self) -> &'static str {
        match self.dry.dry_run {
            Some(_) => " (dry run)",
            None => "",
        }
    }
}

/// Changes an object by `edit`, which is called again when others were faster. Answers with the object, and whether anything changed.
///
/// # Errors
/// There is no such object; `edit` failed; what it made is no object or is refused; others were faster each time.
pub async fn change(
    client: &Client,
    target: &Target,
    how: &How,
    mut edit: impl FnMut(&mut Value) -> Result<()>,
) -> Result<(Object, bool)> {
    let mut pause = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
    let mut tries = 1;
    loop {
        let namespace = &target.namespace;
        let Some(object) = client
            .find(target.kind.kind, namespace, &target.name)
            .await?
        else {
            return Err(names::not_found(client, target.named(), namespace).await);
        };
        ensure!(
            target.uid.is_empty() || object.uid() == target.uid,
            "{object} was made anew since it was found: nothing was changed in it"
        );
        let Some(changed) = edited(&object, &mut edit).with_context(|| object.to_string())? else {
            return Ok((object, false));
        };
        if how.dry.dry_run == Some(Where::Client) {
            return Ok((changed, true));
        }
        match put(client, changed, how).await {
            Err(error) if error.reason() == Some("CONFLICT") && tries < TRIES => tries += 1,
            put => return put.map_err(Into::into),
        }
        sleep(pause.wait()).await;
    }
}

/// As [`put`], of an object that was made from `read` a while ago: when only its status has changed since, which is not a person's, it is put all the same.
pub async fn put_over(
    client: &Client,
    read: &Object,
    mut object: Object,
    how: &How,
) -> Result<(Object, bool), ClientError> {
    let mut pause = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
    let condition = &read.metadata().resource_version;
    let is_ours = object.metadata().resource_version == *condition;
    for _ in 1..TRIES {
        let error = match Box::pin(put(client, object.clone(), how)).await {
            Err(error) if error.reason() == Some("CONFLICT") && is_ours => error,
            put => return put,
        };
        let now = client
            .find(read.kind(), read.namespace(), read.name())
            .await?;
        let Some(now) = now.filter(|now| differ_by_status(read, now)) else {
            return Err(error);
        };
        if let Some(metadata) = object.metadata_mut() {
            let version = &now.metadata().resource_version;
            metadata.resource_version.clone_from(version);
        }
        sleep(pause.wait()).await;
    }
    Box::pin(put(client, object, how)).await
}

/// Whether two readings of an object are the same but for what the managers keep in it.
fn differ_by_status(one: &Object, other: &Object) -> bool {
    let bare = |object: &Object| {
        let mut value = output::value(object).ok()?;
        value.as_object_mut()?.remove("status");
        let metadata = value.get_mut("metadata")?.as_object_mut()?;
        metadata.remove("resourceVersion");
        metadata.remove("managedFields");
        Some(value)
    };
    bare(one).is_some() && bare(one) == bare(other)
}

/// Checks that a change leaves alone what only the managers set: it would come to nothing.
///
/// # Errors
/// Names the field.
pub fn check_kept(kind: Kind, before: &Value, after: &Value) -> Result<()> {
    let (was, is) = (
        before.pointer("/metadata/finalizers"),
        after.pointer("/metadata/finalizers"),
    );
    ensure!(
        was == is,
        "metadata.finalizers are set by the managers and cannot be changed: `barge describe` shows what the end of an object waits for"
    );
    // Of a registered kind nobody knows who sets its status.
    let status = (kind != Kind::Custom).then_some("/status");
    let metadata = [
        "/metadata/generation",
        "/metadata/creationTimestamp",
        "/metadata/deletionTimestamp",
    ];
    for path in status.into_iter().chain(metadata) {
        let is = after.pointer(path);
        ensure!(
            is.is_none() || is == before.pointer(path),
            "{} is set by the managers and cannot be changed: leave it as it is",
            path[1..].replace('/', ".")
        );
    }
    Ok(())
}

/// Puts an object in the place of the one that it was read as, and prints what the manager warns of.
pub async fn put(
    client: &Client,
    object: Object,
    how: &How,
) -> Result<(Object, bool), ClientError> {
    let dry_run = how.dry.dry_run.is_some();
    // Boxed: what waits for it would be as large.
    let answer = Box::pin(client.update(object, &how.manager, dry_run)).await?;
    for warning in &answer.warnings {
        eprintln!("warning: {warning}");
    }
    let result = answer.result.unwrap_or_default();
    let changed = result.outcome() != ApplyOutcome::Unchanged;
    let object = result.object.ok_or(ClientError::Answer("the object"))?;
    Ok((object, changed))
}

/// The object after `edit`; nothing when that changes nothing.
fn edited(
    object: &Object,
    edit: &mut impl FnMut(&mut Value) -> Result<()>,
) -> Result<Option<Object>> {
    let mut bare = object.clone();
    if let Some(metadata) = bare.metadata_mut() {
        metadata.managed_fields.clear();
    }
    let before = output::value(&bare)?;
    let mut after = before.clone();
    edit(&mut after)?;
    if after == before {
        return Ok(None);
    }
    for path in [
        "/metadata/name",
        "/metadata/namespace",
        "/kind",
        "/apiVersion",
    ] {
        let (was, is) = (before.pointer(path), after.pointer(path));
        ensure!(
            was == is,
            "{} cannot change: create another object instead",
            path[1..].replace('/', ".")
        );
    }
    check_kept(object.kind(), &before, &after)?;
    let mut changed = kinds::deserialize(object.kind(), after)?;
    if changed == bare {
        return Ok(None);
    }
    on_condition(&mut changed, object);
    Ok(Some(changed))
}

/// The condition of a change is what was read, unless the change has one of its own.
pub fn on_condition(changed: &mut Object, read: &Object) {
    if let Some(metadata) = changed.metadata_mut()
        && metadata.resource_version.is_empty()
    {
        let version = &read.metadata().resource_version;
        metadata.resource_version.clone_from(version);
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use barge_client::v1::{ConfigMap, ObjectMeta};
    use serde_json::json;

    /// One that was read.
    pub fn object() -> Object {
        ConfigMap {
            metadata: Some(ObjectMeta {
                name: "a".into(),
                namespace: "shop".into(),
                resource_version: "7".into(),
                ..ObjectMeta::default()
            }),
            data: [("k".to_owned(), "1".to_owned())].into(),
            ..ConfigMap::default()
        }
        .into()
    }

    fn edit(edit: impl Fn(&mut Value)) -> Result<Option<Object>> {
        edited(&object(), &mut |value: &mut Value| {
            edit(value);
            Ok(())
        })
    }

    #[test]
    fn a_change_is_on_condition_of_what_was_read() {
        let changed = edit(|it| it["data"]["k"] = json!("2")).unwrap().unwrap();
        assert_eq!(changed.metadata().resource_version, "7");
        assert!(edit(|it| it["data"]["k"] = json!("1")).unwrap().is_none());
        let dropped = edit(|it| {
            it["metadata"] = json!({"name": "a", "namespace": "shop"});
            it["data"]["k"] = json!("2");
        });
        assert_eq!(dropped.unwrap().unwrap().metadata().resource_version, "7");
    }

    #[test]
    fn what_the_managers_keep_is_refused_and_not_ignored() {
        let error = edit(|it| it["metadata"]["finalizers"] = json!(["a"])).unwrap_err();
        assert!(error.to_string().contains("metadata.finalizers"), "{error}");
        let error = edit(|it| it["metadata"]["generation"] = json!(9)).unwrap_err();
        assert!(error.to_string().contains("metadata.generation"), "{error}");
        let status = json!({"replicas": 1});
        let error =
            check_kept(Kind::Deployment, &json!({}), &json!({"status": status})).unwrap_err();
        assert!(error.to_string().contains("status is set"), "{error}");
        assert!(check_kept(Kind::Deployment, &json!({"status": status}), &json!({})).is_ok());
        let had = json!({"metadata": {"finalizers": ["foregroundDeletion"]}});
        assert!(check_kept(Kind::Deployment, &had, &json!({"metadata": {}})).is_err());
    }

    #[test]
    fn only_a_new_status_lets_an_edit_go_on() {
        use barge_client::v1::{Deployment, DeploymentStatus};
        let deployment = |version: &str, replicas, generation| {
            Object::from(Deployment {
                metadata: Some(ObjectMeta {
                    name: "web".into(),
                    resource_version: version.into(),
                    generation,
                    ..ObjectMeta::default()
                }),
                status: Some(DeploymentStatus {
                    replicas,
                    ..DeploymentStatus::default()
                }),
                ..Deployment::default()
            })
        };
        let read = deployment("7", 1, 1);
        assert!(differ_by_status(&read, &deployment("8", 2, 1)));
        assert!(!differ_by_status(&read, &deployment("8", 1, 2)));
        let mut labelled = deployment("8", 1, 1);
        let metadata = labelled.metadata_mut().unwrap();
        metadata.labels.insert("a".into(), "b".into());
        assert!(!differ_by_status(&read, &labelled));
    }

    #[test]
    fn names_and_unknown_fields_are_refused() {
        let error = edit(|it| it["metadata"]["name"] = json!("b")).unwrap_err();
        assert!(
            error.to_string().contains("metadata.name cannot change"),
            "{error}"
        );
        let error = edit(|it| it["dta"] = json!({})).unwrap_err();
        assert!(error.to_string().contains("dta"), "{error}");
    }
}
