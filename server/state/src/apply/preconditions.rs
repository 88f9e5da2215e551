//! Preconditions: a transaction is refused as a whole unless the state meets all of them.

use barge_proto::v1::{Precondition, RecordRef, Refusal, RefusalReason, precondition::Must};

use crate::{
    apply::refusal,
    kind::{RecordKind, Stored},
    state::State,
};

/// Checks one precondition.
///
/// # Errors
/// A refusal that names the target and what is the case instead.
pub fn check(state: &State, precondition: &Precondition) -> Result<(), Refusal> {
    let target = precondition.target.clone().unwrap_or_default();
    if RecordKind::from_number(target.kind).is_none() {
        return Err(refusal(RefusalReason::Invalid, "a precondition on no kind"));
    }
    let found = state.find(&target);
    let problem = match &precondition.must {
        None => Some((
            RefusalReason::Invalid,
            "is named in a precondition without a demand".into(),
        )),
        Some(Must::Absent(true)) | Some(Must::Exists(false)) => {
            found.map(|_| (RefusalReason::Exists, "exists already".to_owned()))
        }
        Some(must) => match found {
            None => Some((RefusalReason::NotFound, "does not exist".to_owned())),
            Some(found) => unmet(state, &found, must).map(|why| (RefusalReason::Conflict, why)),
        },
    };
    match problem {
        None => Ok(()),
        Some((reason, why)) => {
            let message = format!("{} {why}", describe(&target));
            Err(Refusal {
                target: Some(target),
                ..refusal(reason, message)
            })
        }
    }
}

fn unmet(state: &State, found: &Stored, must: &Must) -> Option<String> {
    let meta = found.meta();
    match must {
        Must::Uid(uid) if *uid != meta.uid => Some(format!(
            "is another one now: its uid is {}, not {uid}",
            meta.uid
        )),
        Must::Generation(generation) if *generation != meta.generation => Some(format!(
            "has changed: its generation is {}, not {generation}",
            meta.generation
        )),
        Must::Revision(revision) if revision.to_string() != meta.resource_version => Some(format!(
            "has changed: its resource version is {}, not {revision}",
            meta.resource_version
        )),
        Must::Made(made) => {
            let Some(kind) = RecordKind::from_number(made.kind) else {
                return Some("is named in a demand about no kind".to_owned());
            };
            let latest = state.tables.latest_plan(kind, found.uid());
            // Nothing is left of what any plan made: what comes now is not beside anything.
            (latest != made.plan && latest != 0).then(|| {
                format!(
                    "has got others of kind {} meanwhile: the latest are of plan {latest:x}, and plan {:x} was known",
                    kind.name(),
                    made.plan
                )
            })
        }
        _ => None,
    }
}

/// Names a record for people: "Deployment default/web".
pub fn describe(target: &RecordRef) -> String {
    let kind = RecordKind::from_number(target.kind).map_or("record", RecordKind::name);
    match (target.namespace.as_str(), target.name.as_str()) {
        (_, "") => format!("{kind} with uid {}", target.uid),
        ("", name) => format!("{kind} {name}"),
        (namespace, name) => format!("{kind} {namespace}/{name}"),
    }
}
