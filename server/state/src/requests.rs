//! What makes a client's mutation apply at most once, however often it is sent.
//!
//! A request id is a nonce and the newest revision that the client had seen when it made it. Answers of
//! applied requests are remembered, the newest [`crate::limits::REQUESTS`] of them. When some are forgotten
//! the floor rises above their revisions, and an unknown id from below the floor is refused: it may be one of
//! those. An id from above the floor that is unknown was never applied, because it would have been applied at
//! a revision that its client had not yet seen.

use std::collections::{BTreeMap, BTreeSet};

use barge_proto::v1::{
    Outcome, Refusal, RefusalReason, RememberedRequest, RequestRecord, StateMeta,
};

use crate::apply::refusal;

/// What a transaction changed in the memory of requests, to be written to the disk with its records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestChanges {
    /// The answer that is remembered from now on.
    pub remembered: Option<RememberedRequest>,
    /// Nonces of the answers that are forgotten.
    pub forgotten: Vec<Vec<u8>>,
}

/// Answered requests, by nonce and by age.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requests {
    by_nonce: BTreeMap<Vec<u8>, RememberedRequest>,
    by_revision: BTreeSet<(u64, Vec<u8>)>,
    floor: u64,
}

impl Requests {
    /// What was remembered before a restart.
    pub fn restore(meta: StateMeta) -> Requests {
        let mut requests = Requests {
            floor: meta.request_floor,
            ..Requests::default()
        };
        for request in meta.requests {
            requests.insert(request);
        }
        requests
    }

    /// All answers, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &RememberedRequest> {
        self.by_revision
            .iter()
            .filter_map(|(_, nonce)| self.by_nonce.get(nonce))
    }

    /// The revision below which unknown ids are refused.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The earlier answer to a request; absent when it is new and may be applied.
    ///
    /// # Errors
    /// A refusal when the id was used for another request, or may have been forgotten.
    pub fn check(
        &self,
        request: &RequestRecord,
        principal: &str,
        revision: u64,
    ) -> Result<Option<Outcome>, Refusal> {
        if let Some(known) = self.by_nonce.get(&request.nonce) {
            if known.principal != principal || known.body_sha256 != request.body_sha256 {
                return Err(refusal(
                    RefusalReason::RequestReused,
                    "the request id was used for another request",
                ));
            }
            return Ok(Some(Outcome {
                revision: known.revision,
                refusal: None,
                binds: known.binds.clone(),
                repeated_request: true,
            }));
        }
        let seen = request.seen_revision;
        if request.nonce.is_empty() {
            Err(refusal(
                RefusalReason::Invalid,
                "the request id has no nonce",
            ))
        } else if seen < self.floor {
            Err(refusal(
                RefusalReason::RequestExpired,
                format!(
                    "the request was made at revision {seen}; answers are remembered after {} only",
                    self.floor
                ),
            ))
        } else if seen > revision {
            // It could not be told from one that was forgotten later.
            Err(refusal(
                RefusalReason::Invalid,
                format!("the request was made at revision {seen}, which is still to come"),
            ))
        } else {
            Ok(None)
        }
    }

    /// Remembers the answer to a request, and forgets the oldest ones above `limit`.
    pub fn remember(
        &mut self,
        request: &RequestRecord,
        principal: &str,
        outcome: &Outcome,
        limit: usize,
    ) -> RequestChanges {
        let remembered = RememberedRequest {
            nonce: request.nonce.clone(),
            principal: principal.to_owned(),
            body_sha256: request.body_sha256.clone(),
            revision: outcome.revision,
            binds: outcome.binds.clone(),
        };
        self.insert(remembered.clone());
        let mut forgotten = Vec::new();
        while self.by_revision.len() > limit {
            let Some((revision, nonce)) = self.by_revision.pop_first() else {
                break;
            };
            self.by_nonce.remove(&nonce);
            self.floor = revision + 1;
            forgotten.push(nonce);
        }
        RequestChanges {
            remembered: Some(remembered),
            forgotten,
        }
    }

    fn insert(&mut self, request: RememberedRequest) {
        self.by_revision
            .insert((request.revision, request.nonce.clone()));
        self.by_nonce.insert(request.nonce.clone(), request);
    }
}
