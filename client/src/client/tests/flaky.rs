//! A watcher of a manager that breaks every stream and forgets its history: no change of state may be missed.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use barge_proto::v1::{api_server::Api, *};
use futures::{StreamExt as _, stream::BoxStream};
use rand::Rng;
use tokio::{sync::watch, time::timeout};
use tonic::{Code, Request, Response, Status, Streaming};

use super::scripted::{ca, refusal, serve};
use crate::{Client, ClientOptions, Selection, WatchEvent, v1::Kind};

/// Changes that the manager remembers.
const HISTORY: usize = 6;
/// Changes that are made.
const CHANGES: u64 = 400;

/// Objects by name, with their uids and revisions.
type Objects = BTreeMap<String, (String, String)>;

#[derive(Default)]
struct World {
    objects: BTreeMap<String, Object>,
    history: VecDeque<WatchResponse>,
    revision: u64,
    floor: u64,
}

impl World {
    /// Something comes, changes or goes.
    fn step(&mut self) {
        let mut random = rand::rng();
        self.revision += 1;
        let version = self.revision.to_string();
        let name = format!("n{}", random.random_range(0..8));
        let there = self.objects.remove(&name);
        let (kind, uid) = match &there {
            Some(_) if random.random_bool(0.3) => (ChangeType::Deleted, None),
            Some(object) => (ChangeType::Modified, Some(object.uid().to_owned())),
            None => (ChangeType::Added, Some(format!("uid-{version}"))),
        };
        let uid = uid.unwrap_or_else(|| there.as_ref().map_or("", Object::uid).to_owned());
        let object = Object::from(Namespace {
            metadata: Some(ObjectMeta {
                name: name.clone(),
                uid,
                resource_version: version,
                ..ObjectMeta::default()
            }),
            ..Namespace::default()
        });
        if kind != ChangeType::Deleted {
            self.objects.insert(name, object.clone());
        }
        self.history.push_back(WatchResponse {
            r#type: kind.into(),
            object: Some(object),
            revision: self.revision,
        });
        while self.history.len() > HISTORY {
            self.floor = self.history.pop_front().map_or(0, |change| change.revision);
        }
    }

    fn objects(&self) -> Objects {
        by_name(self.objects.values())
    }
}

fn by_name<'a>(objects: impl Iterator<Item = &'a Object>) -> Objects {
    let entry = |object: &Object| {
        let version = object.metadata().resource_version.clone();
        (object.name().to_owned(), (object.uid().to_owned(), version))
    };
    objects.map(entry).collect()
}

#[derive(Clone)]
struct Flaky {
    world: Arc<Mutex<World>>,
    /// The revision, for those who wait.
    now: watch::Receiver<u64>,
}

/// A stream of changes: how far it is, and how many more it tells before it breaks.
struct Tail {
    flaky: Flaky,
    cursor: u64,
    left: usize,
}

impl Tail {
    async fn next(mut self) -> Option<(Result<WatchResponse, Status>, Self)> {
        if self.left == 0 {
            return match rand::rng().random_range(0..3) {
                0 => None,
                1 => Some((Err(Status::unavailable("going away")), self)),
                _ => Some((Err(Status::internal("stream broken")), self)),
            };
        }
        self.left -= 1;
        let cursor = self.cursor;
        // The sender lives as long as the test.
        self.flaky.now.wait_for(|now| *now > cursor).await.ok()?;
        let found = {
            let world = self.flaky.world.lock().unwrap();
            match cursor < world.floor {
                true => Err(refusal(Code::OutOfRange, "EXPIRED")),
                false => {
                    let mut history = world.history.iter();
                    Ok(history.find(|change| change.revision > cursor).cloned())
                }
            }
        };
        match found {
            Ok(change) => {
                let change = change?;
                self.cursor = change.revision;
                Some((Ok(change), self))
            }
            Err(expired) => Some((Err(expired), self)),
        }
    }
}

#[tonic::async_trait]
impl Api for Flaky {
    type ApplyStreamStream = BoxStream<'static, Result<ApplyStreamResponse, Status>>;
    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        if rand::rng().random_bool(0.1) {
            return Err(Status::unavailable("going away"));
        }
        let world = self.world.lock().unwrap();
        Ok(Response::new(ListResponse {
            objects: world.objects.values().cloned().collect(),
            revision: world.revision,
            r#continue: String::new(),
        }))
    }

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let cursor = request.into_inner().revision;
        if cursor < self.world.lock().unwrap().floor {
            return Err(refusal(Code::OutOfRange, "EXPIRED"));
        }
        // As a manager does: the first word is where the stream begins.
        let bookmark = WatchResponse {
            r#type: ChangeType::Bookmark.into(),
            object: None,
            revision: cursor,
        };
        let tail = Tail {
            flaky: self.clone(),
            cursor,
            left: rand::rng().random_range(0..4),
        };
        let first = futures::stream::iter([Ok(bookmark)]);
        let rest = futures::stream::unfold(tail, Tail::next);
        Ok(Response::new(first.chain(rest).boxed()))
    }

    async fn apply(&self, _: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn apply_stream(
        &self,
        _: Request<Streaming<ApplyStreamRequest>>,
    ) -> Result<Response<Self::ApplyStreamStream>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn get(&self, _: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn delete(&self, _: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn scale(&self, _: Request<ScaleRequest>) -> Result<Response<ScaleResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn update(&self, _: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn rollout(
        &self,
        _: Request<RolloutRequest>,
    ) -> Result<Response<RolloutResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn rollout_history(
        &self,
        _: Request<RolloutHistoryRequest>,
    ) -> Result<Response<RolloutHistoryResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

#[tokio::test]
async fn no_change_is_missed_however_streams_break() {
    let ca = ca();
    let world = Arc::new(Mutex::new(World::default()));
    let (tell, now) = watch::channel(0);
    let flaky = Flaky {
        world: world.clone(),
        now,
    };
    let (address, serving) = serve(&ca, flaky).await;
    let identity = ca.issue(Role::Admin, "a");
    let client = Client::new(&identity, &[address], ClientOptions::default()).unwrap();
    let changing = tokio::spawn({
        let world = world.clone();
        async move {
            for _ in 0..CHANGES {
                let revision = {
                    let mut world = world.lock().unwrap();
                    world.step();
                    world.revision
                };
                tell.send(revision).unwrap();
                let pause = rand::rng().random_range(0..20);
                for _ in 0..pause {
                    tokio::task::yield_now().await;
                }
            }
            // Whoever waits for more waits for ever.
            tell
        }
    });
    let mut watcher = client.list_and_watch(Selection::of(Kind::Namespace, ""));
    let mut told: BTreeMap<String, Object> = BTreeMap::new();
    let following = async {
        loop {
            match watcher.next().await.unwrap() {
                WatchEvent::Added(object) => {
                    let before = told.insert(object.uid().to_owned(), object);
                    assert!(before.is_none(), "{before:?} was there already");
                }
                WatchEvent::Modified(object) => {
                    let before = told.insert(object.uid().to_owned(), object);
                    assert!(before.is_some(), "changed before it was there");
                }
                WatchEvent::Deleted(object) => {
                    assert!(
                        told.remove(object.uid()).is_some(),
                        "{object} was not there"
                    );
                }
                WatchEvent::Synced { .. } => {}
            }
            assert_eq!(by_name(watcher.objects()).len(), watcher.objects().count());
            let world = world.lock().unwrap();
            if world.revision == CHANGES && by_name(told.values()) == world.objects() {
                break;
            }
        }
    };
    // Generous: one that missed a change waits for ever.
    let followed = timeout(Duration::from_secs(120), following).await;
    let expected = world.lock().unwrap().objects();
    assert!(
        followed.is_ok(),
        "{:?} instead of {expected:?}",
        by_name(told.values())
    );
    drop(changing.await.unwrap());
    serving.abort();
}
