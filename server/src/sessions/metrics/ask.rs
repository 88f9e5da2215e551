//! Asks agents what their pods and machines take: many at a time, and none for long.

use std::{collections::HashMap, sync::Arc, time::Duration};

use barge_proto::v1::{
    AgentAnswer, AgentMetricsRequest, AgentMetricsResponse, AgentQuestion, AskMetricsRequest,
    OpenStream, open_stream::What, session_client::SessionClient,
};
use futures::{
    StreamExt,
    stream::{FuturesUnordered, iter},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};

use super::{
    super::{Sessions, Tunnels},
    parts,
};
use crate::{error::ApiError, net::Dialer, store::Store};

/// Agents that this manager asks at a time, for all who want to know together: few of the streams that may be waited for.
const AT_A_TIME: usize = 64;
/// For an agent to answer.
pub const AGENT: Duration = Duration::from_secs(3);
/// For all agents to answer; those whose turn has not come by then are not asked.
const ALL: Duration = Duration::from_secs(8);
/// For another manager to answer: what it takes itself, and the way.
const MANAGER: Duration = Duration::from_secs(9);
/// The longest answer of an agent. One about 500 containers has 40 kB.
const LONGEST: usize = 4 << 20;
/// The longest answer of a manager.
const LONGEST_OF_ALL: usize = 32 << 20;

/// What an agent answered, or in words what it did instead.
pub type Answer = Result<AgentMetricsResponse, String>;

/// Asks agents. Cheap to clone.
#[derive(Clone)]
pub struct Asker {
    store: Store,
    sessions: Sessions,
    tunnels: Tunnels,
    dialer: Dialer,
    advertise: String,
    turns: Arc<Semaphore>,
}

impl Asker {
    /// Asks those that are connected here by `sessions`, and managers at other addresses than `advertise` for the others.
    #[must_use]
    pub fn new(
        store: Store,
        sessions: Sessions,
        tunnels: Tunnels,
        dialer: Dialer,
        advertise: String,
    ) -> Self {
        Self {
            store,
            sessions,
            tunnels,
            dialer,
            advertise,
            turns: Arc::new(Semaphore::new(AT_A_TIME)),
        }
    }

    /// An answer for each question, by the node's uid.
    pub async fn ask(&self, questions: Vec<AgentQuestion>) -> HashMap<String, Answer> {
        let (here, elsewhere): (Vec<_>, Vec<_>) = questions
            .into_iter()
            .partition(|question| self.sessions.has(&question.node_uid));
        let (here, elsewhere) = tokio::join!(self.here(here), self.elsewhere(elsewhere));
        let mut answers = elsewhere;
        answers.extend(here.into_iter().map(answered));
        answers
    }

    /// Asks the agents that are connected here; the others are left out.
    pub async fn here(&self, questions: Vec<AgentQuestion>) -> Vec<AgentAnswer> {
        let deadline = Instant::now() + ALL;
        let asked = questions
            .into_iter()
            .filter(|question| self.sessions.has(&question.node_uid))
            .map(|question| async move {
                let answer = match timeout_at(deadline, self.turns.acquire()).await {
                    Ok(_turn) => self.within(&question, deadline).await,
                    Err(_) => Err(format!(
                        "was not asked: others took all of {} s",
                        ALL.as_secs()
                    )),
                };
                let (response, error) = match answer {
                    Ok(response) => (Some(response), String::new()),
                    Err(error) => (None, error),
                };
                AgentAnswer {
                    node_uid: question.node_uid,
                    response,
                    error,
                }
            });
        iter(asked).buffer_unordered(AT_A_TIME).collect().await
    }

    async fn within(&self, question: &AgentQuestion, deadline: Instant) -> Answer {
        let until = deadline.min(Instant::now() + AGENT);
        let request = question.request.clone().unwrap_or_default();
        let asked = self.one(&question.node_uid, request);
        match timeout_at(until, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("did not answer within {} s", AGENT.as_secs())),
        }
    }

    /// Asks an agent.
    async fn one(&self, node_uid: &str, request: AgentMetricsRequest) -> Answer {
        let refused = |error: ApiError| format!("was not asked: {error}");
        let mut expected = self.tunnels.expect(node_uid).map_err(refused)?;
        let open = OpenStream {
            stream_id: expected.stream_id.clone(),
            what: Some(What::Metrics(request)),
        };
        self.sessions.open_stream(node_uid, open).map_err(refused)?;
        let mut tunnel = expected.arrived().await.map_err(refused)?;
        let mut bytes = Vec::new();
        loop {
            let broke = |_| "broke off its answer".to_owned();
            let Some(chunk) = tunnel.chunks.message().await.map_err(broke)? else {
                break;
            };
            if !chunk.error.is_empty() {
                return Err(format!("does not tell: {}", chunk.error));
            }
            if bytes.len() + chunk.data.len() > LONGEST {
                return Err(format!("answers with more than {LONGEST} bytes"));
            }
            bytes.extend(chunk.data);
        }
        parts::decode(&bytes)
    }

    /// Has all other managers ask those of these agents that are connected to them: one call each for all questions.
    async fn elsewhere(&self, questions: Vec<AgentQuestion>) -> HashMap<String, Answer> {
        let mut answers = HashMap::new();
        if questions.is_empty() {
            return answers;
        }
        let mut asked = FuturesUnordered::new();
        for address in self.store.addresses() {
            if address != self.advertise {
                asked.push(self.manager(address, questions.clone()));
            }
        }
        while let Some(of_one) = asked.next().await {
            for (node_uid, answer) in of_one.into_iter().map(answered) {
                // An agent that changed managers meanwhile may be silent at one and answer at the other.
                if answer.is_ok() || !answers.contains_key(&node_uid) {
                    answers.insert(node_uid, answer);
                }
            }
        }
        for question in questions {
            answers
                .entry(question.node_uid)
                .or_insert_with(|| Err("is not connected to any manager that answers".to_owned()));
        }
        answers
    }

    async fn manager(&self, address: String, questions: Vec<AgentQuestion>) -> Vec<AgentAnswer> {
        let channel = match self.dialer.channel(&address) {
            Ok(channel) => channel,
            Err(error) => {
                tracing::warn!(%error, address, "a manager's address is none");
                return Vec::new();
            }
        };
        let mut client = SessionClient::new(channel).max_decoding_message_size(LONGEST_OF_ALL);
        let request = AskMetricsRequest { questions };
        match timeout(MANAGER, client.ask_metrics(request)).await {
            Ok(Ok(response)) => return response.into_inner().answers,
            Ok(Err(status)) => {
                tracing::debug!(%status, address, "a manager did not ask its agents")
            }
            Err(_) => tracing::debug!(address, "a manager did not answer in time"),
        }
        Vec::new()
    }
}

fn answered(answer: AgentAnswer) -> (String, Answer) {
    let result = match answer.response {
        Some(response) => Ok(response),
        None => Err(answer.error),
    };
    (answer.node_uid, result)
}
