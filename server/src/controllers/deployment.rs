//! Deployments: revisions of their templates, pods, rollouts, status.
//!
//! A Deployment owns its revisions and all of its pods; a pod belongs to the revision it was made
//! from. The plan is a function of what is in the state, so a new leader goes on where the old one
//! stopped.

mod budget;
mod claims;
mod configuration;
mod groups;
mod moves;
mod revisions;
mod rollout;
mod status;
#[cfg(test)]
mod tests;

use super::{
    Controller, Name,
    plan::{MAX_BATCH, Plan, is_going, object_reference},
    replicas::{self, group::Count, lost},
    stamp::Stamp,
};
use crate::store::transaction::Draft;
use barge_proto::v1::{Deployment, DeploymentSpec, ObjectReference, PodRecord, Revision};
use barge_state::{Changed, Kind, PackedPod, RecordKind, State};
use budget::{Budget, is_recreate};
use configuration::Configuration;
use groups::Groups;
use status::{Begun, Observed};
use std::sync::Arc;

pub use revisions::{HASH_LABEL, as_written};

/// As in a manifest, and in owner references.
const KIND: &str = "Deployment";
const API_VERSION: &str = "apps/v1";

/// The controller of Deployments.
#[derive(Debug, Clone, Copy, Default)]
pub struct Deployments;

impl Controller for Deployments {
    type Key = Name;
    const NAME: &'static str = "deployment";
    const KINDS: &'static [RecordKind] = &[
        RecordKind::Deployment,
        RecordKind::Pod,
        RecordKind::Revision,
        RecordKind::ConfigMap,
        RecordKind::Secret,
    ];

    fn all(&self, state: &State) -> Vec<Name> {
        state
            .list::<Deployment>(None)
            .map(|deployment| Name::of(deployment.meta()))
            .collect()
    }

    fn dirtied(&self, state: &State, changed: &Changed, dirty: &mut dyn FnMut(Name)) {
        let Some(record) = changed.record() else {
            return;
        };
        match record.kind() {
            RecordKind::Deployment => dirty(Name {
                namespace: record.namespace().to_owned(),
                name: record.name().to_owned(),
            }),
            RecordKind::Pod | RecordKind::Revision => {
                replicas::claims::owners(changed, KIND, dirty);
                if replicas::claims::found_alone(changed).is_some()
                    && let Some(template) = &changed.template
                {
                    // It may belong to the one that its template belongs to.
                    let owners = template.meta().owner_references.iter();
                    for owner in owners.filter(|owner| owner.kind == KIND) {
                        dirty(Name {
                            namespace: changed.namespace().to_owned(),
                            name: owner.name.clone(),
                        });
                    }
                }
            }
            RecordKind::ConfigMap | RecordKind::Secret => {
                configuration::concerned(state, changed, dirty);
            }
            _ => {}
        }
    }

    fn plan(&self, state: &State, key: &Name, stamp: &mut Stamp) -> Plan {
        plan(state, key, stamp)
    }

    fn concerned(&self, state: &State, key: &Name) -> Option<ObjectReference> {
        let deployment = state.get::<Deployment>(&key.namespace, &key.name)?;
        Some(object_reference(API_VERSION, KIND, deployment.meta()))
    }
}

/// What should be done for a Deployment now.
pub fn plan(state: &State, key: &Name, stamp: &mut Stamp) -> Plan {
    let mut plan = Plan::default();
    let Some(deployment) = state.get::<Deployment>(&key.namespace, &key.name) else {
        return plan;
    };
    let metadata = deployment.meta();
    let Some(spec) = &deployment.spec else {
        return plan;
    };
    if is_going(state, metadata) {
        replicas::claims::let_go(state, metadata, &mut plan);
        return plan;
    }
    plan.draft.same(&**deployment);
    plan.draft.same_generation(&**deployment);
    let mut revisions: Vec<_> = state.owned::<Revision>(&metadata.uid).collect();
    revisions.sort_by_key(|revision| (revision.number, revision.uid().to_owned()));
    let owned: Vec<_> = state.owned::<PodRecord>(&metadata.uid).collect();
    let claims = claims::find(state, deployment, spec, &owned);
    if !claims.is_empty() {
        claims::claim(deployment, &claims, stamp, &mut plan);
        return plan;
    }
    replicas::replace_finished(&owned, stamp, &mut plan);

    let newest = newest(state, deployment, spec, &revisions, stamp, &mut plan);
    let Some(newest) = newest else {
        // Paused before it ever had a template that counts.
        let none = Newest::default();
        return finish(deployment, spec, &Groups::default(), &none, 0, stamp, plan);
    };
    let revision = &newest.revision;
    let groups = Groups::new(&owned, &revisions, revision.uid(), spec, &stamp.now);
    let steps = groups.steps(spec, &Budget::of(spec), &owned, revision.uid());
    moves::make(
        state, deployment, &groups, revision, &steps, stamp, &mut plan,
    );
    // With Recreate a later revision waits for all that may still run, so what is lost is remembered until its node is back or off.
    let mut waits_for = 0;
    if is_recreate(spec) {
        let earlier =
            |pod: &&&Arc<PackedPod>| pod.is_lost() && pod.template_uid() != revision.uid();
        waits_for = owned.iter().filter(earlier).count();
    } else {
        let room = MAX_BATCH.saturating_sub(plan.draft.changes().len());
        let replicas = Budget::of(spec).replicas;
        lost::remove_replaced(&owned, replicas, groups.ready(), room, &mut plan);
    }

    if !spec.paused {
        let used = |uid: &str| uid == revision.uid() || state.pods_of(uid).next().is_some();
        revisions::forget_old(deployment, &revisions, used, &mut plan);
    }
    finish(deployment, spec, &groups, &newest, waits_for, stamp, plan)
}

/// The revision that pods are made from.
#[derive(Debug, Default)]
struct Newest {
    revision: Revision,
    /// When this plan made it the newest.
    begun: Option<Begun>,
    /// While paused, the template may have become another one; its pods are still to come then.
    is_outdated: bool,
    /// What its pods need and is not there, if the Deployment asks to be rolled with that.
    missing: Option<String>,
}

/// The revision that pods are made from: the template's, which is made the newest if it isn't.
/// While paused, whatever is newest.
fn newest(
    state: &State,
    deployment: &Deployment,
    spec: &DeploymentSpec,
    revisions: &[&Arc<Revision>],
    stamp: &mut Stamp,
    plan: &mut Plan,
) -> Option<Newest> {
    let last = revisions.last();
    let Configuration { digest, missing } = Configuration::of(state, deployment, revisions);
    let wanted = revisions::wanted(deployment, digest);
    let matching = revisions::matching(&wanted, revisions);
    let is_last = |revision: &Arc<Revision>| last.is_some_and(|last| Arc::ptr_eq(last, revision));
    match matching {
        Some(revision) if is_last(revision) => Some(Newest {
            revision: Revision::clone(revision),
            missing,
            ..Newest::default()
        }),
        _ if spec.paused => last.map(|last| Newest {
            revision: Revision::clone(last),
            is_outdated: true,
            missing,
            ..Newest::default()
        }),
        found => {
            let begun = match found {
                Some(_) => Begun::Found,
                None => Begun::Created,
            };
            Some(Newest {
                revision: revisions::make_newest(state, deployment, wanted, revisions, stamp, plan),
                begun: Some(begun),
                is_outdated: false,
                missing,
            })
        }
    }
}

/// Adds the status, if it differs, and when to look again.
fn finish(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    groups: &Groups<'_>,
    newest: &Newest,
    waits_for: usize,
    stamp: &Stamp,
    mut plan: Plan,
) -> Plan {
    let observed = Observed {
        new: match newest.is_outdated {
            true => Count::default(),
            false => groups.new.count,
        },
        all: groups.all_count(),
        ready: groups.ready(),
        revision: &newest.revision.meta().name,
        begun: newest.begun,
        missing: newest.missing.as_deref(),
        waits_for,
    };
    let (status, deadline) = status::status(deployment, &Budget::of(spec), &observed, stamp.now);
    if deployment.status.as_ref() != Some(&status) {
        plan.draft.put_status(Deployment {
            metadata: deployment.metadata.clone(),
            status: Some(status),
            ..Deployment::default()
        });
    }
    for wait in [deadline, groups.next_available()].into_iter().flatten() {
        plan.look_again(wait);
    }
    if plan.draft.is_empty() {
        plan.draft = Draft::new();
    }
    plan
}
