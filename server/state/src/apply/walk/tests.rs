#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

//! The walk against the recursion that it replaces, over any graph of owners: the same changes in the same order.

use barge_proto::v1::{
    Bind, Change, Condition, ConfigMap, Node, NodeSpec, NodeStatus, ObjectMeta, OwnerReference,
    PodRecord, Quantity, Revision, Transaction, change::Change as Action,
};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{changed::Changed, limits::Limits, state::State};

fn recursive_mark(work: &mut Work<'_>, record: Stored) {
    if delete::is_marked(&record) {
        return;
    }
    let uid = record.uid().to_owned();
    delete::mark(work, record);
    let (simple, owners): (Vec<_>, Vec<_>) = remove::orphans(work, &uid)
        .into_iter()
        .partition(|owned| matches!(owned, Stored::Pod(_) | Stored::Revision(_)));
    for owner in owners {
        recursive_mark(work, owner);
    }
    recursive_reach(work, simple);
}

fn recursive_reach(work: &mut Work<'_>, mut queue: Vec<Stored>) {
    let mut templates = Vec::new();
    while let Some(next) = queue.pop() {
        let Some(current) = work.tables.find_uid(next.kind(), next.uid()) else {
            continue;
        };
        match current {
            Stored::Revision(revision) => {
                queue.extend(remove::orphans(work, revision.uid()));
                templates.push(revision);
            }
            Stored::Pod(pod) if terminate::is_running(work.tables, &pod) => {
                terminate::mark(work, &pod, None, "");
            }
            other => queue.extend(remove::delete(work, other)),
        }
    }
    for template in templates {
        recursive_release(work, template.uid());
    }
}

fn recursive_release(work: &mut Work<'_>, uid: &str) {
    let Some(template) = work.tables.revisions.by_uid(uid).cloned() else {
        return;
    };
    if work.tables.pods_by_template.count(uid) == 0 {
        let left = remove::delete(work, Stored::Revision(template));
        recursive_reach(work, left);
    } else if template.meta().deletion_timestamp.is_none() {
        let mut marked = template.as_ref().clone();
        marked.meta_mut().deletion_timestamp = Some(work.now);
        work.write(Some(template), marked);
    }
}

const RECORDS: usize = 14;

/// What a record is, by its number.
#[derive(Debug, Clone, Copy)]
enum Is {
    ConfigMap,
    Template,
    Pod,
    BoundPod,
}

#[derive(Debug, Clone)]
struct Graph {
    /// Of each record what it is, and by whom it is owned in what way.
    records: Vec<(Is, Vec<(usize, bool)>)>,
    root: usize,
}

fn graphs() -> impl Strategy<Value = Graph> {
    let is = prop_oneof![
        3 => Just(Is::ConfigMap),
        2 => Just(Is::Template),
        1 => Just(Is::Pod),
        1 => Just(Is::BoundPod),
    ];
    let owners = vec((0..RECORDS, any::<bool>()), 0..3);
    let records = vec((is, owners), RECORDS);
    (records, 0..RECORDS).prop_map(|(mut records, root)| {
        // The recursion does not end in a circle of templates.
        for number in 0..RECORDS {
            let is_template = |is| matches!(is, Is::Template);
            if is_template(records[number].0) {
                let kinds: Vec<_> = records.iter().map(|(is, _)| is_template(*is)).collect();
                let owners = &mut records[number].1;
                owners.retain(|(owner, _)| *owner < number || !kinds[*owner]);
            }
        }
        Graph { records, root }
    })
}

fn meta(number: usize, owners: &[(usize, bool)]) -> Option<ObjectMeta> {
    let owner = |(owner, blocks): &(usize, bool)| OwnerReference {
        kind: "ConfigMap".to_owned(),
        uid: format!("u{owner}"),
        block_owner_deletion: Some(*blocks),
        ..OwnerReference::default()
    };
    Some(ObjectMeta {
        namespace: "default".to_owned(),
        name: format!("n{number}"),
        uid: format!("u{number}"),
        owner_references: owners.iter().map(owner).collect(),
        ..ObjectMeta::default()
    })
}

fn node() -> Node {
    let ready = Condition {
        r#type: "Ready".to_owned(),
        status: "True".to_owned(),
        ..Condition::default()
    };
    let room = Quantity {
        value: "100".to_owned(),
    };
    Node {
        metadata: Some(ObjectMeta {
            name: "node".to_owned(),
            uid: "node".to_owned(),
            ..ObjectMeta::default()
        }),
        spec: Some(NodeSpec::default()),
        status: Some(NodeStatus {
            allocatable: ["cpu", "memory", "pods"]
                .map(|name| (name.to_owned(), room.clone()))
                .into(),
            conditions: vec![ready],
            ..NodeStatus::default()
        }),
        ..Node::default()
    }
}

impl Graph {
    /// Pods are made from the first template that there is.
    fn state(&self) -> State {
        let template = self.records.iter();
        let template = template
            .enumerate()
            .find(|(_, (is, _))| matches!(is, Is::Template))
            .map(|(number, _)| number);
        let mut changes = vec![Action::Put(node().into_record())];
        let mut binds = Vec::new();
        for (number, (is, owners)) in self.records.iter().enumerate() {
            let metadata = meta(number, owners);
            let record = match (is, template) {
                (Is::Template, _) => Revision {
                    metadata,
                    ..Revision::default()
                }
                .into_record(),
                (Is::Pod | Is::BoundPod, Some(template)) => PodRecord {
                    metadata,
                    template_uid: format!("u{template}"),
                    ..PodRecord::default()
                }
                .into_record(),
                _ => ConfigMap {
                    metadata,
                    ..ConfigMap::default()
                }
                .into_record(),
            };
            changes.push(Action::Put(record));
            if matches!(is, Is::BoundPod) && template.is_some() {
                binds.push(Action::Bind(Bind {
                    pod_uid: format!("u{number}"),
                    node_uid: "node".to_owned(),
                }));
            }
        }
        changes.extend(binds);
        let changes = changes.into_iter().map(|change| Change {
            change: Some(change),
        });
        let mut state = State::default();
        let outcome = state
            .apply(
                1,
                Transaction {
                    changes: changes.collect(),
                    ..Transaction::default()
                },
            )
            .outcome;
        assert_eq!(outcome.refusal, None);
        state
    }

    fn root(&self, work: &Work<'_>) -> Option<Stored> {
        let uid = format!("u{}", self.root);
        let kinds = crate::kind::RecordKind::ALL.iter();
        kinds
            .filter_map(|kind| work.tables.find_uid(*kind, &uid))
            .next()
    }

    /// What deleting the root changes, and what of it is left to be collected.
    fn delete(&self, how: impl FnOnce(&mut Work<'_>, Stored)) -> Vec<Changed> {
        let mut state = self.state();
        let mut work = Work::new(&mut state.tables, state.revision, None, Limits::default());
        let root = self.root(&work).expect("it was made");
        how(&mut work, root);
        remove::collect(&mut work);
        work.finish().1
    }
}

proptest! {
    #[test]
    fn it_marks_as_the_recursion_does(graph in graphs()) {
        let walked = graph.delete(|work, root| walk(work, Step::Mark(root)));
        prop_assert_eq!(walked, graph.delete(recursive_mark));
    }

    #[test]
    fn it_removes_as_the_recursion_does(graph in graphs()) {
        let walked = graph.delete(|work, root| walk(work, Step::Reach(vec![root])));
        let recursive = graph.delete(|work, root| recursive_reach(work, vec![root]));
        prop_assert_eq!(walked, recursive);
    }
}
