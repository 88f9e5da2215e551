//! containerd's records of images: which of them a pull made, and their removal.

use std::collections::HashMap;

use containerd_client::{
    services::v1::{DeleteImageRequest, ListImagesRequest},
    tonic::Status,
};

use super::limits::{CALL, within};
use crate::runtime::{StoredImage, client::Client, error::unless_missing};

/// Marks the records that pulls made: a registry has what they name. Its value is the record's own name, because whoever gives an image a
/// second name in containerd copies the labels.
pub const LABEL: &str = "barge.io/pulled";

/// The labels of a record that a pull makes.
pub fn labels(name: &str) -> HashMap<String, String> {
    HashMap::from([(LABEL.to_owned(), name.to_owned())])
}

/// The images that pulls made.
pub async fn list(client: &Client) -> Result<Vec<StoredImage>, Status> {
    let request = ListImagesRequest {
        filters: vec![format!("labels.\"{LABEL}\"")],
    };
    let mut images = client.services().images();
    let list = within(CALL, images.list(client.look(request))).await?;
    let records = list.into_inner().images.into_iter();
    let pulled = records.filter(|record| record.labels.get(LABEL) == Some(&record.name));
    let stored = pulled.map(|record| StoredImage {
        name: record.name,
        pulled_at_ms: record.updated_at.map_or(0, |at| {
            let of_a_second = i64::from(at.nanos) / 1_000_000;
            at.seconds.saturating_mul(1000).saturating_add(of_a_second)
        }),
    });
    Ok(stored.collect())
}

/// Removes a record, and waits until containerd has collected what nothing else needs.
pub async fn remove(client: &Client, name: &str) -> Result<(), Status> {
    let request = DeleteImageRequest {
        name: name.to_owned(),
        sync: true,
        ..DeleteImageRequest::default()
    };
    let mut images = client.services().images();
    unless_missing(within(CALL, images.delete(client.request(request))).await)?;
    Ok(())
}
