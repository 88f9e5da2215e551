//! The leader's end of the relay: records a sign and answers it.

use std::time::Duration;

use barge_proto::v1::{LifeAnswer, LifeSign};
use tokio::time::Instant;

use super::Heard;
use crate::{error::ApiError, security::auth::Machines, store::Store};

/// A leader that no majority has acknowledged for as long may have been deposed without knowing it. It goes on to take notes, but
/// answers nobody, so that agents look for the manager who leads now.
const QUORUM: Duration = Duration::from_secs(1);

/// Answers while this manager leads. Cheap to clone.
#[derive(Clone)]
pub(super) struct Leader {
    pub store: Store,
    pub machines: Machines,
    pub heard: Heard,
    pub node_grace: Duration,
}

impl Leader {
    /// Notes signs, each with the time at which a manager received it, and answers all of them. The answer's sequence is 0.
    ///
    /// # Errors
    /// NOT_LEADER when this manager does not lead, NO_QUORUM when it may not lead any more; in the latter case the signs were noted.
    pub fn hear<'a>(
        &self,
        signs: impl Iterator<Item = (&'a str, &'a LifeSign, Instant)>,
    ) -> Result<LifeAnswer, ApiError> {
        let not_leader = || ApiError::NotLeader { leader: None };
        // From Raft itself: what follows it elsewhere may be held up.
        let term = self.store.leads_in().ok_or_else(not_leader)?;
        let now = Instant::now();
        let mut leading = None;
        for (node_uid, sign, at) in signs {
            if self.machines.has_node(node_uid) {
                leading = Some(
                    self.heard
                        .hear(term, node_uid, sign, at, now)
                        .ok_or_else(not_leader)?,
                );
            }
        }
        if self.heard.count() > self.machines.nodes() {
            self.heard.retain(|uid| self.machines.has_node(uid));
        }
        let leading = leading.ok_or_else(|| {
            ApiError::NotFound("none of these nodes belongs to the cluster".to_owned())
        })?;
        if self.store.silence() > QUORUM {
            let message = "this manager has not been acknowledged by a majority for a while";
            return Err(ApiError::NoQuorum(message.to_owned()));
        }
        Ok(LifeAnswer {
            sequence: 0,
            term,
            stamp: u64::try_from(leading.as_millis()).unwrap_or(u64::MAX),
            revision: self.store.applied_revision(),
            // No node has more than what there is, whatever it says.
            programmed_revision: self
                .heard
                .programmed(self.machines.nodes(), self.node_grace, now)
                .min(self.store.applied_revision()),
            node_grace_ms: u32::try_from(self.node_grace.as_millis()).unwrap_or(u32::MAX),
        })
    }
}
