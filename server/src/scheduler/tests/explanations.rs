//! The messages for pods that no node can take.

use super::*;
use crate::{controllers::conditions, store::transaction::Draft};
use std::{collections::BTreeSet, time::Duration};

/// Two small nodes and one without the label.
fn scheduled() -> Scheduled {
    let mut world = World::default();
    for (name, memory) in [("a", 100), ("b", 200), ("c", 9000)] {
        let node = world.node(name, 4000, memory, 100);
        if name != "c" {
            edit_node(&mut world, &node, |node| {
                let labels = &mut node.metadata.as_mut().unwrap().labels;
                labels.insert("disk".to_owned(), "fast".to_owned());
            });
        }
    }
    Scheduled::new(world)
}

/// Tells, as the shell does; returns how many were told.
fn tell_all(scheduled: &mut Scheduled) -> usize {
    assert_eq!(scheduled.place(10), []);
    let untold = scheduled.cluster.queue.untold(100);
    for (pod, why) in &untold {
        let mut stamp = scheduled.world.stamp();
        let mut draft = Draft::new();
        tell(&scheduled.world.state, pod, why, &mut stamp, &mut draft);
        scheduled.world.propose(draft);
    }
    untold.len()
}

const WHY: &str =
    "0/3 nodes are available: 2 insufficient memory, 1 node(s) did not match node selector";

#[test]
fn a_pod_that_fits_nowhere_is_told_which_filter_refused_how_many_nodes() {
    let mut scheduled = scheduled();
    let web = revision(
        &mut scheduled.world,
        "web",
        (100, 1000),
        &[("disk", "fast")],
    );
    let uid = pod(&mut scheduled.world, "web-1", &web);
    assert_eq!(tell_all(&mut scheduled), 1);
    let pod = scheduled.world.by_uid::<PodRecord>(&uid);
    let conditions = &pod.status().conditions;
    let condition = conditions::find(conditions, "PodScheduled").unwrap();
    assert_eq!(condition.status, "False");
    assert_eq!(condition.reason, "Unschedulable");
    assert_eq!(condition.message, WHY);
    assert_eq!(scheduled.world.events("FailedScheduling"), [WHY]);
    assert_eq!(tell_all(&mut scheduled), 0, "it is told once");
}

#[test]
fn another_leader_does_not_tell_again() {
    let mut scheduled = scheduled();
    let web = revision(
        &mut scheduled.world,
        "web",
        (100, 1000),
        &[("disk", "fast")],
    );
    pod(&mut scheduled.world, "web-1", &web);
    tell_all(&mut scheduled);
    let mut next = Scheduled::new(std::mem::take(&mut scheduled.world));
    next.world.changes.clear();
    tell_all(&mut next);
    next.follow();
    let events: Vec<_> = next
        .world
        .state
        .list::<barge_proto::v1::Event>(None)
        .collect();
    assert_eq!((events.len(), events[0].count), (1, 1));
}

#[test]
fn a_different_reason_is_told_but_not_at_every_change() {
    let mut scheduled = scheduled();
    let web = revision(
        &mut scheduled.world,
        "web",
        (100, 1000),
        &[("disk", "fast")],
    );
    let uid = pod(&mut scheduled.world, "web-1", &web);
    tell_all(&mut scheduled);
    scheduled.world.node("d", 1, 1, 1);
    assert_eq!(tell_all(&mut scheduled), 0);
    scheduled.now += Duration::from_secs(10);
    assert_eq!(tell_all(&mut scheduled), 1);
    let pod = scheduled.world.by_uid::<PodRecord>(&uid);
    let condition = &pod.status().conditions[0];
    assert!(condition.message.starts_with("0/4 nodes are available: 2 "));
}

#[test]
fn a_node_that_is_cordoned_or_not_ready_says_so() {
    let mut world = World::default();
    let node = world.node("a", 4000, 4000, 100);
    edit_node(&mut world, &node, |node| {
        node.spec.as_mut().unwrap().unschedulable = true;
    });
    let silent = world.node("b", 4000, 4000, 100);
    edit_node(&mut world, &silent, |node| {
        node.status.as_mut().unwrap().conditions.clear();
    });
    let mut scheduled = Scheduled::new(world);
    let web = revision(&mut scheduled.world, "web", (1, 1), &[]);
    pod(&mut scheduled.world, "web-1", &web);
    tell_all(&mut scheduled);
    assert_eq!(
        scheduled.world.events("FailedScheduling"),
        ["0/2 nodes are available: 1 node(s) were not ready, 1 node(s) were unschedulable"]
    );
}

#[test]
fn a_taint_keeps_away_who_does_not_tolerate_it() {
    let mut world = World::default();
    let node = world.node("a", 4000, 4000, 100);
    edit_node(&mut world, &node, |node| taint(node, true));
    let mut scheduled = Scheduled::new(world);
    let web = revision(&mut scheduled.world, "web", (1, 1), &[]);
    pod(&mut scheduled.world, "web-1", &web);
    tell_all(&mut scheduled);
    assert_eq!(
        scheduled.world.events("FailedScheduling"),
        ["0/1 nodes are available: 1 node(s) had untolerated taint(s)"]
    );
    let tolerant = tolerant_revision(&mut scheduled.world, "db");
    pod(&mut scheduled.world, "db-1", &tolerant);
    assert_eq!(scheduled.run().into_keys().collect::<Vec<_>>(), ["db-1"]);
    // Without the taint the other one has a place, too.
    edit_node(&mut scheduled.world, &node, |node| taint(node, false));
    assert_eq!(scheduled.run().len(), 2);
}

#[test]
fn a_claimed_port_keeps_away_who_claims_it_too() {
    let mut scheduled = scheduled();
    let web = claiming_revision(&mut scheduled.world, "web", "");
    for name in ["web-1", "web-2", "web-3", "web-4"] {
        pod(&mut scheduled.world, name, &web);
    }
    let nodes: BTreeSet<_> = scheduled.run().into_values().collect();
    assert!(nodes.iter().eq(["a", "b", "c"]), "{nodes:?}");
    tell_all(&mut scheduled);
    let why =
        "0/3 nodes are available: 3 node(s) didn't have free ports for the requested pod ports";
    assert_eq!(scheduled.world.events("FailedScheduling"), [why]);
    // The one that goes leaves the port to the next.
    let first = scheduled.world.pods().remove(0);
    scheduled.world.remove(&*first);
    assert_eq!(scheduled.run().len(), 3);
}

#[test]
fn nobody_is_told_who_has_a_place() {
    let mut scheduled = scheduled();
    let web = revision(
        &mut scheduled.world,
        "web",
        (100, 1000),
        &[("disk", "fast")],
    );
    pod(&mut scheduled.world, "web-1", &web);
    assert_eq!(scheduled.place(10), []);
    let untold = scheduled.cluster.queue.untold(100);
    let node = scheduled.world.node("d", 4000, 4000, 100);
    edit_node(&mut scheduled.world, &node, |node| {
        let labels = &mut node.metadata.as_mut().unwrap().labels;
        labels.insert("disk".to_owned(), "fast".to_owned());
    });
    assert_eq!(scheduled.run().len(), 1);
    let mut stamp = scheduled.world.stamp();
    let (pod, why) = &untold[0];
    let mut draft = Draft::new();
    tell(&scheduled.world.state, pod, why, &mut stamp, &mut draft);
    assert_eq!(draft, Draft::new());
}
