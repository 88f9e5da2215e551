//! Which token a caller gets: a pure function of the state, the request and the clock.

use barge_proto::{
    accounts,
    v1::{BoundPod, Node, PodRecord, RequestTokenRequest},
};
use barge_state::{Kind, PackedPod, State};

use super::{
    Claims,
    claims::{Bound, Named},
    holder::Account,
};
use crate::error::ApiError;

/// The namespace of requests that name none.
const NAMESPACE: &str = "default";
/// Seconds that a token lives: at least, unless the request says something, at most.
const LIFE: (u64, u64, u64) = (600, 3600, 24 * 3600);
/// Audiences, and bytes of each.
const AUDIENCES: (usize, usize) = (16, 512);
/// The part of its life after which a token should have been replaced.
const WARN_PERCENT: i64 = 80;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub enum Asker<'a> {
    /// The agent of the node with this uid.
    Agent(&'a str),
    /// Somebody who may make tokens of the account.
    User,
}

/// Namespace and name of the account that a request is about.
#[must_use]
pub fn account_of(request: &RequestTokenRequest) -> (&str, &str) {
    let namespace = match request.namespace.as_str() {
        "" => NAMESPACE,
        namespace => namespace,
    };
    match request.name.as_str() {
        "" => (namespace, accounts::DEFAULT),
        name => (namespace, name),
    }
}

/// The claims of the token that was asked for, but for its id.
///
/// # Errors
/// INVALID for what no token has; NOT_FOUND when the account or the pod is not there; DENIED for an agent that asks for what is not its own;
/// PRECONDITION for a pod that has ended.
pub fn claims(
    state: &State,
    request: &RequestTokenRequest,
    asker: Asker<'_>,
    issuer: &str,
    now: i64,
) -> Result<Claims, ApiError> {
    let seconds = life(request.expiration_seconds)?;
    let aud = audiences(&request.audiences, issuer)?;
    let (namespace, name) = account_of(request);
    let pod = match &request.bound_pod {
        Some(bound) => Some(pod(state, namespace, name, bound, asker)?),
        None if matches!(asker, Asker::Agent(_)) => {
            let rule = "an agent gets tokens for pods only: name one";
            return Err(ApiError::invalid("bound_pod", rule));
        }
        None => None,
    };
    let account = Account::find(state, namespace, name)?;
    let node = pod.and_then(|pod| state.by_uid::<Node>(pod.node_uid()));
    Ok(Claims {
        aud,
        exp: now.saturating_add(seconds),
        iat: now,
        iss: issuer.to_owned(),
        jti: String::new(),
        sub: account.identity().user,
        bound: Bound {
            namespace: account.namespace,
            node: node.map(|node| Named {
                name: node.meta().name.clone(),
                uid: node.uid().to_owned(),
            }),
            pod: pod.map(|pod| Named {
                name: pod.name().to_owned(),
                uid: pod.uid().to_owned(),
            }),
            serviceaccount: account.named,
            warnafter: Some(now.saturating_add(seconds.saturating_mul(WARN_PERCENT) / 100)),
        },
        nbf: now,
    })
}

fn life(asked: u64) -> Result<i64, ApiError> {
    let (least, usual, most) = LIFE;
    let seconds = if asked == 0 { usual } else { asked };
    match i64::try_from(seconds) {
        Ok(life) if (least..=most).contains(&seconds) => Ok(life),
        _ => Err(ApiError::invalid(
            "expiration_seconds",
            format!("{asked}: between {least} (10 minutes) and {most} (a day) is possible"),
        )),
    }
}

fn audiences(asked: &[String], issuer: &str) -> Result<Vec<String>, ApiError> {
    let (most, bytes) = AUDIENCES;
    if asked.is_empty() {
        return Ok(vec![issuer.to_owned()]);
    }
    if asked.len() > most {
        let rule = format!("{}: at most {most} are possible", asked.len());
        return Err(ApiError::invalid("audiences", rule));
    }
    for audience in asked {
        if audience.is_empty() || audience.len() > bytes || audience.contains(char::is_control) {
            let rule = format!("{audience:?}: 1 to {bytes} bytes on one line are expected");
            return Err(ApiError::invalid("audiences", rule));
        }
    }
    let mut audiences = asked.to_vec();
    audiences.sort();
    audiences.dedup();
    Ok(audiences)
}

/// The pod that a token is to be bound to.
fn pod<'a>(
    state: &'a State,
    namespace: &str,
    account: &str,
    bound: &BoundPod,
    asker: Asker<'_>,
) -> Result<&'a PackedPod, ApiError> {
    let shown = format!("pod {namespace}/{}", bound.name);
    let pod = match bound.uid.as_str() {
        "" => state.get::<PodRecord>(namespace, &bound.name),
        uid => state.by_uid::<PodRecord>(uid),
    };
    let same = pod.filter(|pod| pod.namespace() == namespace && pod.name() == bound.name);
    let pod = same.ok_or_else(|| match bound.uid.as_str() {
        "" => ApiError::NotFound(format!("{shown} does not exist")),
        uid => ApiError::NotFound(format!("{shown} of uid {uid} does not exist")),
    })?;
    if let Asker::Agent(node_uid) = asker {
        if bound.uid.is_empty() {
            let rule = "an agent says which incarnation of the pod it means";
            return Err(ApiError::invalid("bound_pod.uid", rule));
        }
        if pod.node_uid() != node_uid {
            return Err(ApiError::Denied(format!(
                "{shown} is not on the node {node_uid}: an agent gets tokens for pods of its own node only"
            )));
        }
    }
    let template = state.template(pod).and_then(|it| it.template.as_ref());
    let spec = template.and_then(|it| it.spec.as_ref());
    let its = spec.map_or(accounts::DEFAULT, accounts::of_pod);
    if its != account {
        return Err(ApiError::Denied(format!(
            "{shown} has the service account {its}: no token of {account} is bound to it"
        )));
    }
    match pod.phase() {
        phase @ ("Succeeded" | "Failed") => Err(ApiError::Precondition(format!(
            "{shown} has ended ({phase}), and gets no tokens any more"
        ))),
        _ => Ok(pod),
    }
}

#[cfg(test)]
mod tests;
