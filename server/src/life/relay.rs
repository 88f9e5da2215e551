//! From the agents of this manager to the leader: signs in batches, the newest of each node.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use barge_client::channel::root_cause;
use barge_proto::v1::{
    LifeAnswer, LifeSign, RelayLifeRequest, RelayedSign, life_client::LifeClient,
};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use self::silence::{News, Silence};
use crate::{error::ApiError, net::Dialer, store::Store};

mod silence;

/// How long signs are gathered before they go: of thousands of agents each signs every half second.
const GATHER: Duration = Duration::from_millis(20);
/// For the leader to answer; an agent without an answer signs again anyway.
const ANSWER: Duration = Duration::from_secs(1);
/// Requests on their way: one that is not answered does not hold up the next.
const IN_FLIGHT: usize = 4;
/// Signs in one request.
const BATCH: usize = 2048;

/// A sign that waits for its answer.
#[derive(Debug)]
pub struct Waiting {
    sign: LifeSign,
    at: Instant,
    answers: watch::Sender<LifeAnswer>,
}

impl Waiting {
    /// A sign that was received now.
    #[must_use]
    pub fn new(sign: LifeSign, answers: watch::Sender<LifeAnswer>) -> Self {
        Self {
            sign,
            at: Instant::now(),
            answers,
        }
    }

    /// What the agent sent.
    #[must_use]
    pub fn sign(&self) -> &LifeSign {
        &self.sign
    }

    /// When it was received.
    #[must_use]
    pub fn at(&self) -> Instant {
        self.at
    }

    /// Passes the leader's answer on, unless the agent has that to a later sign.
    pub fn answer(&self, answer: &LifeAnswer) {
        let sequence = self.sign.sequence;
        self.answers.send_if_modified(|last| {
            let newer = last.sequence < sequence;
            if newer {
                *last = LifeAnswer {
                    sequence,
                    ..*answer
                };
            }
            newer
        });
    }
}

/// The way of signs to the leader. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Relay(Arc<Pending>);

#[derive(Debug, Default)]
struct Pending {
    /// By node: as many as there are agents connected here.
    signs: Mutex<HashMap<String, Waiting>>,
    there: Notify,
}

impl Relay {
    /// Starts to relay, until `stop`.
    #[must_use]
    pub fn start(store: Store, dialer: Dialer, stop: CancellationToken) -> Self {
        let relay = Self(Arc::default());
        let run = relay.clone().run(store, dialer);
        tokio::spawn(async move { stop.run_until_cancelled(run).await });
        relay
    }

    /// Takes a sign of a node, in place of an earlier one that has not gone yet.
    pub fn hand(&self, node_uid: &str, sign: Waiting) {
        self.lock().insert(node_uid.to_owned(), sign);
        self.0.there.notify_one();
    }

    async fn run(self, store: Store, dialer: Dialer) {
        let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
        let silence = Silence::default();
        loop {
            self.0.there.notified().await;
            sleep(GATHER).await;
            // Never closed.
            let Ok(permit) = in_flight.clone().acquire_owned().await else {
                return;
            };
            let batch = self.take();
            if batch.is_empty() {
                continue;
            }
            let (store, dialer, silence) = (store.clone(), dialer.clone(), silence.clone());
            tokio::spawn(async move {
                let sent = send(&store, &dialer, &batch).await;
                tell(
                    silence.note(sent.is_ok(), Instant::now()),
                    &store,
                    sent.as_ref().err(),
                );
                if let Ok(answer) = sent {
                    batch.iter().for_each(|(_, sign)| sign.answer(&answer));
                }
                drop(permit);
            });
        }
    }

    fn take(&self) -> Vec<(String, Waiting)> {
        let mut signs = self.lock();
        if signs.len() <= BATCH {
            return signs.drain().collect();
        }
        self.0.there.notify_one();
        let some: Vec<_> = signs.keys().take(BATCH).cloned().collect();
        some.into_iter()
            .filter_map(|uid| signs.remove_entry(&uid))
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Waiting>> {
        self.0.signs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs that the leader takes no signs, once, and that it does again.
fn tell(news: Option<News>, store: &Store, error: Option<&Status>) {
    match (news, error) {
        (Some(News::Silent), Some(error)) => {
            let leader = store.led_by().map(|(_, address)| address);
            tracing::warn!(
                leader,
                error = root_cause(error),
                "no leader takes the life signs of this manager's agents, which look for another manager. A leader of a version without life signs \
                 takes none: upgrade it, or have an upgraded manager lead"
            );
        }
        (Some(News::Answered), _) => tracing::info!("the leader takes life signs again"),
        _ => {}
    }
}

async fn send(
    store: &Store,
    dialer: &Dialer,
    batch: &[(String, Waiting)],
) -> Result<LifeAnswer, Status> {
    let Some((term, address)) = store.led_by() else {
        return Err(ApiError::NoQuorum("no manager leads".to_owned()).into());
    };
    let channel = dialer
        .channel(&address)
        .map_err(|error| ApiError::Internal(error.to_string()))?;
    let now = Instant::now();
    let signs = batch.iter().map(|(node_uid, waiting)| {
        let age = now.saturating_duration_since(waiting.at);
        RelayedSign {
            node_uid: node_uid.clone(),
            sign: Some(waiting.sign.clone()),
            age_ms: u32::try_from(age.as_millis()).unwrap_or(u32::MAX),
        }
    });
    let request = RelayLifeRequest {
        signs: signs.collect(),
    };
    let mut client = LifeClient::new(channel);
    let mut leadership = store.leadership();
    tokio::select! {
        answer = timeout(ANSWER, client.relay(request)) => match answer {
            Ok(answer) => answer?.into_inner().answer.ok_or_else(|| Status::internal("an answer without content")),
            Err(_) => Err(Status::deadline_exceeded("the leader did not answer in time")),
        },
        // The next leader has to hear of the nodes soon.
        _ = leadership.wait_for(|now| now.leader.is_some() && now.term > term) => {
            Err(Status::aborted("another manager leads now"))
        }
    }
}
