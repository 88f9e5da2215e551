//! Raft's types as messages of `barge.v1`, on disk (behind a format byte) and on the wire.

use std::collections::{BTreeMap, BTreeSet};

use barge_proto::v1;
use bytes::{Buf, BufMut, Bytes};
use openraft::{EntryPayload, entry::RaftEntry as _, vote::RaftLeaderId as _};
use prost::Message;

use crate::storage::types::{
    Command, Entry, LeaderId, LogId, Membership, Node, SnapshotMeta, StoredMembership, Vote,
};

/// The first byte of every value on disk. Raised when another version would misread what is written and no feature level keeps it away: 2 since an entry of the
/// log carries several transactions.
pub const FORMAT: u8 = 2;

/// A message that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// A value of another version of this program.
    #[error("format {0} is unknown, this version reads format {FORMAT}")]
    Format(u8),
    /// Not even a format byte.
    #[error("the value is empty")]
    Empty,
    /// Not protobuf.
    #[error(transparent)]
    Decode(#[from] prost::DecodeError),
    /// A field that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A membership that Raft would not accept.
    #[error("the membership is invalid: {0}")]
    Membership(String),
}

/// Encodes a message as a value on disk.
pub fn encode(message: &impl Message) -> Vec<u8> {
    let mut value = Vec::with_capacity(1 + message.encoded_len());
    value.put_u8(FORMAT);
    // A Vec grows, so there is always room.
    message.encode_raw(&mut value);
    value
}

/// Decodes a value from disk. Byte fields of the message share the value's memory.
pub fn decode<M: Message + Default>(mut value: Bytes) -> Result<M, CodecError> {
    if value.is_empty() {
        return Err(CodecError::Empty);
    }
    match value.get_u8() {
        FORMAT => Ok(M::decode(value)?),
        other => Err(CodecError::Format(other)),
    }
}

pub fn log_id_to_proto(id: &LogId) -> v1::RaftLogId {
    v1::RaftLogId {
        term: id.leader_id.term,
        node: id.leader_id.node_id,
        index: id.index,
    }
}

pub fn log_id_from_proto(id: &v1::RaftLogId) -> LogId {
    LogId::new(LeaderId::new(id.term, id.node), id.index)
}

pub fn vote_to_proto(vote: &Vote) -> v1::RaftVote {
    v1::RaftVote {
        term: vote.leader_id.term,
        node: vote.leader_id.node_id,
        committed: vote.committed,
    }
}

pub fn vote_from_proto(vote: Option<&v1::RaftVote>) -> Result<Vote, CodecError> {
    let vote = vote.ok_or(CodecError::Missing("vote"))?;
    Ok(Vote {
        leader_id: LeaderId::new(vote.term, vote.node),
        committed: vote.committed,
    })
}

pub fn membership_to_proto(membership: &Membership) -> v1::RaftMembership {
    v1::RaftMembership {
        configs: membership
            .get_joint_config()
            .iter()
            .map(|ids| v1::RaftVoters {
                ids: ids.iter().copied().collect(),
            })
            .collect(),
        nodes: membership
            .nodes()
            .map(|(id, node)| v1::RaftNode {
                id: *id,
                address: node.address.clone(),
                uid: node.uid.clone(),
            })
            .collect(),
    }
}

pub fn membership_from_proto(membership: v1::RaftMembership) -> Result<Membership, CodecError> {
    let configs: Vec<BTreeSet<_>> = membership
        .configs
        .into_iter()
        .map(|voters| voters.ids.into_iter().collect())
        .collect();
    if configs.is_empty() && membership.nodes.is_empty() {
        return Ok(Membership::default());
    }
    let nodes: BTreeMap<_, _> = membership
        .nodes
        .into_iter()
        .map(|node| {
            (
                node.id,
                Node {
                    address: node.address,
                    uid: node.uid,
                },
            )
        })
        .collect();
    Membership::new(configs, nodes).map_err(|error| CodecError::Membership(error.to_string()))
}

pub fn entry_to_proto(entry: &Entry) -> v1::RaftEntry {
    use v1::raft_entry::Payload;
    v1::RaftEntry {
        id: Some(log_id_to_proto(&entry.log_id)),
        payload: match &entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Normal(command) => Some(Payload::Command(command.encoded().clone())),
            EntryPayload::Membership(membership) => {
                Some(Payload::Membership(membership_to_proto(membership)))
            }
        },
    }
}

pub fn entry_from_proto(entry: v1::RaftEntry) -> Result<Entry, CodecError> {
    use v1::raft_entry::Payload;
    let id = entry
        .id
        .as_ref()
        .ok_or(CodecError::Missing("the entry's id"))?;
    let payload = match entry.payload {
        None => EntryPayload::Blank,
        Some(Payload::Command(command)) => EntryPayload::Normal(Command::from_encoded(command)),
        Some(Payload::Membership(membership)) => {
            EntryPayload::Membership(membership_from_proto(membership)?)
        }
    };
    Ok(Entry::new(log_id_from_proto(id), payload))
}

/// Roughly what an entry takes in memory and on the wire, in bytes.
pub fn entry_size(entry: &Entry) -> usize {
    const OVERHEAD: usize = 64;
    OVERHEAD
        + match &entry.payload {
            EntryPayload::Normal(command) => command.encoded().len(),
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        }
}

pub fn meta_to_proto(meta: &SnapshotMeta) -> v1::RaftSnapshotMeta {
    v1::RaftSnapshotMeta {
        last_log_id: meta.last_log_id.as_ref().map(log_id_to_proto),
        membership_log_id: meta.last_membership.log_id().as_ref().map(log_id_to_proto),
        membership: Some(membership_to_proto(meta.last_membership.membership())),
    }
}

pub fn meta_from_proto(meta: v1::RaftSnapshotMeta) -> Result<SnapshotMeta, CodecError> {
    Ok(SnapshotMeta {
        last_log_id: meta.last_log_id.as_ref().map(log_id_from_proto),
        last_membership: StoredMembership::new(
            meta.membership_log_id.as_ref().map(log_id_from_proto),
            membership_from_proto(meta.membership.unwrap_or_default())?,
        ),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    fn membership() -> impl Strategy<Value = Membership> {
        let voters = proptest::collection::btree_set(1u64..9, 1..5);
        (
            proptest::collection::vec(voters, 1..3),
            proptest::collection::btree_set(10u64..20, 0..3),
        )
            .prop_map(|(configs, learners)| {
                let nodes: BTreeMap<_, _> = configs
                    .iter()
                    .flatten()
                    .chain(&learners)
                    .map(|id| {
                        (
                            *id,
                            Node {
                                address: format!("h:{id}"),
                                uid: format!("u{id}"),
                            },
                        )
                    })
                    .collect();
                Membership::new(configs, nodes).unwrap()
            })
    }

    fn payload() -> impl Strategy<Value = EntryPayload<Command, u64, Node>> {
        prop_oneof![
            Just(EntryPayload::Blank),
            proptest::collection::vec(any::<u8>(), 0..64)
                .prop_map(|bytes| EntryPayload::Normal(Command::from_encoded(bytes.into()))),
            membership().prop_map(EntryPayload::Membership),
        ]
    }

    proptest! {
        #[test]
        fn entries_survive(term: u64, node: u64, index: u64, payload in payload()) {
            let entry = Entry::new(LogId::new(LeaderId::new(term, node), index), payload);
            let value = encode(&entry_to_proto(&entry));
            let back = entry_from_proto(decode(value.into()).unwrap()).unwrap();
            prop_assert_eq!(back, entry);
        }

        #[test]
        fn garbage_is_an_error_not_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(entry) = decode::<v1::RaftEntry>(bytes.into()) {
                entry_from_proto(entry).ok();
            }
        }
    }

    #[test]
    fn another_format_is_refused() {
        let mut value = encode(&v1::RaftEntry::default());
        value[0] = FORMAT + 1;
        let error = decode::<v1::RaftEntry>(value.into()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "format 3 is unknown, this version reads format 2"
        );
    }
}
