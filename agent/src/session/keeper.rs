//! Saves what managers said and then lets the agent act on it, beside the session: a disk that hangs or is full holds up neither
//! acknowledgements nor reports.
//!
//! The newest assignment is the *head*. Sessions change it, and go on from it. The keeper writes it, one write at a time, and publishes
//! what is durable; what comes during a write goes with the next one. Pods are acted on when they are durable: an agent that dies in between
//! must not run a pod again whose deletion it has confirmed. Services and endpoints do not wait for a disk that is slow or full: a node
//! that sends connections to dead pods is worse than one that starts with older endpoints.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use barge_proto::v1::EventReport;
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use super::AssignmentFiles;
use crate::{
    desired::{Desired, Touched},
    events::node_reference,
    files,
    managers::Managers,
    outbox::Outbox,
};

/// Until a write that failed is tried again; doubled with each try.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A write that takes longer holds up the pods in it, and nothing else of it.
const SLOW: Duration = Duration::from_secs(1);

/// The writer. Sessions hand it what is new; [`Keeper::run`] does the rest.
pub struct Keeper {
    files: AssignmentFiles,
    cluster_id: String,
    pending: Mutex<Pending>,
    wake: Notify,
    published: watch::Sender<Arc<Desired>>,
}

/// What the disk does not have yet.
struct Pending {
    head: Arc<Desired>,
    /// Whether `head` is newer than what was published.
    is_new: bool,
    touched: Touched,
    /// The managers' addresses.
    addresses: Option<Vec<String>>,
}

impl Keeper {
    /// Keeps what this cluster assigns in `files`, and publishes it. What is published already is the first head.
    pub fn new(
        files: AssignmentFiles,
        cluster_id: String,
        published: watch::Sender<Arc<Desired>>,
    ) -> Self {
        let head = published.borrow().clone();
        Self {
            files,
            cluster_id,
            pending: Mutex::new(Pending {
                head,
                is_new: false,
                // The files may differ from what was read of them: some may not have been readable.
                touched: Touched {
                    pods: true,
                    network: true,
                    configuration: true,
                },
                addresses: None,
            }),
            wake: Notify::new(),
            published,
        }
    }

    /// The newest assignment, durable or not.
    pub fn head(&self) -> Arc<Desired> {
        self.lock().head.clone()
    }

    /// A newer assignment. `touched` says what differs from the head before.
    pub fn put(&self, next: Desired, touched: Touched) {
        let mut pending = self.lock();
        pending.head = Arc::new(next);
        pending.is_new = true;
        pending.touched.pods |= touched.pods;
        pending.touched.network |= touched.network;
        pending.touched.configuration |= touched.configuration;
        drop(pending);
        self.wake.notify_one();
    }

    /// As `put`, for deletions; returns when they are durable and published. A disk that does not take them is asked again and again.
    pub async fn bury(&self, next: Desired) {
        let deleted = next.deleted.clone();
        let mut published = self.published.subscribe();
        let touched = Touched {
            pods: true,
            ..Touched::default()
        };
        self.put(next, touched);
        // An error would be the end of the sender, which is here.
        let _ = published
            .wait_for(|desired| desired.has_left() && deleted.is_subset(&desired.deleted))
            .await;
    }

    /// The next session begins with a full set. For nobody else this is news.
    pub fn hold_nothing(&self) {
        let mut pending = self.lock();
        if pending.head.life.is_some() {
            Arc::make_mut(&mut pending.head).life = None;
        }
    }

    /// A manager said where all of them are.
    pub fn learn(&self, addresses: Vec<String>) {
        self.lock().addresses = Some(addresses);
        self.wake.notify_one();
    }

    /// Writes and publishes for as long as it is polled.
    pub async fn run(&self, managers: &Arc<dyn Managers>, outbox: &Outbox) {
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(addresses) = self.take_addresses() {
                let managers = managers.clone();
                let learn = move || {
                    managers.learned(&addresses);
                    Ok(())
                };
                if let Err(error) = files::blocking(learn).await {
                    tracing::error!(%error, "cannot keep the managers' addresses");
                }
            }
            let Some((next, touched)) = self.take() else {
                self.wake.notified().await;
                continue;
            };
            if !touched.pods {
                self.published.send_replace(next.clone());
            }
            match self.save(&next, touched).await {
                Ok(all) => {
                    if touched.pods {
                        self.published.send_replace(next);
                    }
                    if all {
                        if pause > FIRST_PAUSE {
                            tracing::info!("assignments can be saved again");
                        }
                        pause = FIRST_PAUSE;
                        continue;
                    }
                    // What comes meanwhile does not wait for it.
                    self.put_back(Touched {
                        configuration: true,
                        ..Touched::default()
                    });
                    let _ = timeout(pause, self.wake.notified()).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(error) => {
                    if pause == FIRST_PAUSE {
                        tell(outbox, &next, touched, &error);
                    }
                    self.put_back(touched);
                    let _ = timeout(pause, self.pass_on()).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn save(&self, next: &Arc<Desired>, touched: Touched) -> Result<bool, String> {
        let (files, cluster_id, saved) =
            (self.files.clone(), self.cluster_id.clone(), next.clone());
        let save = move || Ok(files.save(&cluster_id, &saved, touched));
        let meanwhile = async {
            sleep(SLOW).await;
            self.pass_on().await
        };
        let saved = tokio::select! {
            saved = files::blocking(save) => saved,
            never = meanwhile => match never {},
        };
        saved
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())
    }

    /// Publishes what need not be durable of each new head, for as long as it is polled.
    async fn pass_on(&self) -> Infallible {
        let mut told: Option<Arc<Desired>> = None;
        loop {
            let head = self.head();
            if !told.as_ref().is_some_and(|told| Arc::ptr_eq(told, &head)) {
                self.publish_network(&head);
                told = Some(head);
            }
            self.wake.notified().await;
        }
    }

    /// Publishes what is no danger to a pod when this process dies before it is saved.
    fn publish_network(&self, next: &Desired) {
        let published = self.published.borrow().clone();
        let part = Desired {
            services: next.services.clone(),
            endpoints: next.endpoints.clone(),
            serving: next.serving.clone(),
            network_revision: next.network_revision,
            peers: next.peers.clone(),
            configuration: next.configuration.clone(),
            welcome: next.welcome.clone(),
            ..Desired::clone(&published)
        };
        self.published.send_replace(Arc::new(part));
    }

    fn take_addresses(&self) -> Option<Vec<String>> {
        self.lock().addresses.take()
    }

    fn take(&self) -> Option<(Arc<Desired>, Touched)> {
        let mut pending = self.lock();
        let is_new = std::mem::take(&mut pending.is_new);
        is_new.then(|| (pending.head.clone(), std::mem::take(&mut pending.touched)))
    }

    fn put_back(&self, touched: Touched) {
        let mut pending = self.lock();
        pending.is_new = true;
        pending.touched.pods |= touched.pods;
        pending.touched.network |= touched.network;
        pending.touched.configuration |= touched.configuration;
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(outbox: &Outbox, next: &Desired, touched: Touched, error: &str) {
    let what = match touched.pods {
        true => "pods that the managers assigned or deleted since wait for that",
        false => "a start without managers would go on from older Services and endpoints",
    };
    tracing::warn!(error, "cannot save the assignment: {what}");
    if let Some(node) = next.node() {
        outbox.event(EventReport {
            involved_object: Some(node_reference(node)),
            r#type: "Warning".to_owned(),
            reason: "AssignmentNotSaved".to_owned(),
            message: format!("Cannot save what this node is to run: {error}; {what}. It is tried again every ten seconds"),
            // The leader's.
            time: None,
        });
    }
}
