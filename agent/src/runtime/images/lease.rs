//! Leases: what is written under one is not collected until it is given back.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use containerd_client::{
    services::v1 as api,
    tonic::{
        Status,
        metadata::{Ascii, MetadataValue},
    },
};
use jiff::Timestamp;
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use super::limits::{CALL, within};
use crate::runtime::{client::Client, error::unless_missing};

/// A pull that takes longer is lost; what a dead agent left is gone after it at the latest.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Marks our leases.
const LABEL: &str = "barge.io/pull";

/// A lease of ours.
#[derive(Debug, Clone)]
pub struct Lease {
    id: String,
    header: MetadataValue<Ascii>,
    /// Downloads under it: one may go on for another pull after this lease's own pull has ended.
    users: TaskTracker,
}

impl Lease {
    /// Takes a lease.
    pub async fn take(client: &Client) -> Result<Self, Status> {
        let id = format!("barge-{}", uuid::Uuid::new_v4());
        let header = id
            .parse()
            .map_err(|_| Status::internal("a lease's id is no header"))?;
        let expire = Timestamp::try_from(SystemTime::now() + LONGEST)
            .map_err(|error| Status::internal(error.to_string()))?;
        let request = api::CreateRequest {
            id: id.clone(),
            labels: HashMap::from([
                ("containerd.io/gc.expire".to_owned(), format!("{expire:.0}")),
                // containerd does not keep a label without a value.
                (LABEL.to_owned(), "true".to_owned()),
            ]),
        };
        let mut leases = client.services().leases();
        within(CALL, leases.create(client.request(request))).await?;
        Ok(Self {
            id,
            header,
            users: TaskTracker::new(),
        })
    }

    /// One that is there already.
    #[cfg(test)]
    pub fn named(id: &str) -> Option<Self> {
        Some(Self {
            id: id.to_owned(),
            header: id.parse().ok()?,
            users: TaskTracker::new(),
        })
    }

    /// Keeps the lease from being given back for as long as the token lives.
    pub fn in_use(&self) -> TaskTrackerToken {
        self.users.token()
    }

    /// For requests whose results it should keep.
    pub fn header(&self) -> &MetadataValue<Ascii> {
        &self.header
    }

    /// Which one it is.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Keeps something that is there already. Whether it is there has to be asked afterwards.
    pub async fn keep(&self, client: &Client, kind: &str, id: &str) -> Result<(), Status> {
        let request = api::AddResourceRequest {
            id: self.id.clone(),
            resource: Some(api::Resource {
                id: id.to_owned(),
                r#type: kind.to_owned(),
            }),
        };
        let mut leases = client.services().leases();
        within(CALL, leases.add_resource(client.request(request))).await?;
        Ok(())
    }

    /// Gives it back, once nothing uses it any more. Returns at once when something still does.
    pub async fn give_back(self, client: &Client) -> Result<(), Status> {
        self.users.close();
        if self.users.is_empty() {
            return delete(client, self.id).await;
        }
        let client = client.clone();
        tokio::spawn(async move {
            self.users.wait().await;
            // It expires.
            if let Err(error) = delete(&client, self.id).await {
                tracing::warn!(%error, "cannot give back the lease of a pull");
            }
        });
        Ok(())
    }
}

/// Gives back all leases of ours: those of an agent that died in the middle of a pull.
pub async fn sweep(client: &Client) -> Result<(), Status> {
    let request = api::ListRequest {
        filters: vec![format!("labels.\"{LABEL}\"")],
    };
    let mut leases = client.services().leases();
    let list = within(CALL, leases.list(client.request(request))).await?;
    let list = list.into_inner();
    for lease in list.leases {
        // It expires. A disk that is full keeps no agent from starting.
        if let Err(error) = delete(client, lease.id).await {
            tracing::warn!(%error, "cannot give back a lease of an earlier pull");
        }
    }
    Ok(())
}

async fn delete(client: &Client, id: String) -> Result<(), Status> {
    let request = api::DeleteRequest { id, sync: false };
    let mut leases = client.services().leases();
    unless_missing(within(CALL, leases.delete(client.request(request))).await)?;
    Ok(())
}
