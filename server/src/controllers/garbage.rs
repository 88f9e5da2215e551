//! The garbage sweep: records whose owner is gone, pods of removed nodes, old events and answers to requests, expired tokens.
//!
//! Removing a record also removes the records that it owns, and removing a node removes its pods, so the sweep finds next
//! to nothing of these; it is there for records that were written at the same moment. It reads
//! the state in pages, so it holds the lock for a short time only.

#[cfg(test)]
mod tests;

use super::{
    Context,
    guard::catch,
    nodes::remove_lost,
    plan::Plan,
    pods,
    propose::{Proposed, propose},
    replica::Replica,
    stamp::{self, Stamp},
};
use crate::store::heads::Heads;
use barge_proto::v1::{
    Deployment, Endpoints, Node, OwnerReference, PodRecord, ReplicaSet, Revision, Service,
    TokenRecord, change::Change,
};
use barge_state::{Kind, ORDER, PackedPod, State};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;

/// For principals and metrics.
pub const NAME: &str = "garbage";
/// The pause between sweeps.
const PAUSE: Duration = Duration::from_secs(30);
/// Records looked at in one go.
const PAGE: usize = 500;
/// How long events are kept.
const EVENT_AGE: Duration = Duration::from_secs(3600);
/// How long answers to requests are kept: no client repeats a request after that.
const REQUEST_AGE: Duration = Duration::from_secs(300);

/// What a page of a sweep is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Pods whose owners or whose node are gone.
    Pods,
    /// Templates whose owners are gone and that no pod is made from.
    Revisions,
    /// Endpoints without their Service.
    Endpoints,
    /// Tokens that have expired.
    Tokens,
    /// Events that are older than their time.
    Events,
    /// Answers to requests that are older than a revision.
    Requests(u64),
}

impl Part {
    /// Whether there may be more where a page was, because a transaction takes a bounded number.
    fn repeats(self) -> bool {
        matches!(self, Self::Events | Self::Requests(_))
    }
}

const PARTS: [Part; 5] = [
    Part::Pods,
    Part::Revisions,
    Part::Endpoints,
    Part::Tokens,
    Part::Events,
];

/// Where a page ended: namespace and name.
pub type Position = (String, String);

/// Sweeps from time to time, until cancelled or deposed.
pub async fn run<R: Replica>(replica: R, context: Context) {
    let work = async {
        let mut heads = Heads::new(REQUEST_AGE);
        loop {
            let revision = replica.read(State::revision);
            let old = heads.note(context.stamps.monotonic(), revision);
            for part in PARTS.into_iter().chain([Part::Requests(old)]) {
                let mut position = None;
                loop {
                    let mut stamp = Stamp::new(context.stamps.now(), context.stamps.seed());
                    let after = position.take();
                    let look = |state: &State| catch(|| page(state, part, after.as_ref(), &stamp));
                    let (plan, next) = match replica.read(look) {
                        Ok(page) => page,
                        // The other parts are swept all the same.
                        Err(panicked) => {
                            tracing::error!(?part, %panicked, "a sweep failed");
                            context.meters.panicked(NAME);
                            break;
                        }
                    };
                    let draft = plan.draft;
                    let proposed = propose(&replica, &context, NAME, draft, &mut stamp).await;
                    let applied = matches!(proposed, Proposed::Applied(_));
                    match proposed {
                        Proposed::Applied(_) => {}
                        Proposed::Deposed => return,
                        // The next sweep finds it again.
                        Proposed::Refused(refusal) => {
                            tracing::warn!(refusal = refusal.message, "a sweep was refused");
                        }
                        Proposed::Failed(error) | Proposed::Unanswered(error) => {
                            tracing::warn!(error, "propose a sweep");
                        }
                    }
                    if next.is_none() || (part.repeats() && !applied) {
                        break;
                    }
                    position = next;
                    tokio::task::yield_now().await;
                }
            }
            sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = context.cancel.cancelled() => {}
        () = work => {}
    }
}

/// Looks at one page of one part, and says where the next begins.
pub fn page(
    state: &State,
    part: Part,
    after: Option<&Position>,
    stamp: &Stamp,
) -> (Plan, Option<Position>) {
    let mut plan = Plan::default();
    let next = match part {
        Part::Pods => each::<PodRecord>(state, after, |pod| stray(state, pod, &mut plan)),
        Part::Revisions => each::<Revision>(state, after, |revision| {
            let unused = state.pods_of(revision.uid()).next().is_none();
            if unused && is_orphan(state, &revision.meta().owner_references) {
                plan.draft.remove::<Revision>(revision.uid());
            }
        }),
        Part::Endpoints => each::<Endpoints>(state, after, |endpoints| {
            if is_orphan(state, &endpoints.meta().owner_references) {
                plan.draft.remove::<Endpoints>(endpoints.uid());
            }
        }),
        Part::Tokens => each::<TokenRecord>(state, after, |token| {
            let now = stamp::nanos(&stamp.now);
            if token.expires.is_some_and(|at| stamp::nanos(&at) <= now) {
                plan.draft.remove::<TokenRecord>(token.uid());
            }
        }),
        Part::Events => {
            let limit = stamp::before(&stamp.now, EVENT_AGE);
            state.has_events_before(limit).then(|| {
                plan.draft.change(Change::ForgetEventsBefore(limit));
                Position::default()
            })
        }
        Part::Requests(before) => {
            let is_old = state.oldest_request().is_some_and(|oldest| oldest < before);
            (is_old && state.feature_level() >= ORDER).then(|| {
                plan.draft.change(Change::ForgetRequestsBefore(before));
                Position::default()
            })
        }
    };
    (plan, next)
}

fn each<K: Kind>(
    state: &State,
    after: Option<&Position>,
    mut look: impl FnMut(&Arc<K::Kept>),
) -> Option<Position> {
    let after = after.map(|(namespace, name)| (namespace.as_str(), name.as_str()));
    let mut last = None;
    let mut seen = 0;
    for record in state.list_after::<K>(None, after).take(PAGE) {
        look(record);
        last = Some(record);
        seen += 1;
    }
    let last = K::stored(last.filter(|_| seen == PAGE)?.clone());
    Some((last.namespace().to_owned(), last.name().to_owned()))
}

fn stray(state: &State, pod: &Arc<PackedPod>, plan: &mut Plan) {
    if pod.is_bound() && state.by_uid::<Node>(pod.node_uid()).is_none() {
        // No agent will report that it ended.
        remove_lost(pod, "NodeGone", plan);
    } else if is_orphan(state, pod.owners()) && !pods::is_terminating(pod) {
        plan.draft.terminate(pod.uid(), "OwnerGone");
    }
}

/// Whether a record has owners and none of them is there.
fn is_orphan(state: &State, owners: &[OwnerReference]) -> bool {
    !owners.is_empty()
        && owners.iter().all(|owner| {
            let uid = &owner.uid;
            match owner.kind.as_str() {
                "Deployment" => state.by_uid::<Deployment>(uid).is_none(),
                "ReplicaSet" => {
                    state.by_uid::<ReplicaSet>(uid).is_none()
                        && state.by_uid::<Revision>(uid).is_none()
                }
                "Service" => state.by_uid::<Service>(uid).is_none(),
                "Revision" => state.by_uid::<Revision>(uid).is_none(),
                "Pod" => state.by_uid::<PodRecord>(uid).is_none(),
                "Node" => state.by_uid::<Node>(uid).is_none(),
                // A kind that this version doesn't know may be there for all it knows.
                _ => false,
            }
        })
}
