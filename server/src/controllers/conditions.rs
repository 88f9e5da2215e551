//! Reading and setting conditions by Kubernetes' rules.

use barge_proto::v1::{Condition, Time};

/// The condition of that type.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.r#type == kind)
}

/// Whether the condition of that type is there and `True`.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status == "True")
}

/// Sets a condition; the time of its last transition changes only with its status. Returns whether
/// anything that a reader would care about (status, reason, message) changed; if not, the old one
/// stays as it is.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Time,
) -> bool {
    let old = conditions
        .iter()
        .position(|condition| condition.r#type == kind);
    let mut transition = now;
    if let Some(condition) = old.map(|at| &conditions[at]) {
        if condition.status == status && condition.reason == reason && condition.message == message
        {
            return false;
        }
        if condition.status == status {
            transition = condition.last_transition_time.unwrap_or(now);
        }
    }
    let new = Condition {
        r#type: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: Some(transition),
        last_update_time: Some(now),
        ..Condition::default()
    };
    match old {
        Some(at) => conditions[at] = new,
        None => conditions.push(new),
    }
    true
}
