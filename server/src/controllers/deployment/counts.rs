//! How many pods of each revision there are and should be: what a revision shows as a ReplicaSet. The plan itself goes by none of these.

use super::{groups::Groups, rollout::Steps};
use crate::controllers::{
    plan::Plan,
    replicas::{
        group::{Group, Step},
        number,
    },
};
use barge_proto::v1::{ClusterRecord, Revision, RevisionStatus};
use barge_state::{Changed, Kind, REPLICA_SETS};
use std::{collections::BTreeMap, sync::Arc};

/// Whether revisions have counts from this change on.
pub fn begin(changed: &Changed) -> bool {
    let level = |it: Option<&Arc<ClusterRecord>>| it.map_or(0, |it| it.feature_level);
    let (before, after) = changed.of::<ClusterRecord>();
    level(before) < REPLICA_SETS && level(after) >= REPLICA_SETS
}

/// Adds the counts that changed. `wanted` are the steps with the places that finished pods hold for a while: these pods are wanted, too.
pub fn put(
    revisions: &[&Arc<Revision>],
    newest: &Revision,
    groups: &Groups<'_>,
    wanted: &Steps,
    plan: &mut Plan,
) {
    let old = groups.old.iter().zip(&wanted.old);
    let old = old.filter_map(|(group, step)| Some((group.revision?.uid(), count(group, step))));
    let mut counts: BTreeMap<_, _> = old.collect();
    counts.insert(newest.uid(), count(&groups.new, &wanted.new));
    let is_new = !revisions.iter().any(|it| it.uid() == newest.uid());
    let known = revisions.iter().map(|revision| &***revision);
    for revision in known.chain(is_new.then_some(newest)) {
        // Those that never had pods need no counts.
        let now = counts.get(revision.uid()).copied().unwrap_or_default();
        if revision.status.unwrap_or_default() != now {
            plan.draft.put_status(Revision {
                metadata: revision.metadata.clone(),
                status: Some(now),
                ..Revision::default()
            });
        }
    }
}

fn count(group: &Group<'_>, wanted: &Step) -> RevisionStatus {
    let (total, ended) = (
        group.count.total,
        wanted.end_unavailable + wanted.end_available,
    );
    RevisionStatus {
        desired: number((total + wanted.create).saturating_sub(ended)),
        replicas: number(total),
        ready: number(group.ready),
        available: number(group.count.available),
    }
}
