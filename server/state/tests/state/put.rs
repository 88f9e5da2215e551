//! Creating and changing records.

use barge_proto::v1::{
    Deployment, DeploymentStatus, Made, ManagerRecord, Node, NodeSpec, ObjectMeta, PodRecord,
    Precondition, RecordRef, RefusalReason, Secret, Service, Transaction, precondition::Must,
};
use barge_state::{
    Kind, ORDER, RecordKind, State,
    made::{made_uid, next_plan},
};

use crate::fixtures::*;

#[test]
fn a_new_record_gets_revision_generation_and_time() {
    let mut state = State::default();
    let applied = accept(&mut state, [put(deployment("d1", 3))]);
    assert_eq!(applied.outcome.revision, 1);
    let kept = state.by_uid::<Deployment>("d1").unwrap();
    let meta = kept.meta();
    assert_eq!(meta.resource_version, "1");
    assert_eq!(meta.generation, 1);
    assert_eq!(meta.creation_timestamp, Some(time(1000)));
    assert_eq!(applied.changes[0].revision, 1);
    assert_eq!(applied.changes[0].before, None);
    assert_eq!(applied.changes[0].of::<Deployment>().1, Some(kept));
}

#[test]
fn an_equal_record_changes_nothing() {
    let mut state = state([put(deployment("d1", 3))]);
    let typed = Deployment {
        api_version: "apps/v1".to_owned(),
        kind: "Deployment".to_owned(),
        ..deployment("d1", 3)
    };
    let applied = accept(&mut state, [put(typed)]);
    assert_eq!(applied.changes, []);
    assert_eq!(state.revision(), 1);
}

#[test]
fn a_secret_in_clear_is_refused() {
    let mut state = State::default();
    let secret = |bytes: usize| Secret {
        metadata: Some(ObjectMeta {
            uid: "s1".to_owned(),
            name: "db".to_owned(),
            namespace: "default".to_owned(),
            ..ObjectMeta::default()
        }),
        data: [("password".to_owned(), vec![1; bytes])].into(),
        ..Secret::default()
    };
    let refused = refuse(&mut state, [put(secret(7))]);
    assert_eq!(refused, RefusalReason::Invalid);
    accept(&mut state, [put(secret(48))]);
}

#[test]
fn generation_follows_the_spec_only() {
    let mut state = state([put(deployment("d1", 3))]);
    let generation = |state: &State| state.by_uid::<Deployment>("d1").unwrap().meta().generation;
    let mut labelled = deployment("d1", 3);
    labelled
        .meta_mut()
        .labels
        .insert("a".to_owned(), "b".to_owned());
    accept(&mut state, [put(labelled)]);
    assert_eq!(generation(&state), 1);
    let status = Some(DeploymentStatus {
        replicas: 3,
        ..DeploymentStatus::default()
    });
    accept(
        &mut state,
        [put_status(Deployment {
            status,
            ..deployment("d1", 9)
        })],
    );
    assert_eq!(generation(&state), 1);
    let kept = state.by_uid::<Deployment>("d1").unwrap();
    assert_eq!(
        kept.spec.as_ref().unwrap().replicas,
        Some(3),
        "a status report has no spec"
    );
    assert_eq!(kept.meta().labels.len(), 1, "nor labels");
    accept(&mut state, [put(deployment("d1", 4))]);
    assert_eq!(generation(&state), 2);
    let kept = state.by_uid::<Deployment>("d1").unwrap();
    assert_eq!(
        kept.status.as_ref().unwrap().replicas,
        3,
        "a put leaves the status"
    );
    assert_eq!(kept.meta().creation_timestamp, Some(time(1000)));
    assert_eq!(state.revision(), 4);
}

#[test]
fn a_status_for_a_record_that_is_gone_is_ignored() {
    let mut state = State::default();
    assert_eq!(
        accept(&mut state, [put_status(deployment("d1", 1))]).changes,
        []
    );
    assert_eq!(
        refuse(
            &mut state,
            [put(manager("m1", 1)), put_status(manager("m1", 1))]
        ),
        RefusalReason::Invalid
    );
}

#[test]
fn names_and_uids_stay_with_their_record() {
    let mut state = state([put(deployment("d1", 1))]);
    let mut impostor = deployment("d1", 1);
    impostor.meta_mut().uid = "d2".to_owned();
    assert_eq!(refuse(&mut state, [put(impostor)]), RefusalReason::Exists);
    let mut renamed = deployment("d1", 1);
    renamed.meta_mut().name = "other".to_owned();
    assert_eq!(refuse(&mut state, [put(renamed)]), RefusalReason::Invalid);
    assert_eq!(
        refuse(&mut state, [put(deployment("", 1))]),
        RefusalReason::Invalid
    );
}

#[test]
fn a_refused_change_takes_the_others_back() {
    let mut state = state([put(deployment("d1", 1)), put(node("n1"))]);
    let changes = [
        put(deployment("d2", 1)),
        put(deployment("d1", 5)),
        remove(RecordKind::Node, "n1"),
        put(deployment("", 1)),
    ];
    assert_eq!(refuse(&mut state, changes), RefusalReason::Invalid);
    assert_eq!(state.revision(), 2);
}

fn manager(uid: &str, raft_id: u64) -> ManagerRecord {
    ManagerRecord {
        metadata: Some(meta("", uid, uid)),
        raft_id,
        ..ManagerRecord::default()
    }
}

fn node_with_range(uid: &str, range: &str) -> Node {
    let spec = Some(NodeSpec {
        pod_cidr: range.to_owned(),
        ..NodeSpec::default()
    });
    Node { spec, ..node(uid) }
}

#[test]
fn addresses_ports_ranges_and_raft_ids_are_given_once() {
    let mut state = state([
        put(service("s1", "10.96.0.1", &[30000])),
        put(service("s2", "None", &[])),
        put(node_with_range("n1", "10.244.1.0/24")),
        put(manager("m1", 1)),
    ]);
    for taken in [
        put(service("s3", "10.96.0.1", &[])),
        put(service("s3", "10.96.0.3", &[30001, 30000])),
        put(node_with_range("n2", "10.244.1.0/24")),
        put(manager("m2", 1)),
    ] {
        assert_eq!(refuse(&mut state, [taken]), RefusalReason::Taken);
    }
    accept(&mut state, [put(service("s3", "None", &[]))]);
    accept(&mut state, [put(service("s1", "10.96.0.2", &[30001]))]);
    accept(&mut state, [put(service("s4", "10.96.0.1", &[30000]))]);
    assert_eq!(
        state.service_with_cluster_ip("10.96.0.1").unwrap().uid(),
        "s4"
    );
    accept(
        &mut state,
        [
            remove(RecordKind::Service, "s4"),
            put(service("s5", "10.96.0.1", &[])),
        ],
    );
    assert_eq!(
        state.service_with_node_port(30000, "TCP"),
        None::<&std::sync::Arc<Service>>
    );
    crate::indexes::check(&state);
}

fn made(kind: RecordKind, plan: u64) -> Made {
    let kind = kind.number();
    Made { kind, plan }
}

#[test]
fn of_two_plans_that_saw_the_same_the_second_makes_nothing() {
    let mut state = state([
        put(cluster(ORDER)),
        put(deployment("d1", 1)),
        put(revision("r1", "1", "1Gi")),
    ]);
    let owner = RecordRef {
        kind: RecordKind::Deployment.number(),
        uid: "d1".to_owned(),
        ..RecordRef::default()
    };
    let makes = |seen: u64, random: u8| {
        let plan = next_plan(seen, u16::from(random));
        let mut pod = owned_by(pod(&made_uid(plan, [random; 16]), "r1"), "d1");
        pod.metadata.as_mut().unwrap().name = format!("pod-{random}");
        Transaction {
            feature_level: ORDER,
            changes: tx([put(pod)]).changes,
            ..demanding(Must::Made(made(RecordKind::Pod, seen)), owner.clone())
        }
    };
    assert_eq!(state.latest_plan::<PodRecord>("d1"), 0);
    assert_eq!(state.apply(TERM, makes(0, 1)).outcome.refusal, None);
    let first = state.latest_plan::<PodRecord>("d1");
    assert_eq!(first, next_plan(0, 1));
    let refused = refuse_tx(&mut state, &makes(0, 2));
    assert_eq!(refused.reason(), RefusalReason::Conflict);
    assert_eq!(state.apply(TERM, makes(first, 3)).outcome.refusal, None);
    let second = state.latest_plan::<PodRecord>("d1");
    // What somebody else gave it, with any uid, and what went, refuses nothing.
    let foreign = owned_by(pod("ff-foreign", "r1"), "d1");
    accept(
        &mut state,
        [
            put(foreign),
            remove(RecordKind::Pod, &made_uid(first, [1; 16])),
        ],
    );
    assert_eq!(state.apply(TERM, makes(second, 4)).outcome.refusal, None);
    let third = state.latest_plan::<PodRecord>("d1");
    for (plan, random) in [(second, 3), (third, 4)] {
        accept(
            &mut state,
            [remove(RecordKind::Pod, &made_uid(plan, [random; 16]))],
        );
    }
    assert_eq!(state.apply(TERM, makes(second, 5)).outcome.refusal, None);
    // What it saw went, and others came with the same count.
    let refused = refuse_tx(&mut state, &makes(third, 7));
    assert_eq!(refused.reason(), RefusalReason::Conflict);
    // Managers that do not know it are not asked.
    let mut old = crate::fixtures::state([put(cluster(ORDER - 1)), put(deployment("d1", 1))]);
    let refused = refuse_tx(&mut old, &makes(0, 6));
    assert_eq!(refused.reason(), RefusalReason::FeatureLevel);
}

fn demanding(must: Must, target: RecordRef) -> Transaction {
    let precondition = Precondition {
        target: Some(target),
        must: Some(must),
    };
    Transaction {
        preconditions: vec![precondition],
        ..tx([put(node("n1"))])
    }
}

#[test]
fn preconditions_hold_or_refuse() {
    let state = state([put(deployment("d1", 1)), put(deployment("d1", 2))]);
    let kind = RecordKind::Deployment.number();
    let named = |name: &str| RecordRef {
        kind,
        namespace: "default".to_owned(),
        name: name.to_owned(),
        ..RecordRef::default()
    };
    let by_uid = |uid: &str| RecordRef {
        kind,
        uid: uid.to_owned(),
        ..RecordRef::default()
    };
    use RefusalReason::{Conflict, Exists, Invalid, NotFound};
    for (must, target, expected) in [
        (Must::Absent(true), named("other"), None),
        (Must::Absent(true), named("name-of-d1"), Some(Exists)),
        (Must::Uid("d1".to_owned()), named("name-of-d1"), None),
        (
            Must::Uid("d2".to_owned()),
            named("name-of-d1"),
            Some(Conflict),
        ),
        (Must::Uid("d1".to_owned()), named("other"), Some(NotFound)),
        (Must::Generation(2), by_uid("d1"), None),
        (Must::Generation(1), by_uid("d1"), Some(Conflict)),
        (Must::Revision(2), by_uid("d1"), None),
        (Must::Revision(1), by_uid("d1"), Some(Conflict)),
        (Must::Revision(1), by_uid("d2"), Some(NotFound)),
        (Must::Exists(true), by_uid("d1"), None),
        (Must::Exists(true), by_uid("d2"), Some(NotFound)),
        (Must::Made(made(RecordKind::Pod, 0)), by_uid("d1"), None),
        (
            Must::Made(made(RecordKind::Pod, 0)),
            by_uid("d2"),
            Some(NotFound),
        ),
        (Must::Absent(true), RecordRef::default(), Some(Invalid)),
    ] {
        let mut state = copy(&state);
        let case = format!("{must:?} of {target:?}");
        let tx = demanding(must, target);
        match expected {
            None => assert_eq!(
                state.apply(TERM, tx.clone()).outcome.refusal,
                None,
                "{case}"
            ),
            Some(expected) => assert_eq!(refuse_tx(&mut state, &tx).reason(), expected, "{case}"),
        }
    }
}

#[test]
fn work_of_another_term_is_refused() {
    let mut state = State::default();
    let of_term = |term| Transaction {
        term,
        ..tx([put(node("n1"))])
    };
    let refusal = refuse_tx(&mut state, &of_term(TERM - 1));
    assert_eq!(refusal.reason(), RefusalReason::WrongTerm);
    assert_eq!(state.apply(TERM, of_term(TERM)).outcome.refusal, None);
}

#[test]
fn references_have_to_lead_somewhere() {
    let mut state = State::default();
    let orphan = owned_by(revision("r1", "1", "1Gi"), "d1");
    assert_eq!(
        refuse(&mut state, [put(orphan.clone())]),
        RefusalReason::Conflict
    );
    assert_eq!(
        refuse(&mut state, [put(pod("p1", "r1"))]),
        RefusalReason::Invalid
    );
    accept(
        &mut state,
        [put(pod("p1", "r1")), put(orphan), put(deployment("d1", 1))],
    );
}

#[test]
fn a_template_never_changes() {
    let mut state = state([
        put(revision("r1", "1", "1Gi")),
        put(revision("r2", "1", "1Gi")),
    ]);
    let reason = refuse(&mut state, [put(revision("r1", "2", "1Gi"))]);
    assert_eq!(reason, RefusalReason::Invalid);
    let mut renumbered = revision("r1", "1", "1Gi");
    renumbered.number = 5;
    accept(&mut state, [put(renumbered), put(pod("p1", "r1"))]);
    assert_eq!(
        refuse(&mut state, [put(pod("p1", "r2"))]),
        RefusalReason::Invalid
    );
    let mut bound = pod("p2", "r1");
    bound.node_uid = "n1".to_owned();
    assert_eq!(refuse(&mut state, [put(bound)]), RefusalReason::Invalid);
}

#[test]
fn counts_of_a_revision_need_a_level_and_outlive_a_put() {
    use barge_proto::v1::{Revision, RevisionStatus};
    use barge_state::{REPLICA_SETS, needed};
    let counted = Revision {
        status: Some(RevisionStatus {
            desired: 3,
            ..RevisionStatus::default()
        }),
        ..revision("r1", "1", "1Gi")
    };
    let report = put_status(counted.clone());
    assert_eq!(needed(&report), REPLICA_SETS);
    assert_eq!(needed(&put(revision("r1", "1", "1Gi"))), 0);
    let mut state = state([
        put(cluster(REPLICA_SETS - 1)),
        put(revision("r1", "1", "1Gi")),
    ]);
    let status = |state: &State| state.by_uid::<Revision>("r1").unwrap().status;
    let reports = || Transaction {
        feature_level: REPLICA_SETS,
        ..tx([report.clone()])
    };
    let refused = refuse_tx(&mut state, &reports());
    assert_eq!(refused.reason(), RefusalReason::FeatureLevel);
    // A plan's put says nothing about them.
    accept(&mut state, [put(counted.clone())]);
    assert_eq!(status(&state), None);
    accept(&mut state, [put(cluster(REPLICA_SETS))]);
    assert_eq!(state.apply(TERM, reports()).outcome.refusal, None);
    assert_eq!(status(&state), counted.status);
    accept(
        &mut state,
        [put(Revision {
            number: 2,
            ..revision("r1", "1", "1Gi")
        })],
    );
    assert_eq!(status(&state), counted.status);
    crate::indexes::check(&state);
}
