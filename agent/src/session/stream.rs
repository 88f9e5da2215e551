//! One session with one manager.

use std::{fmt, sync::Arc, time::Duration};

use barge_proto::v1::{
    AgentMessage, Assignment, EventReport, Held, Hello, ManagerMessage, Welcome,
    agent_message::Message, manager_message, session_client::SessionClient,
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use super::{
    Session,
    parts::{LARGEST_SET, Parts},
};
use crate::{
    desired::{Desired, Refused, Touched},
    events::{node_reference, pod_reference},
    managers::cause,
    outbox::Dropped,
};

/// For the manager's first word.
const GREETING: Duration = Duration::from_secs(10);
/// Messages on their way to the manager; a report that finds it full waits.
const OUTGOING: usize = 16;
/// An assignment of a large node, with all Services, from a manager that does not send it in parts.
const LARGEST_MESSAGE: usize = LARGEST_SET;

/// Why a session ended.
#[derive(Debug)]
pub enum Ended {
    /// No session came about.
    Unreachable(String),
    /// The manager, or the connection to it.
    Status {
        /// What it said.
        status: Status,
        /// Whether it had welcomed this node before.
        welcome: bool,
    },
    /// The manager closed the stream.
    Closed,
    /// What the manager sent must not be acted on.
    Refused(Refused),
}

impl Ended {
    /// Whether a session had begun.
    pub fn was_welcome(&self) -> bool {
        match self {
            Self::Status { welcome, .. } => *welcome,
            Self::Closed => true,
            Self::Unreachable(_) | Self::Refused(_) => false,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(message) => f.write_str(message),
            Self::Status { status, .. } => write!(f, "{}: {}", status.code(), cause(status)),
            Self::Closed => f.write_str("the manager closed it"),
            Self::Refused(refused) => write!(f, "its assignment was refused: {refused}"),
        }
    }
}

/// Holds a session until it ends.
pub async fn hold(session: &Session, address: &str, channel: Channel) -> Ended {
    let (outgoing, messages) = mpsc::channel(OUTGOING);
    let present = session.keeper.head();
    let held = present.held();
    let hello = Message::Hello(Hello {
        cluster_id: session.options.cluster_id.clone(),
        acted_revision: present.revision,
        status: Some(session.options.node.borrow().clone()),
        takes_parts: true,
        held: held.clone(),
        pod_level: barge_proto::level::NEWEST,
        configuration: match held {
            Some(_) => present.configuration.held(),
            // It is told of all.
            None => Vec::new(),
        },
    });
    drop(present);
    if send(&outgoing, hello).await.is_err() {
        return Ended::Closed;
    }
    let mut client = SessionClient::new(channel)
        .max_decoding_message_size(LARGEST_MESSAGE)
        .max_encoding_message_size(LARGEST_MESSAGE);
    let connect = client.connect(ReceiverStream::new(messages));
    let incoming = match timeout(GREETING, connect).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => {
            return Ended::Status {
                status,
                welcome: false,
            };
        }
        Err(_) => return Ended::Unreachable("no answer in time".to_owned()),
    };
    session.options.outbox.restart();
    let (began, begin) = watch::channel(false);
    let mut listener = Listener {
        session,
        address,
        began,
        held,
        has_base: false,
        parts: Parts::default(),
        welcome: false,
    };
    tokio::select! {
        ended = listener.listen(incoming) => ended,
        // The other half of a broken stream: the listener knows why.
        () = speak(session, &outgoing, begin) => Ended::Closed,
    }
}

async fn send(outgoing: &mpsc::Sender<AgentMessage>, message: Message) -> Result<(), ()> {
    let message = AgentMessage {
        message: Some(message),
    };
    outgoing.send(message).await.map_err(|_| ())
}

/// Sends reports, from Welcome on: what is said earlier is said to somebody who may not be able to take it.
async fn speak(
    session: &Session,
    outgoing: &mpsc::Sender<AgentMessage>,
    mut begin: watch::Receiver<bool>,
) {
    let outbox = &session.options.outbox;
    if begin.wait_for(|began| *began).await.is_err() {
        return std::future::pending().await;
    }
    loop {
        outbox.ready().await;
        let Some(report) = outbox.take() else {
            continue;
        };
        if send(outgoing, Message::Report(report)).await.is_err() {
            // The listener is about to learn why.
            return std::future::pending().await;
        }
        // There may be more.
        outbox.poke();
    }
}

struct Listener<'a> {
    session: &'a Session,
    address: &'a str,
    began: watch::Sender<bool>,
    /// What Hello said.
    held: Option<Held>,
    has_base: bool,
    parts: Parts,
    welcome: bool,
}

impl Listener<'_> {
    async fn listen(&mut self, mut incoming: Streaming<ManagerMessage>) -> Ended {
        loop {
            let message = if self.welcome {
                incoming.message().await
            } else {
                match timeout(GREETING, incoming.message()).await {
                    Ok(message) => message,
                    Err(_) => return Ended::Unreachable("no welcome in time".to_owned()),
                }
            };
            let message = match message {
                Ok(Some(message)) => message.message,
                Ok(None) => return Ended::Closed,
                Err(status) => {
                    return Ended::Status {
                        status,
                        welcome: self.welcome,
                    };
                }
            };
            if let Err(ended) = self.take(message) {
                return ended;
            }
        }
    }

    fn take(&mut self, message: Option<manager_message::Message>) -> Result<(), Ended> {
        use manager_message::Message;
        match message {
            Some(Message::Welcome(welcome)) => {
                self.welcomed(welcome);
                Ok(())
            }
            Some(Message::Assignment(assignment)) => self.assigned(assignment),
            Some(Message::Ack(ack)) => {
                let gone = self.session.options.outbox.acknowledge(ack.sequence);
                self.confirmed(&gone);
                Ok(())
            }
            Some(Message::Refused(refused)) => {
                self.refused(refused.sequence, &refused.reason);
                Ok(())
            }
            Some(Message::OpenStream(request)) => {
                let options = &self.session.options;
                // A stream that its reader leaves standing fills its connection, and nobody else's.
                match options.managers.channel(self.address) {
                    Ok(channel) => options.streams.open(channel, request),
                    Err(error) => tracing::warn!(error, "cannot dial the manager back"),
                }
                Ok(())
            }
            Some(Message::Trust(trust)) => {
                if let Ok(roots_sha256) = trust.roots_sha256.try_into() {
                    let within = Duration::from_millis(trust.within_ms.into());
                    self.session
                        .options
                        .managers
                        .told_roots(roots_sha256, within);
                }
                Ok(())
            }
            // Something newer managers say; nothing depends on it yet.
            None => Ok(()),
        }
    }

    fn welcomed(&mut self, welcome: Welcome) {
        self.welcome = true;
        let same_life = |held: &Held| held.life == welcome.life;
        self.has_base = self.held.as_ref().is_some_and(same_life);
        tracing::info!(manager = self.address, "connected");
        self.session.options.lane.settled(self.address);
        self.began.send_replace(true);
        if !welcome.manager_addresses.is_empty() {
            let addresses = welcome.manager_addresses.clone();
            self.session.keeper.learn(addresses);
        }
        let mut next = Desired::clone(&self.session.keeper.head());
        if next.welcome.as_deref() == Some(&welcome) {
            return;
        }
        next.welcome = Some(Arc::new(welcome));
        let touched = Touched {
            network: true,
            ..Touched::default()
        };
        self.session.keeper.put(next, touched);
    }

    fn assigned(&mut self, part: Assignment) -> Result<(), Ended> {
        let Some(assignment) = self.parts.add(part).map_err(Ended::Refused)? else {
            return Ok(());
        };
        let full = assignment.full;
        let revision = assignment.revision;
        for pod in &assignment.tombstones {
            tracing::info!(
                pod = format!("{}/{}", pod.namespace, pod.name),
                uid = pod.uid,
                revision = pod.revision,
                "the pod was deleted"
            );
        }
        let present = self.session.keeper.head();
        let applied = present.apply(assignment, self.has_base);
        let (next, touched) = applied.map_err(Ended::Refused)?;
        self.has_base |= full;
        tracing::debug!(revision, full, ?touched, "assignment");
        self.session.keeper.put(next, touched);
        Ok(())
    }

    /// The managers will never take a report, or a part of it.
    fn refused(&self, sequence: u64, reason: &str) {
        let outbox = &self.session.options.outbox;
        let Some(dropped) = outbox.refused(sequence) else {
            return;
        };
        tracing::warn!(
            manager = self.address,
            ?dropped,
            reason,
            "the managers refuse a report"
        );
        let desired = self.session.keeper.head();
        let about = match &dropped {
            Dropped::Pod(uid) | Dropped::Messages(uid) => {
                desired.pods.get(uid).map(|pod| pod_reference(pod))
            }
            Dropped::Node => desired.node().map(node_reference),
            Dropped::Event => None,
        };
        let what = match &dropped {
            Dropped::Messages(_) => "status, and get it without its messages",
            _ => "status",
        };
        if let Some(about) = about {
            outbox.event(EventReport {
                involved_object: Some(about),
                r#type: "Warning".to_owned(),
                reason: "StatusRefused".to_owned(),
                message: format!("The managers do not take the {what}: {reason}"),
                // The leader's.
                time: None,
            });
        }
    }

    /// The managers know that nothing of these pods is left.
    fn confirmed(&self, gone: &[String]) {
        if gone.is_empty() {
            return;
        }
        let mut next = Desired::clone(&self.session.keeper.head());
        if next.confirm(gone) {
            let touched = Touched {
                pods: true,
                ..Touched::default()
            };
            self.session.keeper.put(next, touched);
        }
    }
}
