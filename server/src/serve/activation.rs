//! Becoming a voter, and saying so when the address changed: asked for until it is so.

use std::{collections::BTreeSet, time::Duration};

use barge_client::{channel::root_cause, identity::Identity};
use barge_proto::v1::{ActivateRequest, ManagerRecord, cluster_client::ClusterClient};
use barge_state::Kind;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{net::Dialer, store::Store};

/// For one manager to make this one a voter: it has to catch up first.
const ANSWER: Duration = Duration::from_secs(65);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// Asks the managers that are known, until this one votes at its address.
pub async fn run(
    store: Store,
    dialer: Dialer,
    identity: Identity,
    advertise: String,
    stop: CancellationToken,
) {
    let work = async {
        while !is_voter(&store, &identity.uid, &advertise) {
            for address in addresses(&store, &identity, &advertise) {
                match activate(&dialer, &address, &advertise).await {
                    Ok(()) => {
                        tracing::info!("this manager votes");
                        return;
                    }
                    Err(error) => tracing::info!(manager = address, error, "not a voter yet"),
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

fn is_voter(store: &Store, uid: &str, advertise: &str) -> bool {
    let votes = store
        .status()
        .members
        .iter()
        .any(|member| member.uid == uid && member.voter && member.address == advertise);
    votes
        && store.read(|state| {
            state
                .by_uid::<ManagerRecord>(uid)
                .is_some_and(|record| record.address == advertise)
        })
}

/// The leader first, then whoever may know it.
fn addresses(store: &Store, identity: &Identity, advertise: &str) -> Vec<String> {
    let leader = store.leadership().borrow().leader.clone();
    let known = store.read(|state| {
        state
            .list::<ManagerRecord>(None)
            .filter(|record| record.uid() != identity.uid)
            .map(|record| record.address.clone())
            .collect::<Vec<_>>()
    });
    let mut seen = BTreeSet::new();
    leader
        .map(|(_, address)| address)
        .into_iter()
        .chain(known)
        .chain(identity.members.iter().cloned())
        // A leader whose address changed asks itself, at the address where it is.
        .chain([advertise.to_owned()])
        .filter(|address| seen.insert(address.clone()))
        .collect()
}

async fn activate(dialer: &Dialer, manager: &str, advertise: &str) -> Result<(), String> {
    let channel = dialer.channel(manager).map_err(|error| error.to_string())?;
    let request = ActivateRequest {
        address: advertise.to_owned(),
    };
    match timeout(ANSWER, ClusterClient::new(channel).activate(request)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) => Err(root_cause(&status)),
        Err(_) => Err(format!("no answer within {} s", ANSWER.as_secs())),
    }
}
