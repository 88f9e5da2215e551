//! What the names of images stand for in containerd, and who may use them.

use std::{collections::HashMap, sync::Arc};

use containerd_client::{
    services::v1::{CreateImageRequest, GetImageRequest, Image as Record, UpdateImageRequest},
    tonic::{Code, Status},
    types,
};
use prost_types::FieldMask;
use tokio::sync::Semaphore;

use super::{
    limits::{CALL, within},
    mark::{self, Before, Mark},
    name::Name,
    stored,
    ways::Ticket,
};
use crate::runtime::{client::Client, error::unless_missing};

/// The records of images. Cheap to clone.
#[derive(Clone)]
pub struct Records {
    client: Client,
    /// One change at a time: it depends on what the record was before.
    changes: Arc<Semaphore>,
}

impl Records {
    /// Those of a containerd.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            changes: Arc::new(Semaphore::new(1)),
        }
    }

    /// What a name stands for; `None` when it is not here.
    pub async fn get(&self, name: &Name) -> Result<Option<Record>, Status> {
        let request = GetImageRequest {
            name: name.to_string(),
        };
        let mut images = self.client.services().images();
        let answer = within(CALL, images.get(self.client.request(request))).await;
        Ok(unless_missing(answer)?.and_then(|answer| answer.into_inner().image))
    }

    /// From here on the name stands for an image that was pulled by a ticket, and keeps all of it.
    pub async fn put(
        &self,
        name: &Name,
        target: types::Descriptor,
        ticket: Option<&Ticket>,
    ) -> Result<(), Status> {
        // The semaphore is never closed, so an error cannot be.
        let _turn = self.changes.acquire().await.ok();
        let before = self.get(name).await?;
        let label = label_after(name, before.as_ref(), &target.digest, ticket);
        let mut labels = stored::labels(&name.to_string());
        labels.insert(mark::LABEL.to_owned(), label);
        let record = Record {
            name: name.to_string(),
            labels,
            target: Some(target),
            ..Record::default()
        };
        if before.is_none() {
            // One without a value is none.
            let mut record = record.clone();
            record.labels.retain(|_, value| !value.is_empty());
            let create = CreateImageRequest {
                image: Some(record),
                ..CreateImageRequest::default()
            };
            let mut images = self.client.services().images();
            match within(CALL, images.create(self.client.request(create))).await {
                Err(status) if status.code() == Code::AlreadyExists => {}
                answer => return answer.map(drop),
            }
        }
        self.update(
            record,
            &[
                "target".to_owned(),
                label_path(stored::LABEL),
                label_path(mark::LABEL),
            ],
        )
        .await
    }

    /// Notes that the registry gave an image, which is here, also by this ticket.
    pub async fn admit(
        &self,
        name: &Name,
        digest: &str,
        ticket: Option<&Ticket>,
    ) -> Result<(), Status> {
        // The semaphore is never closed, so an error cannot be.
        let _turn = self.changes.acquire().await.ok();
        let Some(before) = self.get(name).await? else {
            return Ok(());
        };
        if before
            .target
            .as_ref()
            .is_none_or(|target| target.digest != digest)
        {
            return Ok(());
        }
        let label = label_after(name, Some(&before), digest, ticket);
        let known = before.labels.get(mark::LABEL);
        if known.map_or("", String::as_str) == label {
            return Ok(());
        }
        let record = Record {
            name: name.to_string(),
            labels: HashMap::from([(mark::LABEL.to_owned(), label)]),
            ..Record::default()
        };
        self.update(record, &[label_path(mark::LABEL)]).await
    }

    /// Changes some fields of a record. A label without a value goes.
    async fn update(&self, record: Record, paths: &[String]) -> Result<(), Status> {
        let update = UpdateImageRequest {
            image: Some(record),
            update_mask: Some(FieldMask {
                paths: paths.to_vec(),
            }),
            ..UpdateImageRequest::default()
        };
        let mut images = self.client.services().images();
        let updated = within(CALL, images.update(self.client.request(update)));
        updated.await.map(drop)
    }
}

/// Who may use the image of a record; `None`: every pod.
pub fn mark_of(record: &Record) -> Option<Mark> {
    let target = record.target.as_ref()?;
    Mark::of(&record.name, &target.digest, &record.labels)
}

fn label_after(
    name: &Name,
    before: Option<&Record>,
    digest: &str,
    ticket: Option<&Ticket>,
) -> String {
    let before = before.and_then(|record| {
        Some(Before {
            digest: &record.target.as_ref()?.digest,
            labels: &record.labels,
        })
    });
    mark::after(&name.to_string(), before, digest, ticket, mark::salt())
}

fn label_path(label: &str) -> String {
    format!("labels.{label}")
}
