//! What an apply of a Node may change.

use super::*;

#[test]
fn nodes_are_labelled_and_cordoned_but_not_made() {
    let mut state = state();
    let cordoned = |name: &str| -> Object {
        Node {
            metadata: meta("", name),
            spec: Some(NodeSpec {
                unschedulable: true,
                ..NodeSpec::default()
            }),
            ..Node::default()
        }
        .into()
    };
    assert_eq!(
        one(&mut state, cordoned("n1")).unwrap(),
        ApplyOutcome::Configured
    );
    let node: Node = get(&state, Kind::Node, "", "n1");
    let spec = node.spec.unwrap();
    assert!(spec.unschedulable);
    assert_eq!(spec.pod_cidr, "10.244.0.0/24");
    let error = one(&mut state, cordoned("n2")).unwrap_err();
    assert!(error.to_string().contains("--join"));
}

fn tainted(name: &str, taints: &[(&str, &str)]) -> Object {
    let taints = taints.iter().map(|(key, effect)| Taint {
        key: (*key).to_owned(),
        effect: (*effect).to_owned(),
        ..Taint::default()
    });
    Node {
        metadata: meta("", name),
        spec: Some(NodeSpec {
            taints: taints.collect(),
            ..NodeSpec::default()
        }),
        ..Node::default()
    }
    .into()
}

/// Changes a node as the leader does.
fn edit_node(state: &mut State, edit: impl FnOnce(&mut Node)) {
    let mut node = Node::clone(state.get::<Node>("", "n1").unwrap());
    edit(&mut node);
    let mut draft = Draft::new();
    draft.put_status(node.clone());
    draft.put(node);
    commit(state, draft);
}

fn taint_keys(state: &State) -> Vec<String> {
    let node: Node = get(state, Kind::Node, "", "n1");
    let taints = node.spec.unwrap().taints;
    taints.into_iter().map(|taint| taint.key).collect()
}

/// All managers know of taints.
fn tainting() -> State {
    let mut state = state();
    let cluster = ClusterRecord::clone(state.cluster().unwrap());
    let mut draft = Draft::new();
    draft.put(ClusterRecord {
        feature_level: barge_state::LOSS,
        ..cluster
    });
    commit(&mut state, draft);
    state
}

#[test]
fn nodes_are_tainted_and_what_the_leader_set_stays() {
    let mut state = tainting();
    let gpu = [("gpu", "NoSchedule"), ("dedicated", "NoExecute")];
    one(&mut state, tainted("n1", &gpu)).unwrap();
    let node: Node = get(&state, Kind::Node, "", "n1");
    let taints = node.spec.unwrap().taints;
    assert_eq!(taints[0].time_added, None);
    assert_eq!(taints[1].time_added, Some(STAMP.now));
    edit_node(&mut state, |node| {
        let unreachable = crate::controllers::taints::unreachable(STAMP.now);
        node.spec.as_mut().unwrap().taints.push(unreachable);
    });
    // Somebody who knows nothing of it, and somebody who read it.
    one(&mut state, tainted("n1", &gpu[..1])).unwrap();
    assert_eq!(taint_keys(&state), ["gpu", "node.barge.dev/unreachable"]);
    let read: Node = get(&state, Kind::Node, "", "n1");
    let outcome = one(&mut state, read.clone().into()).unwrap();
    assert_eq!(outcome, ApplyOutcome::Unchanged);
    // Nobody else sets it.
    edit_node(&mut state, |node| {
        node.spec.as_mut().unwrap().taints.truncate(1)
    });
    let set = [("node.barge.dev/unreachable", "NoExecute")];
    let error = one(&mut state, tainted("n1", &set))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("spec.taints") && error.contains("--confirm"),
        "{error}"
    );
}

#[test]
fn only_the_machine_of_a_silent_node_is_off() {
    let mut state = tainting();
    let off = [("node.barge.dev/out-of-service", "NoExecute")];
    // Also one that is not ready because its runtime does not answer: its agent is heard, and its containers run.
    for ready in [true, false] {
        edit_node(&mut state, |node| {
            let ready = crate::controllers::testing::condition("Ready", ready, STAMP.now);
            node.status.get_or_insert_default().conditions = vec![ready];
        });
        let error = one(&mut state, tainted("n1", &off))
            .unwrap_err()
            .to_string();
        assert!(error.contains("node n1 is heard"), "{error}");
    }
    edit_node(&mut state, |node| node.status = None);
    one(&mut state, tainted("n1", &off)).unwrap();
    assert_eq!(taint_keys(&state), ["node.barge.dev/out-of-service"]);
}

#[test]
fn what_older_managers_do_not_know_waits_for_them() {
    let mut state = state();
    let (draft, _) = planned(&state, vec![tainted("n1", &[("gpu", "NoSchedule")])]).unwrap();
    let outcome = state.apply(1, draft.build("t".to_owned(), None)).outcome;
    let refusal = outcome.refusal.unwrap().message;
    assert!(refusal.contains("upgrade all managers first"), "{refusal}");
}

#[test]
fn a_node_that_is_being_deleted_stays_as_its_deletion_made_it() {
    let mut state = state();
    let mut draft = Draft::new();
    draft.put(ClusterRecord {
        feature_level: barge_state::LOSS,
        ..ClusterRecord::clone(state.cluster().unwrap())
    });
    commit(&mut state, draft);
    // It owns so much that this goes in slices.
    let in_default = |name: &str| {
        Some(ObjectMeta {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            uid: name.to_owned(),
            ..ObjectMeta::default()
        })
    };
    let mut draft = Draft::new();
    for number in 0..501 {
        let mut owned = ConfigMap {
            metadata: in_default(&format!("owned-{number}")),
            ..ConfigMap::default()
        };
        owned.meta_mut().owner_references = vec![OwnerReference {
            kind: "Node".to_owned(),
            name: "n1".to_owned(),
            uid: "n1".to_owned(),
            ..OwnerReference::default()
        }];
        draft.put(owned);
    }
    commit(&mut state, draft);
    let manifest = tainted("n1", &[]);
    assert_eq!(
        one(&mut state, manifest.clone()).unwrap(),
        ApplyOutcome::Unchanged
    );
    let mut draft = Draft::new();
    draft.remove::<Node>("n1");
    commit(&mut state, draft);
    let node: Node = get(&state, Kind::Node, "", "n1");
    assert!(node.spec.unwrap().unschedulable, "cordoned");
    let refused = one(&mut state, manifest).unwrap_err().to_string();
    assert!(refused.contains("n1 is being deleted"), "{refused}");
}
