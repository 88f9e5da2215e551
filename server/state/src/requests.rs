//! Request ids: with them a client's mutation is applied at most once, however often it is sent.
//!
//! A request id is a nonce and the newest revision that the client had seen when it made it. Answers of
//! applied requests are remembered, the newest [`crate::limits::REQUESTS`] of them. When some are forgotten
//! the floor rises above their revisions, and an unknown id from below the floor is refused: it may be one of
//! those. An id from above the floor that is unknown was never applied, because it would have been applied at
//! a revision that its client had not yet seen.
//!
//! No client retries for minutes, so the leader proposes to forget answers that are minutes old, a slice at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

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

/// The answer to a request, under its nonce.
#[derive(Clone, Debug, PartialEq)]
struct Answer {
    revision: u64,
    /// Shared by all answers to one caller.
    principal: Arc<str>,
    body_sha256: Box<[u8]>,
    binds: Box<[String]>,
}

/// Answered requests, by nonce and by age.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requests {
    by_nonce: BTreeMap<Arc<[u8]>, Answer>,
    by_revision: BTreeSet<(u64, Arc<[u8]>)>,
    floor: u64,
    /// About what all of them take in memory.
    bytes: usize,
    principals: BTreeSet<Arc<str>>,
}

/// What an allocation takes besides what it is asked for, and a tree besides its entries: it is about three quarters full.
const ALLOCATION: usize = 16;
const IN_TREES: usize = (size_of::<(Arc<[u8]>, Answer)>() + size_of::<(u64, Arc<[u8]>)>()) * 4 / 3;

impl Answer {
    /// About what it takes in memory, with its nonce, in bytes.
    fn size(&self, nonce: &[u8]) -> usize {
        let binds = self.binds.iter();
        let binds: usize = binds.map(|why| size_of::<String>() + why.len()).sum();
        IN_TREES + nonce.len() + self.body_sha256.len() + 2 * ALLOCATION + binds
    }
}

impl Requests {
    /// What was remembered before a restart.
    pub fn restore(meta: StateMeta) -> Requests {
        let mut requests = Requests {
            floor: meta.request_floor,
            ..Requests::default()
        };
        for request in meta.requests {
            requests.insert(&request);
        }
        requests
    }

    /// All answers, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = RememberedRequest> + use<'_> {
        self.by_revision.iter().filter_map(|(_, nonce)| {
            let answer = self.by_nonce.get(nonce)?;
            Some(RememberedRequest {
                nonce: nonce.to_vec(),
                principal: answer.principal.as_ref().to_owned(),
                body_sha256: answer.body_sha256.to_vec(),
                revision: answer.revision,
                binds: answer.binds.to_vec(),
            })
        })
    }

    /// The revision below which unknown ids are refused.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The revision of the oldest answer.
    pub fn oldest(&self) -> Option<u64> {
        self.by_revision.first().map(|(revision, _)| *revision)
    }

    /// How many answers there are, and about how many bytes they take in memory.
    pub fn size(&self) -> (usize, usize) {
        (self.by_nonce.len(), self.bytes)
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
        if let Some(known) = self.by_nonce.get(request.nonce.as_slice()) {
            if *known.principal != *principal || *known.body_sha256 != *request.body_sha256 {
                return Err(refusal(
                    RefusalReason::RequestReused,
                    "the request id was used for another request",
                ));
            }
            return Ok(Some(Outcome {
                revision: known.revision,
                refusal: None,
                binds: known.binds.to_vec(),
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

    /// Remembers the answer to a request, and forgets the oldest ones above `limit`: answers what is remembered, and the nonces of
    /// what is forgotten.
    pub fn remember(
        &mut self,
        request: &RequestRecord,
        principal: &str,
        outcome: &Outcome,
        limit: usize,
    ) -> (RememberedRequest, Vec<Vec<u8>>) {
        let remembered = RememberedRequest {
            nonce: request.nonce.clone(),
            principal: principal.to_owned(),
            body_sha256: request.body_sha256.clone(),
            revision: outcome.revision,
            binds: outcome.binds.clone(),
        };
        self.insert(&remembered);
        let mut forgotten = Vec::new();
        while self.by_revision.len() > limit {
            forgotten.extend(self.forget_oldest());
        }
        (remembered, forgotten)
    }

    /// Forgets answers that are older than a revision, the oldest first, at most so many, and tells their nonces.
    pub fn forget_before(&mut self, revision: u64, most: usize) -> Vec<Vec<u8>> {
        let mut forgotten = Vec::new();
        while forgotten.len() < most && self.oldest().is_some_and(|oldest| oldest < revision) {
            forgotten.extend(self.forget_oldest());
        }
        forgotten
    }

    fn forget_oldest(&mut self) -> Option<Vec<u8>> {
        let (revision, nonce) = self.by_revision.pop_first()?;
        if let Some(answer) = self.by_nonce.remove(&nonce) {
            self.bytes -= answer.size(&nonce);
            // The caller's last one.
            if Arc::strong_count(&answer.principal) == 2 {
                self.principals.remove(&answer.principal);
            }
        }
        self.floor = revision + 1;
        Some(nonce.to_vec())
    }

    fn insert(&mut self, request: &RememberedRequest) {
        let nonce: Arc<[u8]> = request.nonce.as_slice().into();
        let principal = match self.principals.get(request.principal.as_str()) {
            Some(known) => known.clone(),
            None => {
                let new: Arc<str> = request.principal.as_str().into();
                self.principals.insert(new.clone());
                new
            }
        };
        let answer = Answer {
            revision: request.revision,
            principal,
            body_sha256: request.body_sha256.as_slice().into(),
            binds: request.binds.as_slice().into(),
        };
        self.bytes += answer.size(&nonce);
        self.by_revision.insert((request.revision, nonce.clone()));
        self.by_nonce.insert(nonce, answer);
    }
}
