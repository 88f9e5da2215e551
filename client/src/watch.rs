//! Following objects: a list, then every change, across broken connections and forgotten history.

use std::collections::VecDeque;

use tonic::Streaming;

use crate::{
    client::{Client, Listing, Selection},
    error::{self, ClientError},
    v1::{ChangeType, Object, WatchResponse},
};

mod known;

use known::Known;

/// What happened to the objects of a selection.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchEvent {
    /// An object that was not there before.
    Added(Object),
    /// An object that changed.
    Modified(Object),
    /// An object that is gone, as it was last.
    Deleted(Object),
    /// Everything that was there at this revision has been told. Comes once after the first list, and again
    /// whenever it had to be listed anew.
    Synced {
        /// The revision of the list.
        revision: u64,
    },
}

/// A list that keeps itself up to date. Made by [`Client::list_and_watch`].
///
/// A connection that breaks is made again, with any manager, from the revision that was seen last. When the cluster no
/// longer has the history since then, the objects are listed anew and the differences told, so that no change of
/// state is missed; intermediate states may be.
#[derive(Debug)]
pub struct Watcher {
    client: Client,
    selection: Selection,
    known: Known,
    ready: VecDeque<WatchEvent>,
    stream: Option<Streaming<WatchResponse>>,
    /// Where to resume; `None` until it was listed.
    revision: Option<u64>,
    /// Connections in a row that broke before they said anything.
    barren: u32,
}

/// So many connections in a row may break without a message before the watch fails.
const BARREN: u32 = 10;

impl Client {
    /// Lists the objects of a selection, then follows their changes.
    #[must_use]
    pub fn list_and_watch(&self, selection: Selection) -> Watcher {
        Watcher {
            client: self.clone(),
            selection,
            known: Known::default(),
            ready: VecDeque::new(),
            stream: None,
            revision: None,
            barren: 0,
        }
    }
}

impl Watcher {
    /// The next event. Waits for one as long as it takes; safe to cancel.
    ///
    /// # Errors
    /// The watch was refused, or for the client's whole deadline no manager could serve it. Calling again tries again.
    pub async fn next(&mut self) -> Result<WatchEvent, ClientError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            self.advance().await?;
        }
    }

    /// The objects as they are now, as far as was told.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.known.objects()
    }

    /// One step: list, connect, or read a message.
    async fn advance(&mut self) -> Result<(), ClientError> {
        let Some(revision) = self.revision else {
            let Listing {
                objects, revision, ..
            } = self.list().await?;
            self.ready.extend(self.known.replace(objects));
            self.ready.push_back(WatchEvent::Synced { revision });
            self.revision = Some(revision);
            return Ok(());
        };
        let Some(stream) = &mut self.stream else {
            match self.client.watch(&self.selection, revision).await {
                Ok(stream) => self.stream = Some(stream),
                Err(error) => self.broken(error)?,
            }
            return Ok(());
        };
        match stream.message().await {
            Ok(Some(message)) => {
                self.barren = 0;
                self.take(message);
            }
            // The manager stops, or the connection broke: resume with another.
            Ok(None) => self.lost(None)?,
            Err(status) if is_expired(&status) => self.restart(),
            Err(status) => self.lost(Some(status))?,
        }
        Ok(())
    }

    async fn list(&self) -> Result<Listing, ClientError> {
        let mut listing = self.client.list_consistent(&self.selection).await?;
        if !self.selection.name.is_empty() {
            let name = &self.selection.name;
            listing.objects.retain(|object| object.name() == name);
        }
        Ok(listing)
    }

    fn take(&mut self, message: WatchResponse) {
        self.client.saw(message.revision);
        // Several changes can carry one revision only as one message; resuming after it skips nothing.
        self.revision = Some(message.revision.max(self.revision.unwrap_or(0)));
        let kind = message.r#type();
        let Some(object) = message.object else { return };
        let event = match kind {
            ChangeType::Deleted => self.known.remove(object),
            ChangeType::Added | ChangeType::Modified => self.known.upsert(object),
            ChangeType::Bookmark | ChangeType::Unspecified => None,
        };
        self.ready.extend(event);
    }

    /// A refusal to begin the watch.
    fn broken(&mut self, error: ClientError) -> Result<(), ClientError> {
        if error.reason() == Some("EXPIRED") {
            self.restart();
            return Ok(());
        }
        Err(error)
    }

    fn lost(&mut self, status: Option<tonic::Status>) -> Result<(), ClientError> {
        self.stream = None;
        self.barren += 1;
        match status {
            Some(status) if !error::may_resume(&status) || self.barren > BARREN => {
                Err(status.into())
            }
            None if self.barren > BARREN => Err(ClientError::Answer("a lasting stream")),
            _ => {
                self.client.rotate();
                Ok(())
            }
        }
    }

    fn restart(&mut self) {
        self.stream = None;
        self.revision = None;
    }
}

fn is_expired(status: &tonic::Status) -> bool {
    error::reason(status).is_some_and(|(reason, _)| reason == "EXPIRED")
}
