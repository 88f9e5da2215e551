//! The rights of a caller that are known before any lookup of bindings: everything, those of its bindings, or none.

use std::sync::Arc;

use barge_proto::v1::CredentialRecord;
use barge_state::State;

use crate::{
    error::ApiError,
    security::rbac::{Asked, Identity, Review, identity::is_master},
    store::Store,
};

/// What a caller may. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Access {
    /// No rights by bindings: agents and unknown callers. They may call the RPCs of their role only.
    Nothing,
    /// Everything: managers, which could issue themselves any identity, and system:masters. Needs no look at the state.
    Everything,
    /// What bindings give.
    Bound(Arc<Identity>),
}

impl Access {
    /// Of the holder of a credential.
    #[must_use]
    pub fn of(credential: &CredentialRecord) -> Self {
        match is_master(credential) {
            true => Self::Everything,
            false => Self::Bound(Arc::new(Identity::of(credential))),
        }
    }

    /// Whether there is nothing to check.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        matches!(self, Self::Everything)
    }

    /// Waits until the state has every binding that was changed before the call. What everything is allowed waits for nothing.
    ///
    /// # Errors
    /// What the store says.
    pub async fn refreshed(&self, store: &Store) -> Result<(), ApiError> {
        match self {
            Self::Bound(_) => store.read_index().await.map_err(ApiError::from),
            Self::Everything | Self::Nothing => Ok(()),
        }
    }

    /// Whether it is allowed, by a state.
    #[must_use]
    pub fn may(&self, state: &State, asked: &Asked<'_>) -> bool {
        match self {
            Self::Everything => true,
            Self::Bound(who) => Review::new(state, who).may(asked),
            Self::Nothing => false,
        }
    }

    /// Checks that all of it is allowed, by a state.
    ///
    /// # Errors
    /// DENIED, naming all that is not.
    pub fn check<'a>(
        &self,
        state: &State,
        asked: impl IntoIterator<Item = Asked<'a>>,
    ) -> Result<(), ApiError> {
        if self.is_everything() {
            return Ok(());
        }
        let asked = asked.into_iter().filter(|asked| !self.may(state, asked));
        self.refuse(asked.map(|asked| self.refusal(&asked.to_string())))
    }

    /// "alice may not patch deployments in namespace default"
    #[must_use]
    pub fn refusal(&self, what: &str) -> String {
        let user = match self {
            Self::Bound(who) => who.user.as_str(),
            Self::Everything | Self::Nothing => "the caller",
        };
        format!("{user} may not {what}")
    }

    /// One error of all sentences, each once.
    ///
    /// # Errors
    /// DENIED when there is any.
    pub fn refuse(&self, sentences: impl IntoIterator<Item = String>) -> Result<(), ApiError> {
        let mut all: Vec<String> = Vec::new();
        for sentence in sentences {
            if !all.contains(&sentence) {
                all.push(sentence);
            }
        }
        match all.is_empty() {
            true => Ok(()),
            false => Err(ApiError::Denied(all.join("; "))),
        }
    }
}
