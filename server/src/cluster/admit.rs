//! Admitting machines: a token and a certificate request become an identity.

use std::collections::BTreeSet;

use barge_proto::v1::{
    ClusterRecord, JoinRequest, JoinResponse, ManagerRecord, ManagerRole, Node, NodeAddress,
    NodeSpec, NodeStatus, ObjectMeta, Role, TokenRecord, UseToken, change::Change as Body,
};
use barge_state::{Kind, State};
use sha2::{Digest, Sha256};

use super::{Parts, level, pod_range::next_free, previous, status::members};
use crate::{
    calls::names,
    error::ApiError,
    net::split_address,
    pki::{RequestedKey, Subject},
    runtime::clock,
    security::issue::not_ready,
    store::transaction::Draft,
};

/// Two joins at the same time may choose the same range or Raft id; each refusal means that another one got on.
const TRIES: usize = 16;

/// A host name of DNS, and a port.
const MAX_ADDRESS: usize = 253 + 6;

/// The identity of a joining machine: its subject, and the records to write; no records when they were written before.
#[derive(Debug)]
struct Admission {
    subject: Subject,
    draft: Option<Draft>,
}

/// Admits a machine: checks the token and writes its record in one transaction, then signs its certificate.
///
/// # Errors
/// TOKEN when the token is unknown, expired, used up or wrong; INVALID for a malformed request; EXISTS when a node of
/// that name lives.
pub async fn admit(parts: &Parts, request: &JoinRequest) -> Result<JoinResponse, ApiError> {
    let key = RequestedKey::from_csr(&request.csr)?;
    // What could not be signed is not begun.
    parts.issuer.keyring().key()?;
    let (token_id, secret) = request
        .token
        .split_once('-')
        .filter(|(id, secret)| !id.is_empty() && !secret.is_empty())
        .ok_or_else(|| ApiError::Token("the token is malformed".to_owned()))?;
    let secret_sha256 = Sha256::digest(secret).to_vec();
    // A leader that just began may not have applied the token yet.
    parts.store.read_index().await?;
    let mut tries = 0;
    let subject = loop {
        let admission = parts
            .store
            .read(|state| plan(state, request, token_id, &secret_sha256, &key.sha256))?;
        let Some(draft) = admission.draft else {
            break admission.subject;
        };
        let by = format!("token/{token_id}");
        let outcome = parts.store.propose(draft.build(by, None)).await?;
        match ApiError::check(outcome) {
            Ok(_) => break admission.subject,
            Err(ApiError::Conflict(message)) if tries + 1 < TRIES => {
                tracing::debug!(message, "another machine joined first");
                tries += 1;
            }
            Err(error) => return Err(error),
        }
    };
    respond(parts, subject, &key)
}

fn respond(parts: &Parts, subject: Subject, key: &RequestedKey) -> Result<JoinResponse, ApiError> {
    let issued = parts.issuer.issue(&subject, key, None)?;
    let sealing_key = match subject.role {
        Role::Manager => parts.issuer.keyring().key()?.as_bytes().to_vec(),
        _ => Vec::new(),
    };
    tracing::info!(uid = subject.uid, role = ?subject.role, "a machine joined");
    Ok(JoinResponse {
        cluster_id: subject.cluster_id,
        role: subject.role.into(),
        uid: subject.uid,
        certificate_chain: issued.certificate_chain,
        roots: issued.roots,
        members: members(&parts.store),
        raft_id: subject.raft_id.unwrap_or_default(),
        sealing_key,
    })
}

/// Decides the machine's identity by the state.
fn plan(
    state: &State,
    request: &JoinRequest,
    token_id: &str,
    secret_sha256: &[u8],
    key_sha256: &[u8],
) -> Result<Admission, ApiError> {
    let cluster = state.cluster().ok_or_else(not_ready)?;
    // The answer does not tell a wrong secret from an unknown token.
    let token = state
        .get::<TokenRecord>("", token_id)
        .filter(|token| token.secret_sha256 == secret_sha256)
        .ok_or_else(|| ApiError::Token("the token is not valid (any more)".to_owned()))?;
    let role = token.role();
    check_address(role, request)?;
    let before = token
        .used_by
        .iter()
        .find(|used| used.public_key_sha256 == key_sha256);
    let previous = previous::uid(cluster, role, request, key_sha256)?;
    let uid = match (before, &previous) {
        (Some(used), _) => used.uid.clone(),
        (None, Some(uid)) => uid.clone(),
        (None, None) => clock::new_uid(),
    };
    let mut draft = Draft::new();
    draft.change(Body::UseToken(UseToken {
        id: token_id.to_owned(),
        secret_sha256: secret_sha256.to_vec(),
        public_key_sha256: key_sha256.to_vec(),
        uid: uid.clone(),
    }));
    let mut subject = Subject {
        cluster_id: cluster.uid().to_owned(),
        role,
        uid,
        raft_id: None,
    };
    if role == Role::Manager {
        level::check(cluster, request.feature_level)?;
    }
    let known = match role {
        Role::Manager => plan_manager(
            state,
            cluster,
            request,
            key_sha256,
            &mut subject,
            &mut draft,
        ),
        _ => plan_node(state, cluster, request, &subject, &mut draft)?,
    };
    if (before.is_some() || previous.is_some()) && !known {
        return Err(ApiError::Token(
            "this machine was removed from the cluster: it joins again with a new token and an empty data folder"
                .to_owned(),
        ));
    }
    Ok(Admission {
        subject,
        // A join that is repeated changes nothing; an identity that comes back uses up its token.
        draft: before.is_none().then_some(draft),
    })
}

/// An agent's token must not make a manager's folder, nor the other way round.
fn check_address(role: Role, request: &JoinRequest) -> Result<(), ApiError> {
    match (role, request.name.is_empty()) {
        (Role::Manager, true) => {
            let address = &request.address;
            if address.len() > MAX_ADDRESS || split_address(address).is_none() {
                return Err(ApiError::invalid(
                    "address",
                    format!("{:?}: a manager's host:port is expected", request.address),
                ));
            }
        }
        (Role::Manager, false) => {
            return Err(ApiError::Precondition(
                "this token is for managers: `barge token create --role agent` makes one for agents".to_owned(),
            ));
        }
        (_, true) => {
            return Err(ApiError::Precondition(
                "this token is for agents: `barge token create --role manager` makes one for managers".to_owned(),
            ));
        }
        (_, false) => {
            if request.address.parse::<std::net::IpAddr>().is_err() {
                return Err(ApiError::invalid(
                    "address",
                    format!("{:?}: an agent's IP address is expected", request.address),
                ));
            }
        }
    }
    Ok(())
}

/// Plans a manager; true when its record is there already.
fn plan_manager(
    state: &State,
    cluster: &ClusterRecord,
    request: &JoinRequest,
    key_sha256: &[u8],
    subject: &mut Subject,
    draft: &mut Draft,
) -> bool {
    if let Some(known) = state.by_uid::<ManagerRecord>(&subject.uid) {
        subject.raft_id = Some(known.raft_id);
        return true;
    }
    let raft_id = cluster.next_raft_id;
    subject.raft_id = Some(raft_id);
    // An id is never given twice, or votes of a removed manager would count for another.
    draft.unchanged(cluster);
    draft.put(ClusterRecord {
        next_raft_id: raft_id + 1,
        ..cluster.clone()
    });
    draft.put(ManagerRecord {
        metadata: meta(&subject.uid, &subject.uid),
        raft_id,
        address: request.address.clone(),
        public_key_sha256: key_sha256.to_vec(),
        role: ManagerRole::Joining.into(),
        feature_level: request.feature_level,
        ..ManagerRecord::default()
    });
    false
}

/// Plans a node; true when its record is there already.
fn plan_node(
    state: &State,
    cluster: &ClusterRecord,
    request: &JoinRequest,
    subject: &Subject,
    draft: &mut Draft,
) -> Result<bool, ApiError> {
    if state.by_uid::<Node>(&subject.uid).is_some() {
        return Ok(true);
    }
    check_name(&request.name)?;
    if let Some(other) = state.get::<Node>("", &request.name) {
        return Err(ApiError::Exists(format!(
            "a node named {} lives (uid {}): choose another --node-name, or delete that node first",
            request.name,
            other.uid()
        )));
    }
    let all = cluster.pod_cidr.parse().map_err(|_| {
        ApiError::Internal(format!("the pod range {:?} is malformed", cluster.pod_cidr))
    })?;
    let taken: BTreeSet<_> = state
        .list::<Node>(None)
        .filter_map(|node| node.spec.as_ref()?.pod_cidr.parse().ok())
        .collect();
    let range = next_free(all, &taken).ok_or_else(|| {
        ApiError::Exhausted(format!(
            "all ranges of {} are given to nodes: delete nodes that are gone",
            cluster.pod_cidr
        ))
    })?;
    draft.absent::<Node>("", &request.name);
    draft.put(Node {
        metadata: meta(&request.name, &subject.uid),
        spec: Some(NodeSpec {
            pod_cidr: range.to_string(),
            pod_cidrs: vec![range.to_string()],
            unschedulable: false,
            taints: Vec::new(),
        }),
        status: Some(NodeStatus {
            addresses: vec![
                address("InternalIP", &request.address),
                address("Hostname", &request.name),
            ],
            ..NodeStatus::default()
        }),
        ..Node::default()
    });
    Ok(false)
}

/// The rules for the names of nodes are those of the schema.
fn check_name(name: &str) -> Result<(), ApiError> {
    let node = Node {
        metadata: meta(name, ""),
        ..Node::default()
    };
    barge_proto::validate::validate(&node.into())
        .map_err(|broken| ApiError::Invalid(names::violations("the node", broken)))
}

fn address(kind: &str, address: &str) -> NodeAddress {
    NodeAddress {
        r#type: kind.to_owned(),
        address: address.to_owned(),
    }
}

fn meta(name: &str, uid: &str) -> Option<ObjectMeta> {
    Some(ObjectMeta {
        name: name.to_owned(),
        uid: uid.to_owned(),
        ..ObjectMeta::default()
    })
}

#[cfg(test)]
mod tests;
