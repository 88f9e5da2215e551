//! Checks which manager answers at an address.

use std::time::Duration;

use barge_client::channel::root_cause;
use barge_proto::v1::RaftSpaceRequest;
use futures::future::join_all;
use tokio::time::timeout;
use tonic::Code;

use super::{Member, Store};
use crate::storage::types::RaftId;

/// How long a manager may take to say that it is there.
const ANSWER: Duration = Duration::from_secs(1);

impl Store {
    /// Looks for the manager with this Raft id at an address, on the connections that Raft uses. Takes at most a second.
    ///
    /// # Errors
    /// What is there instead, in words.
    pub async fn find(&self, id: RaftId, address: &str) -> Result<(), String> {
        let mut client = self
            .0
            .channels
            .client(address)
            .map_err(|error| root_cause(&error))?;
        // It is refused by any other manager: certificates name the cluster, and the request the manager.
        match timeout(ANSWER, client.space(RaftSpaceRequest { to: id })).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) if status.code() == Code::FailedPrecondition => {
                Err(status.message().to_owned())
            }
            Ok(Err(status)) => Err(root_cause(&status)),
            Err(_) => Err(format!("no answer within {} s", ANSWER.as_secs())),
        }
    }

    /// The voters that this manager does not reach at the moment. Takes at most a second.
    pub async fn silent_voters(&self) -> Vec<Member> {
        let members = self.status().members.into_iter();
        let others = members.filter(|member| member.voter && member.id != self.0.id);
        let asked = others.map(|member| async move {
            let silent = self.find(member.id, &member.address).await.is_err();
            silent.then_some(member)
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Whether the other voters that are reached are no majority without this one, so that nothing can be committed once it
    /// stops. Takes at most a second.
    pub async fn is_decisive(&self) -> bool {
        let silent = self.silent_voters().await.len();
        let members = self.members();
        let members = members.borrow();
        let count = members.voters.len();
        count > 1 && members.voters.contains(&self.0.id) && count - 1 < silent + count / 2 + 1
    }
}
