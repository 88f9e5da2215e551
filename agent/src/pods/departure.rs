//! When nobody sends a pod new connections any more.
//!
//! A pod whose deletion is recorded leaves the Endpoints at once, and each node takes it out of its rules when it hears of that. The node of the pod sees in its own
//! assignment at which revision the pod left, and learns with each life sign up to which revision the rules of all live nodes are.

use std::sync::Arc;

use tokio::sync::watch;

use crate::desired::{Desired, Place};

/// Tells when pods of this node have left the rules of all nodes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Departures {
    desired: watch::Receiver<Arc<Desired>>,
    /// The revision that the rules of all live nodes have, as far as is known.
    everywhere: watch::Receiver<u64>,
}

impl Departures {
    /// Compares where pods are in an assignment with the revision that all live nodes have in their rules.
    pub fn new(desired: watch::Receiver<Arc<Desired>>, everywhere: watch::Receiver<u64>) -> Self {
        Self {
            desired,
            everywhere,
        }
    }

    /// Returns when no live node sends this pod new connections; at once for a pod that no Service selects. It may never return: a node may be unable to change
    /// its rules, and no manager may answer.
    pub async fn left(&self, pod_uid: &str) {
        let (mut desired, mut everywhere) = (self.desired.clone(), self.everywhere.clone());
        let left = desired.wait_for(|desired| desired.serving.place(pod_uid) != Place::Serves);
        let left = left.await;
        let place = left.map(|desired| desired.serving.place(pod_uid));
        let is_known = match place {
            Ok(Place::Left(revision)) => {
                let known = everywhere.wait_for(|known| *known >= revision);
                known.await.is_ok()
            }
            place => place.is_ok(),
        };
        if !is_known {
            // The agent ends.
            std::future::pending().await
        }
    }
}
