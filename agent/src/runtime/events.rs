//! containerd's events, as hints to look again.

use std::{collections::BTreeSet, time::Duration};

use containerd_client::{
    events::{TaskDelete, TaskExit, TaskOom},
    services::v1::{PublishRequest, SubscribeRequest},
    tonic::{Status, Streaming},
    types::Envelope,
};
use futures::stream::BoxStream;
use prost::Message;
use prost_types::Any;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_stream::wrappers::ReceiverStream;

use super::{RuntimeEvent, client::Client};

/// Hints that wait for a slow reader; beyond that it has to look at everything.
const PENDING: usize = 1024;
/// Between two tries to subscribe: doubled each time, up to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Between two probes whether a subscription is live.
const PROBE: Duration = Duration::from_millis(50);

/// Follows containerd until the stream is dropped.
pub fn follow(client: Client, namespace: String) -> BoxStream<'static, RuntimeEvent> {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut pause = SHORTEST_PAUSE;
        while !sender.is_closed() {
            let began = Instant::now();
            let ended = tokio::select! {
                ended = subscribe(&client, &namespace, &sender) => ended,
                () = sender.closed() => return,
            };
            if let Err(status) = ended {
                tracing::debug!(error = %status, "containerd's events ended");
            }
            // One that lived for a while does not count as a failed try.
            pause = if began.elapsed() > LONGEST_PAUSE {
                SHORTEST_PAUSE
            } else {
                pause
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = sender.closed() => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

/// What has not been told yet.
#[derive(Default)]
struct News {
    resync: bool,
    changed: BTreeSet<String>,
}

impl News {
    fn add(&mut self, id: String) {
        if self.changed.len() < PENDING {
            self.changed.insert(id);
        } else {
            self.resync = true;
            self.changed.clear();
        }
    }

    fn next(&mut self) -> Option<RuntimeEvent> {
        if std::mem::take(&mut self.resync) {
            return Some(RuntimeEvent::Resync);
        }
        self.changed
            .pop_first()
            .map(|id| RuntimeEvent::Changed { id })
    }

    fn is_empty(&self) -> bool {
        !self.resync && self.changed.is_empty()
    }
}

async fn subscribe(
    client: &Client,
    namespace: &str,
    sender: &mpsc::Sender<RuntimeEvent>,
) -> Result<(), Status> {
    // containerd answers a subscription only with its first event, so we make one of our own: once it comes back,
    // nothing is missed any more, and whoever lists then has seen all that went before.
    let probe = format!("/barge/probe/x{}", uuid::Uuid::new_v4().simple());
    let topics = ["/tasks/exit", "/tasks/oom", "/tasks/delete", probe.as_str()];
    let request = SubscribeRequest {
        filters: topics
            .map(|topic| format!("namespace==\"{namespace}\",topic==\"{topic}\""))
            .to_vec(),
    };
    let mut events = client.services().events();
    let mut subscription = std::pin::pin!(events.subscribe(client.lasting(request)));
    let mut stream = loop {
        tokio::select! {
            answer = &mut subscription => break answer?.into_inner(),
            published = publish(client, &probe) => published?,
        }
    };
    let mut news = News {
        resync: true,
        ..News::default()
    };
    loop {
        tokio::select! {
            event = next(&mut stream, &probe) => {
                if let Some(id) = event? {
                    news.add(id);
                }
            }
            permit = sender.reserve(), if !news.is_empty() => {
                let Ok(permit) = permit else {
                    return Ok(());
                };
                if let Some(event) = news.next() {
                    permit.send(event);
                }
            }
        }
    }
}

async fn publish(client: &Client, topic: &str) -> Result<(), Status> {
    let request = PublishRequest {
        topic: topic.to_owned(),
        event: Some(Any {
            type_url: "google.protobuf.Empty".to_owned(),
            value: Vec::new(),
        }),
    };
    client
        .services()
        .events()
        .publish(client.request(request))
        .await?;
    sleep(PROBE).await;
    Ok(())
}

/// The container of the next event, if it concerns one.
async fn next(stream: &mut Streaming<Envelope>, probe: &str) -> Result<Option<String>, Status> {
    let envelope = stream.message().await?;
    let envelope = envelope.ok_or_else(|| Status::unavailable("containerd ended its events"))?;
    Ok(if envelope.topic == probe {
        None
    } else {
        concerned(&envelope)
    })
}

fn concerned(envelope: &Envelope) -> Option<String> {
    let event = envelope.event.as_ref()?;
    // The names stand bare, without the slash that other parties expect.
    match event.type_url.rsplit('/').next()? {
        "containerd.events.TaskExit" => {
            let exit = TaskExit::decode(event.value.as_slice()).ok()?;
            // Others than the first process are of no interest here.
            (exit.id == exit.container_id).then_some(exit.container_id)
        }
        "containerd.events.TaskOOM" => {
            Some(TaskOom::decode(event.value.as_slice()).ok()?.container_id)
        }
        "containerd.events.TaskDelete" => Some(
            TaskDelete::decode(event.value.as_slice())
                .ok()?
                .container_id,
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn envelope(type_url: &str, message: &impl Message) -> Envelope {
        Envelope {
            event: Some(Any {
                type_url: type_url.to_owned(),
                value: message.encode_to_vec(),
            }),
            ..Envelope::default()
        }
    }

    #[test]
    fn only_first_processes_count() {
        let exit = |id: &str| TaskExit {
            container_id: "c".into(),
            id: id.into(),
            ..TaskExit::default()
        };
        let url = "containerd.events.TaskExit";
        assert_eq!(concerned(&envelope(url, &exit("c"))), Some("c".into()));
        assert_eq!(concerned(&envelope(url, &exit("exec"))), None);
        assert_eq!(
            concerned(&envelope("containerd.events.TaskStart", &exit("c"))),
            None
        );
        assert_eq!(concerned(&Envelope::default()), None);
    }

    #[test]
    fn too_much_news_means_look_at_everything() {
        let mut news = News::default();
        for n in 0..=PENDING {
            news.add(n.to_string());
        }
        assert_eq!(news.next(), Some(RuntimeEvent::Resync));
        assert_eq!(news.next(), None);
        news.add("c".into());
        news.add("c".into());
        assert_eq!(news.next(), Some(RuntimeEvent::Changed { id: "c".into() }));
        assert!(news.is_empty());
    }
}
