//! `barge.dev/roll-on-config-change`: a Deployment that has this annotation rolls when a ConfigMap or Secret that its pods use changes.
//!
//! The digest of what the pods use becomes an annotation of the template that the pods are made from, so another content is another template, and rolls
//! like one. The Deployment itself stays as its author wrote it.

use barge_proto::{
    configuration::{ROLL, Source, configuration},
    v1::{ConfigMap, Deployment, ObjectMeta, PodSpec, PodTemplateSpec, Revision, Secret},
};
use barge_state::{Changed, Kind, State, Stored};
use sha2::{Digest, Sha256};
use std::sync::Arc;

use super::revisions;
use crate::controllers::Name;

/// The annotation of templates that has the digest.
pub const DIGEST: &str = "barge.dev/configuration";
/// Bytes of the digest that are shown.
const SHOWN: usize = 8;

fn asks(deployment: &Deployment) -> bool {
    let asked = deployment.meta().annotations.get(ROLL);
    asked.is_some_and(|value| value == "true")
}

/// The configuration of a Deployment's pods.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// What its template gets; `None` when it gets none.
    pub digest: Option<String>,
    /// An object that its pods need and that is not there: "ConfigMap web".
    pub missing: Option<String>,
}

impl Configuration {
    /// Looks it up. While something that the pods need is missing the digest is that of the newest revision: a rollout would replace pods that run by
    /// pods that wait. So it is for a Deployment that asks no longer and is otherwise the same: to stop asking replaces no pods.
    ///
    /// The digest is SHA-256 over each object that the containers see, in the order of kind and name, as kind, name, uid and generation, each behind its
    /// length in 8 bytes; an optional object that is missing has no uid and the generation 0. The state raises the generation with each change of
    /// the content, so the content is not read: plans are made under the state's lock. A version of Barge that computed it in another way would roll all
    /// Deployments that ask, and needs a feature level for that.
    pub fn of(state: &State, deployment: &Deployment, revisions: &[&Arc<Revision>]) -> Self {
        if !asks(deployment) {
            let newest = of_newest(revisions).filter(|_| is_otherwise(deployment, revisions));
            return Self {
                digest: newest,
                missing: None,
            };
        }
        let Some(spec) = pod_spec(deployment) else {
            return Self::default();
        };
        let used = configuration(spec);
        if used.is_empty() {
            return Self::default();
        }
        let namespace = &deployment.meta().namespace;
        let mut digest = Sha256::new();
        for ((source, name), needed) in used {
            let there = meta(state, source, namespace, name);
            if there.is_none() && needed {
                return Self {
                    digest: of_newest(revisions),
                    missing: Some(format!("{} {name}", source.kind())),
                };
            }
            let (uid, generation) = there.map_or(("", 0), |it| (it.uid.as_str(), it.generation));
            let generation = generation.to_le_bytes();
            for part in [
                source.kind().as_bytes(),
                name.as_bytes(),
                uid.as_bytes(),
                &generation,
            ] {
                digest.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
                digest.update(part);
            }
        }
        let digest = digest.finalize();
        let shown = digest[..SHOWN].iter().map(|byte| format!("{byte:02x}"));
        Self {
            digest: Some(shown.collect()),
            missing: None,
        }
    }
}

fn meta<'a>(
    state: &'a State,
    source: Source,
    namespace: &str,
    name: &str,
) -> Option<&'a ObjectMeta> {
    match source {
        Source::ConfigMap => state.get::<ConfigMap>(namespace, name).map(|it| it.meta()),
        Source::Secret => state.get::<Secret>(namespace, name).map(|it| it.meta()),
        Source::ServiceAccount => None,
    }
}

fn of_newest(revisions: &[&Arc<Revision>]) -> Option<String> {
    digest_of(revisions.last()?).cloned()
}

/// The digest that a revision has.
pub fn digest_of(revision: &Revision) -> Option<&String> {
    let metadata = revision.template.as_ref()?.metadata.as_ref()?;
    metadata.annotations.get(DIGEST)
}

/// Whether the newest revision is the Deployment's template but for the digest.
fn is_otherwise(deployment: &Deployment, revisions: &[&Arc<Revision>]) -> bool {
    let newest = revisions.last().and_then(|it| it.template.as_ref());
    newest
        .is_some_and(|newest| revisions::as_written(newest) == revisions::wanted(deployment, None))
}

fn pod_spec(deployment: &Deployment) -> Option<&PodSpec> {
    deployment.spec.as_ref()?.template.as_ref()?.spec.as_ref()
}

/// Takes the digest out of a template that becomes a Deployment's own.
pub fn without_digest(template: &mut PodTemplateSpec) {
    if let Some(metadata) = &mut template.metadata {
        metadata.annotations.remove(DIGEST);
    }
}

/// The Deployments that look at a ConfigMap or Secret whose content has changed.
pub fn concerned(state: &State, changed: &Changed, found: &mut dyn FnMut(Name)) {
    let same = |(before, after): (&Stored, &Stored)| {
        let of = |it: &Stored| (it.uid().to_owned(), it.meta().generation);
        of(before) == of(after)
    };
    let both = changed.before.as_ref().zip(changed.after.as_ref());
    let Some(record) = changed.record().filter(|_| !both.is_some_and(same)) else {
        return;
    };
    let source = match record {
        Stored::ConfigMap(_) => Source::ConfigMap,
        Stored::Secret(_) => Source::Secret,
        _ => return,
    };
    let here = state.list::<Deployment>(Some(record.namespace()));
    for deployment in here.filter(|it| asks(it)) {
        let uses = |spec| configuration(spec).contains_key(&(source, record.name()));
        if pod_spec(deployment).is_some_and(uses) {
            found(Name::of(deployment.meta()));
        }
    }
}
