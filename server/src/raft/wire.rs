//! Raft's requests and answers as messages.

use barge_proto::v1::{self, raft_append_response::Result as AppendReply};

use crate::storage::{
    codec::{
        CodecError, entry_from_proto, entry_to_proto, log_id_from_proto, log_id_to_proto,
        vote_from_proto, vote_to_proto,
    },
    types::{
        AppendError, AppendRequest, AppendResult, LogId, RaftId, TransferError, TransferRequest,
        TransferResponse, VoteRequest, VoteResponse,
    },
};

fn id_to_proto(id: &Option<LogId>) -> Option<v1::RaftLogId> {
    id.as_ref().map(log_id_to_proto)
}

fn id_from_proto(id: &Option<v1::RaftLogId>) -> Option<LogId> {
    id.as_ref().map(log_id_from_proto)
}

pub fn append_to_proto(to: RaftId, request: &AppendRequest) -> v1::RaftAppendRequest {
    v1::RaftAppendRequest {
        to,
        vote: Some(vote_to_proto(&request.vote)),
        previous: id_to_proto(&request.prev_log_id),
        entries: request.entries.iter().map(entry_to_proto).collect(),
        leader_commit: id_to_proto(&request.leader_commit),
    }
}

pub fn append_from_proto(request: v1::RaftAppendRequest) -> Result<AppendRequest, CodecError> {
    Ok(AppendRequest {
        vote: vote_from_proto(request.vote.as_ref())?,
        prev_log_id: id_from_proto(&request.previous),
        entries: request
            .entries
            .into_iter()
            .map(entry_from_proto)
            .collect::<Result<_, _>>()?,
        leader_commit: id_from_proto(&request.leader_commit),
    })
}

pub fn append_result_to_proto(result: &AppendResult) -> v1::RaftAppendResponse {
    let result = match result {
        Ok(matched) => AppendReply::Matched(v1::RaftMatched {
            id: id_to_proto(matched),
        }),
        Err(AppendError::Conflict(id)) => AppendReply::Conflict(log_id_to_proto(id)),
        Err(AppendError::HigherVote(vote)) => AppendReply::HigherVote(vote_to_proto(vote)),
    };
    v1::RaftAppendResponse {
        result: Some(result),
    }
}

pub fn append_result_from_proto(
    response: v1::RaftAppendResponse,
) -> Result<AppendResult, CodecError> {
    Ok(
        match response
            .result
            .ok_or(CodecError::Missing("the result of an append"))?
        {
            AppendReply::Matched(matched) => Ok(id_from_proto(&matched.id)),
            AppendReply::Conflict(id) => Err(AppendError::Conflict(log_id_from_proto(&id))),
            AppendReply::HigherVote(vote) => {
                Err(AppendError::HigherVote(vote_from_proto(Some(&vote))?))
            }
        },
    )
}

pub fn vote_request_to_proto(to: RaftId, request: &VoteRequest) -> v1::RaftVoteRequest {
    v1::RaftVoteRequest {
        to,
        vote: Some(vote_to_proto(&request.vote)),
        last_log_id: id_to_proto(&request.last_log_id),
        leadership_transfer: request.leadership_transfer,
    }
}

pub fn vote_request_from_proto(request: &v1::RaftVoteRequest) -> Result<VoteRequest, CodecError> {
    // Not by `VoteRequest::new`, which forgets who asked for the election.
    Ok(VoteRequest {
        vote: vote_from_proto(request.vote.as_ref())?,
        last_log_id: id_from_proto(&request.last_log_id),
        leadership_transfer: request.leadership_transfer,
    })
}

pub fn vote_response_to_proto(response: &VoteResponse) -> v1::RaftVoteResponse {
    v1::RaftVoteResponse {
        vote: Some(vote_to_proto(&response.vote)),
        granted: response.vote_granted,
        last_log_id: id_to_proto(&response.last_log_id),
    }
}

pub fn vote_response_from_proto(
    response: &v1::RaftVoteResponse,
) -> Result<VoteResponse, CodecError> {
    Ok(VoteResponse {
        vote: vote_from_proto(response.vote.as_ref())?,
        vote_granted: response.granted,
        last_log_id: id_from_proto(&response.last_log_id),
    })
}

pub fn transfer_to_proto(to: RaftId, request: &TransferRequest) -> v1::RaftTransferRequest {
    v1::RaftTransferRequest {
        to,
        from_leader: Some(vote_to_proto(request.from_leader())),
        target: *request.to_node_id(),
        last_log_id: request.last_log_id().map(log_id_to_proto),
    }
}

pub fn transfer_from_proto(
    request: &v1::RaftTransferRequest,
) -> Result<TransferRequest, CodecError> {
    Ok(TransferRequest::new(
        vote_from_proto(request.from_leader.as_ref())?,
        request.target,
        id_from_proto(&request.last_log_id),
    ))
}

pub fn transfer_response_to_proto(response: &TransferResponse) -> v1::RaftTransferResponse {
    let Err(error) = response else {
        return v1::RaftTransferResponse::default();
    };
    let (vote, flushed) = match error {
        TransferError::VoteChanged { actual, .. } => (Some(vote_to_proto(actual)), None),
        TransferError::LogNotFlushed { actual, .. } => (None, id_to_proto(actual)),
    };
    v1::RaftTransferResponse {
        refusal: error.to_string(),
        vote,
        flushed,
    }
}

pub fn transfer_response_from_proto(
    request: &TransferRequest,
    response: &v1::RaftTransferResponse,
) -> Result<TransferResponse, CodecError> {
    if response.refusal.is_empty() {
        return Ok(Ok(()));
    }
    Ok(Err(match &response.vote {
        Some(vote) => TransferError::VoteChanged {
            expected: *request.from_leader(),
            actual: vote_from_proto(Some(vote))?,
        },
        None => TransferError::LogNotFlushed {
            expected: request.last_log_id().copied(),
            actual: id_from_proto(&response.flushed),
        },
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use openraft::vote::RaftLeaderId as _;

    use super::*;
    use crate::storage::types::{LeaderId, Vote};

    fn id(index: u64) -> LogId {
        LogId::new(LeaderId::new(3, 2), index)
    }

    #[test]
    fn a_vote_says_who_asked_for_it() {
        for leadership_transfer in [false, true] {
            let request = VoteRequest {
                vote: Vote::new(4, 1),
                last_log_id: Some(id(9)),
                leadership_transfer,
            };
            let sent = vote_request_to_proto(7, &request);
            assert_eq!(sent.to, 7);
            assert_eq!(vote_request_from_proto(&sent).unwrap(), request);
        }
    }

    #[test]
    fn answers_to_appends_survive() {
        for result in [
            Ok(None),
            Ok(Some(id(0))),
            Err(AppendError::Conflict(id(5))),
            Err(AppendError::HigherVote(Vote::new_committed(8, 3))),
        ] {
            let back = append_result_from_proto(append_result_to_proto(&result)).unwrap();
            assert_eq!(back, result);
        }
    }

    #[test]
    fn refusals_of_a_transfer_survive() {
        let request = TransferRequest::new(Vote::new_committed(3, 2), 1, Some(id(9)));
        for response in [
            Ok(()),
            Err(TransferError::VoteChanged {
                expected: Vote::new_committed(3, 2),
                actual: Vote::new(4, 3),
            }),
            Err(TransferError::LogNotFlushed {
                expected: Some(id(9)),
                actual: None,
            }),
        ] {
            let sent = transfer_response_to_proto(&response);
            assert_eq!(
                transfer_response_from_proto(&request, &sent).unwrap(),
                response
            );
        }
    }
}
