#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::controllers::{
    plan::{Severity, controller_reference, event, object_reference},
    testing::{TERM, World},
};
use barge_proto::v1::{
    Event, Namespace, ObjectMeta, PodTemplateSpec, RequestRecord, Role, Time, Transaction,
    record::Record,
};

fn sweep(world: &mut World) -> usize {
    let mut changes = 0;
    for part in PARTS {
        let mut position = None;
        loop {
            let stamp = world.stamp();
            let (plan, next) = page(&world.state, part, position.as_ref(), &stamp);
            changes += plan.draft.changes().len();
            world.follow(plan);
            if next.is_none() {
                break;
            }
            position = next;
        }
    }
    changes
}

fn meta(world: &mut World, name: &str, owner: &str) -> ObjectMeta {
    let gone = ObjectMeta {
        name: "gone".into(),
        uid: "gone".into(),
        ..ObjectMeta::default()
    };
    // It has to be there for others to be created; [`lose`] takes it away.
    world.put(Record::Namespace(Namespace {
        metadata: Some(gone.clone()),
        ..Namespace::default()
    }));
    ObjectMeta {
        name: name.into(),
        namespace: "default".into(),
        uid: world.uid(),
        owner_references: match owner {
            "" => Vec::new(),
            kind => vec![controller_reference("v1", kind, &gone)],
        },
        ..ObjectMeta::default()
    }
}

/// Takes the owner away without what it owns, which only a mistake elsewhere could do.
fn lose(world: &mut World) {
    let records = world.state.records();
    let records = records.filter(|record| !matches!(record.record, Some(Record::Namespace(_))));
    world.state = State::restore(records, world.state.meta());
}

/// A pod with its template, owned by something that isn't there, or by nothing.
fn pod(world: &mut World, name: &str, owner: &str) -> String {
    let revision = Revision {
        metadata: Some(meta(world, name, owner)),
        template: Some(PodTemplateSpec::default()),
        number: 1,
        status: None,
    };
    let pod = PodRecord {
        metadata: Some(meta(world, name, owner)),
        template_uid: revision.uid().to_owned(),
        ..PodRecord::default()
    };
    let uid = pod.uid().to_owned();
    world.put(Record::Revision(revision));
    world.put(Record::Pod(pod));
    uid
}

#[test]
fn what_nobody_owns_any_more_goes_and_the_rest_stays() {
    let mut world = World::default();
    pod(&mut world, "orphan", "Deployment");
    let stays = pod(&mut world, "standalone", "");
    pod(&mut world, "strange", "Gadget");
    let endpoints = Endpoints {
        metadata: Some(meta(&mut world, "orphan", "Service")),
        ..Endpoints::default()
    };
    world.put(Record::Endpoints(endpoints));
    lose(&mut world);
    sweep(&mut world);
    let names: Vec<_> = world
        .pods()
        .iter()
        .map(|pod| pod.meta().name.clone())
        .collect();
    assert_eq!(names, ["standalone", "strange"]);
    assert!(world.state.by_uid::<PodRecord>(&stays).is_some());
    assert_eq!(world.state.count::<Endpoints>(), 0);
    assert_eq!(world.state.count::<Revision>(), 2);
    assert_eq!(sweep(&mut world), 0);
}

#[test]
fn a_template_stays_as_long_as_a_pod_of_it_ends() {
    let mut world = World::default();
    let node = world.node("a", 8000, 8000, 100);
    let uid = pod(&mut world, "orphan", "Deployment");
    let record = world.by_uid::<PodRecord>(&uid);
    world.bind(&record, &node);
    lose(&mut world);
    sweep(&mut world);
    let record = world.by_uid::<PodRecord>(&uid);
    assert!(pods::is_terminating(&record));
    assert!(world.state.template(&record).is_some());
    world.remove(&*record);
    sweep(&mut world);
    assert_eq!(world.state.count::<Revision>(), 0);
}

#[test]
fn what_belongs_to_a_revision_that_is_shown_as_a_replica_set_stays() {
    let mut world = World::default();
    let template = pod(&mut world, "standalone", "");
    let template = world
        .by_uid::<PodRecord>(&template)
        .template_uid()
        .to_owned();
    let shown = world.by_uid::<Revision>(&template).meta().clone();
    let endpoints = Endpoints {
        metadata: Some(ObjectMeta {
            owner_references: vec![controller_reference("apps/v1", "ReplicaSet", &shown)],
            ..meta(&mut world, "its", "")
        }),
        ..Endpoints::default()
    };
    world.put(Record::Endpoints(endpoints));
    assert_eq!(sweep(&mut world), 0);
    assert_eq!(world.state.count::<Endpoints>(), 1);
}

#[test]
fn a_sweep_goes_through_all_pages() {
    let mut world = World::default();
    for number in 0..PAGE + 10 {
        let owner = if number > PAGE { "Deployment" } else { "" };
        pod(&mut world, &format!("pod-{number:05}"), owner);
    }
    lose(&mut world);
    sweep(&mut world);
    assert_eq!(world.pods().len(), PAGE + 1);
}

#[test]
fn expired_tokens_go() {
    let mut world = World::default();
    for (name, seconds) in [("old", -1), ("new", 1)] {
        let token = TokenRecord {
            metadata: Some(ObjectMeta {
                namespace: String::new(),
                ..meta(&mut world, name, "")
            }),
            role: Role::Agent.into(),
            expires: Some(Time {
                seconds: world.now.seconds + seconds,
                nanos: 0,
            }),
            ..TokenRecord::default()
        };
        world.put(Record::Token(token));
    }
    sweep(&mut world);
    let left: Vec<_> = world
        .state
        .list::<TokenRecord>(None)
        .map(|token| token.meta().name.clone())
        .collect();
    assert_eq!(left, ["new"]);
}

#[test]
fn events_are_forgotten_after_an_hour() {
    let mut world = World::default();
    for name in ["first", "second"] {
        let mut stamp = world.stamp();
        let about = object_reference("v1", "Pod", &meta(&mut world, name, ""));
        let event = event(
            &mut stamp,
            "test",
            about,
            Severity::Normal,
            "Tested",
            name.into(),
        );
        world.apply([Change::RecordEvent(event)]);
        world.advance(1800);
    }
    assert_eq!(sweep(&mut world), 0);
    world.advance(1);
    sweep(&mut world);
    assert_eq!(world.events("Tested"), ["second"]);
}

#[test]
fn many_old_events_are_forgotten_in_slices() {
    let mut world = World::default();
    world.raise(ORDER);
    for number in 0..30 {
        let mut stamp = world.stamp();
        let meta = meta(&mut world, &format!("pod-{number}"), "");
        let about = object_reference("v1", "Pod", &meta);
        let events = (0..30).map(|message| {
            let (about, message) = (about.clone(), format!("{message}"));
            let severity = Severity::Normal;
            Change::RecordEvent(event(
                &mut stamp, "test", about, severity, "Tested", message,
            ))
        });
        world.apply(events);
    }
    assert_eq!(world.state.count::<Event>(), 900);
    world.advance(3601);
    assert_eq!(sweep(&mut world), 2, "two slices of 500 at most");
    assert_eq!(world.state.count::<Event>(), 0);
}

#[test]
fn old_answers_to_requests_are_forgotten_when_all_managers_can() {
    let mut world = World::default();
    for number in 0..3u8 {
        let request = RequestRecord {
            nonce: vec![number; 16],
            seen_revision: 0,
            body_sha256: vec![],
        };
        let transaction = Transaction {
            request: Some(request),
            ..Transaction::default()
        };
        world.state.apply(TERM, transaction);
    }
    world.node("a", 8000, 8000, 100);
    let old = world.state.revision();
    let plan = |world: &mut World| {
        let stamp = world.stamp();
        page(&world.state, Part::Requests(old), None, &stamp)
    };
    assert_eq!(plan(&mut world).0, Plan::default());
    world.raise(ORDER);
    let (forget, next) = plan(&mut world);
    world.follow(forget);
    assert_eq!(world.state.requests_size().0, 0);
    assert!(next.is_some(), "there may be more");
    assert_eq!(plan(&mut world), (Plan::default(), None));
}
