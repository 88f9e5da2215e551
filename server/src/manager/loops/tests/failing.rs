//! The cost of a fault in a controller, and the catching up of a leader before it plans.

use super::{memory::Memory, *};
use crate::controllers::{
    stamp::{Stamps, SystemStamps},
    testing::TERM,
};
use barge_proto::v1::{ConfigMap, Event, ObjectMeta, Transaction};
use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// Looks at ConfigMaps; notes whom it looked at, proposes an event or panics where a test wants it to.
#[derive(Default)]
struct Faulty {
    plans: AtomicBool,
    dirtied: AtomicUsize,
    looked: Mutex<Vec<String>>,
}

impl Controller for Faulty {
    type Key = String;
    const NAME: &'static str = "faulty";
    const KINDS: &'static [RecordKind] = &[RecordKind::ConfigMap];

    fn all(&self, state: &State) -> Vec<String> {
        let maps = state.list::<ConfigMap>(None);
        maps.map(|map| map.meta().name.clone()).collect()
    }

    fn dirtied(&self, _state: &State, changed: &Changed, dirty: &mut dyn FnMut(String)) {
        let less = |left: usize| left.checked_sub(1);
        let panics = self
            .dirtied
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        assert!(panics.is_err(), "a fault of dirtied");
        dirty(changed.name().to_owned());
    }

    fn plan(&self, state: &State, key: &String, stamp: &mut Stamp) -> Plan {
        let Some(map) = state.get::<ConfigMap>("default", key) else {
            return Plan::default();
        };
        self.looked.lock().unwrap().push(key.clone());
        let poisonous = map.data.contains_key("poison");
        assert!(
            !(poisonous && self.plans.load(Ordering::SeqCst)),
            "a fault of plan"
        );
        let mut plan = Plan::default();
        if map.data.contains_key("propose") {
            let about = plan::object_reference("v1", "ConfigMap", map.meta());
            let (warning, message) = (plan::Severity::Warning, "proposed".to_owned());
            let event = plan::event(stamp, Self::NAME, about, warning, "Proposed", message);
            plan.draft.event(event);
        }
        plan
    }

    fn concerned(&self, state: &State, key: &String) -> Option<ObjectReference> {
        let map = state.get::<ConfigMap>("default", key)?;
        Some(plan::object_reference("v1", "ConfigMap", map.meta()))
    }
}

impl Faulty {
    fn looks(&self, key: &str) -> usize {
        let looked = self.looked.lock().unwrap();
        looked.iter().filter(|looked| *looked == key).count()
    }
}

fn map(name: &str, data: &[&str], generation: usize) -> change::Change {
    change::Change::Put(
        ConfigMap {
            metadata: Some(ObjectMeta {
                name: name.to_owned(),
                namespace: "default".to_owned(),
                uid: format!("uid-of-{name}"),
                ..ObjectMeta::default()
            }),
            data: data
                .iter()
                .map(|key| ((*key).to_owned(), generation.to_string()))
                .collect(),
            ..ConfigMap::default()
        }
        .into_record(),
    )
}

fn put(memory: &Memory, change: change::Change) {
    let outcome = memory.apply(&Transaction {
        time: Some(SystemStamps.now()),
        changes: vec![Change {
            change: Some(change),
        }],
        ..Transaction::default()
    });
    assert_eq!(outcome.refusal, None);
}

fn context(cancel: &CancellationToken) -> Context {
    Context {
        term: TERM,
        stamps: Arc::new(SystemStamps),
        cancel: cancel.clone(),
        meters: Meters::default(),
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), waited).await;
    assert!(waited.is_ok(), "never: {what}");
}

fn driven(
    memory: &Memory,
    controller: &Arc<Faulty>,
    cancel: &CancellationToken,
) -> tokio::task::JoinHandle<()> {
    driven_in(memory, controller, context(cancel))
}

fn driven_in(
    memory: &Memory,
    controller: &Arc<Faulty>,
    context: Context,
) -> tokio::task::JoinHandle<()> {
    let (memory, controller) = (memory.clone(), controller.clone());
    tokio::spawn(async move {
        let begin = || shell::drive(memory.clone(), controller.clone(), context.clone());
        supervise(Faulty::NAME, &memory, &context, begin).await;
    })
}

#[tokio::test]
async fn a_plan_that_panics_costs_its_key_a_pause_and_an_event() {
    let memory = Memory::new(World::default().state);
    put(&memory, map("bad", &["poison"], 0));
    put(&memory, map("good", &[], 0));
    let controller = Arc::new(Faulty::default());
    controller.plans.store(true, Ordering::SeqCst);
    let cancel = CancellationToken::new();
    let driven = driven(&memory, &controller, &cancel);
    until("it is tried again", || controller.looks("bad") >= 4).await;
    assert_eq!(
        controller.looks("good"),
        1,
        "nobody else is looked at again"
    );
    let told = |state: &State| {
        let mut events = state.list::<Event>(None);
        events
            .any(|event| event.reason == "FailedSync" && event.message.contains("a fault of plan"))
    };
    until("an event says so", || memory.read(told)).await;
    for number in 1..4 {
        put(&memory, map("good", &["more"], number));
        until("others are looked at", || {
            controller.looks("good") == 1 + number
        })
        .await;
    }
    // The user takes the poison out: it is looked at now, and not after its back-off.
    until("it waits for long", || controller.looks("bad") >= 6).await;
    let looks = controller.looks("bad");
    put(&memory, map("bad", &["mended"], 1));
    let edited = Instant::now();
    until("it is looked at", || controller.looks("bad") > looks).await;
    assert!(
        edited.elapsed() < Duration::from_millis(1500),
        "{:?}",
        edited.elapsed()
    );
    cancel.cancel();
    driven.await.unwrap();
}

#[tokio::test]
async fn a_loop_that_panics_begins_anew_and_misses_nothing() {
    let memory = Memory::new(World::default().state);
    put(&memory, map("one", &[], 0));
    let controller = Arc::new(Faulty::default());
    let cancel = CancellationToken::new();
    let driven = driven(&memory, &controller, &cancel);
    until("it runs", || controller.looks("one") == 1).await;
    controller.dirtied.store(2, Ordering::SeqCst);
    put(&memory, map("two", &[], 0));
    until("what came with the panic is seen", || {
        controller.looks("two") >= 1
    })
    .await;
    put(&memory, map("three", &[], 0));
    put(&memory, map("four", &[], 0));
    until("and what comes after it", || {
        controller.looks("three") >= 1 && controller.looks("four") >= 1
    })
    .await;
    cancel.cancel();
    driven.await.unwrap();
}

#[tokio::test]
async fn a_leader_plans_only_after_what_was_proposed_before_is_applied() {
    let memory = Memory::new(World::default().state);
    // Nothing is decided: there is no quorum yet.
    memory.stalled.store(true, Ordering::SeqCst);
    put(&memory, map("one", &[], 0));
    let cancel = CancellationToken::new();
    let context = context(&cancel);
    let replica = memory.clone();
    let waits = tokio::spawn(async move { catch_up(&replica, &context).await });
    until("it asks again and again", || {
        memory.proposed.load(Ordering::SeqCst) >= 3
    })
    .await;
    assert!(!waits.is_finished());
    memory.stalled.store(false, Ordering::SeqCst);
    assert_eq!(waits.await.unwrap(), Ok(()));
    // In another term it ends.
    memory.term.store(99, Ordering::SeqCst);
    let context = self::context(&cancel);
    assert_eq!(catch_up(&memory, &context).await, Err(propose::Deposed));
}

/// What a series of this controller says.
fn measured(meters: &Meters, series: &str) -> Option<f64> {
    let mut registry = prometheus_client::registry::Registry::default();
    meters.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let start = format!("{series}{{name=\"faulty\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&start))?;
    Some(value.parse().unwrap())
}

#[tokio::test]
async fn after_an_outage_keys_are_looked_at_within_about_a_second() {
    let memory = Memory::new(World::default().state);
    put(&memory, map("one", &["propose"], 0));
    memory.closed.store(true, Ordering::SeqCst);
    let controller = Arc::new(Faulty::default());
    let cancel = CancellationToken::new();
    let driven = driven(&memory, &controller, &cancel);
    // As failures of the key these would have made the next wait 6.4 s.
    until("it is tried again", || controller.looks("one") >= 8).await;
    memory.closed.store(false, Ordering::SeqCst);
    let over = Instant::now();
    let told = |state: &State| state.list::<Event>(None).next().is_some();
    until("the plan is carried out", || memory.read(told)).await;
    let took = over.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    cancel.cancel();
    driven.await.unwrap();
}

#[tokio::test]
async fn the_depth_counts_what_waits_for_the_cluster_and_ends_with_the_loop() {
    let memory = Memory::new(World::default().state);
    put(&memory, map("one", &["propose"], 0));
    memory.closed.store(true, Ordering::SeqCst);
    let cancel = CancellationToken::new();
    let context = context(&cancel);
    let meters = context.meters.clone();
    let driven = driven_in(&memory, &Arc::default(), context);
    let depth = || measured(&meters, "workqueue_depth");
    until("a key waits", || depth() == Some(1.0)).await;
    cancel.cancel();
    driven.await.unwrap();
    // The task of the loop is dropped a little later.
    until("none waits", || depth() == Some(0.0)).await;
}

/// A clock that a test turns forward.
#[derive(Default)]
struct Turned(Mutex<Duration>);

impl Stamps for Turned {
    fn now(&self) -> barge_proto::v1::Time {
        SystemStamps.now()
    }

    fn monotonic(&self) -> Instant {
        SystemStamps.monotonic() + *self.0.lock().unwrap()
    }

    fn seed(&self) -> [u8; 32] {
        SystemStamps.seed()
    }
}

#[tokio::test]
async fn the_time_that_a_loop_was_idle_is_no_wait_of_a_key() {
    let memory = Memory::new(World::default().state);
    put(&memory, map("one", &[], 0));
    let controller = Arc::new(Faulty::default());
    let cancel = CancellationToken::new();
    let stamps = Arc::new(Turned::default());
    let context = Context {
        stamps: stamps.clone(),
        ..context(&cancel)
    };
    let meters = context.meters.clone();
    let driven = driven_in(&memory, &controller, context);
    let ended = || measured(&meters, "workqueue_work_duration_seconds_count");
    until("it is idle", || ended() == Some(1.0)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    *stamps.0.lock().unwrap() += Duration::from_secs(1000);
    put(&memory, map("two", &[], 0));
    until("it is looked at", || controller.looks("two") == 1).await;
    let waited = measured(&meters, "workqueue_queue_duration_seconds_sum").unwrap();
    assert!(waited < 500.0, "{waited} s");
    cancel.cancel();
    driven.await.unwrap();
}

#[tokio::test]
async fn a_task_that_panics_begins_anew_and_its_neighbours_go_on() {
    let memory = Memory::new(World::default().state);
    let cancel = CancellationToken::new();
    let context = context(&cancel);
    let (faulty, calm) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let begun = (faulty.clone(), calm.clone());
    let loops = tokio::spawn(async move {
        let begin = |begun: &Arc<AtomicUsize>, panics: usize| {
            let begun = begun.clone();
            async move {
                assert!(begun.fetch_add(1, Ordering::SeqCst) >= panics, "a fault");
                std::future::pending::<()>().await;
                Ok(())
            }
        };
        tokio::join!(
            supervise("faulty", &memory, &context, || begin(&begun.0, 2)),
            supervise("calm", &memory, &context, || begin(&begun.1, 0)),
        );
    });
    until("it begins anew", || faulty.load(Ordering::SeqCst) == 3).await;
    assert_eq!(calm.load(Ordering::SeqCst), 1);
    cancel.cancel();
    loops.await.unwrap();
}
