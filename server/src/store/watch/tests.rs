#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use barge_proto::v1::{ConfigMap, Namespace, ObjectMeta, PodRecord};
use barge_state::{PackedPod, Stored};
use futures::FutureExt;
use proptest::prelude::*;

use barge_state::RecordKind;

use super::*;

fn meta(namespace: &str, name: &str) -> Option<ObjectMeta> {
    Some(ObjectMeta {
        name: name.into(),
        namespace: namespace.into(),
        uid: format!("{namespace}/{name}"),
        ..ObjectMeta::default()
    })
}

fn pod(revision: u64, namespace: &str, before: Option<&str>, after: &str) -> Changed {
    let record = |node: &str| {
        Stored::Pod(Arc::new(PackedPod::new(PodRecord {
            metadata: meta(namespace, "p"),
            node_uid: node.into(),
            ..PodRecord::default()
        })))
    };
    Changed {
        revision,
        before: before.map(record),
        after: Some(record(after)),
        template: None,
    }
}

fn namespace(revision: u64) -> Changed {
    let record = Namespace {
        metadata: meta("", "n"),
        ..Namespace::default()
    };
    Changed {
        revision,
        before: None,
        after: Some(Stored::Namespace(Arc::new(record))),
        template: None,
    }
}

fn hub() -> Arc<Hub> {
    Arc::new(Hub::new(64 << 20, 1_000_000))
}

/// Everything there is for a watch at the moment.
fn drain(watch: &mut Watch) -> Result<Vec<u64>, Lagged> {
    let mut seen = Vec::new();
    loop {
        // Long stretches yield in between.
        let next = (0..100).find_map(|_| watch.next().now_or_never());
        match next {
            Some(changes) => seen.extend(changes?.iter().map(|change| change.revision)),
            None => return Ok(seen),
        }
    }
}

#[test]
fn a_change_reaches_those_it_concerns() {
    let hub = hub();
    let scope = |kinds: &[RecordKind], namespace: Option<&str>, node: Option<&str>| Scope {
        kinds: kinds.to_vec(),
        namespace: namespace.map(str::to_owned),
        node: node.map(str::to_owned),
        name: None,
    };
    let pods = &[RecordKind::Pod];
    let mut all = hub.watch(0, Scope::all()).unwrap();
    let mut in_a = hub.watch(0, scope(pods, Some("a"), None)).unwrap();
    let mut on_1 = hub.watch(0, scope(pods, None, Some("1"))).unwrap();
    let mut on_1_in_a = hub.watch(0, scope(pods, Some("a"), Some("1"))).unwrap();
    let mut services = hub.watch(0, Scope::kinds([RecordKind::Service])).unwrap();
    hub.applied(vec![
        pod(1, "a", None, ""),
        pod(2, "b", Some(""), "1"),
        namespace(3),
    ]);
    hub.applied(vec![
        pod(4, "a", Some("1"), "2"),
        pod(5, "a", Some("2"), "2"),
    ]);
    assert_eq!(drain(&mut all).unwrap(), [1, 2, 3, 4, 5]);
    assert_eq!(drain(&mut in_a).unwrap(), [1, 4, 5]);
    assert_eq!(
        drain(&mut on_1).unwrap(),
        [2, 4],
        "also when it leaves the node"
    );
    assert_eq!(drain(&mut on_1_in_a).unwrap(), [4]);
    assert_eq!(drain(&mut services).unwrap(), [0; 0]);
    assert_eq!(services.progress(), 5, "nothing up to here concerned it");
}

#[test]
fn what_several_scopes_are_about_comes_in_order_and_once() {
    let hub = hub();
    let on_1 = Scope {
        node: Some("1".to_owned()),
        ..Scope::kinds([RecordKind::Pod])
    };
    let both = || {
        let common = Scope::kinds([RecordKind::Namespace, RecordKind::Service]);
        [on_1.clone(), common, on_1.clone()]
    };
    let mut waiting = hub.watch(0, both()).unwrap();
    for revision in (1..=300).step_by(3) {
        hub.applied(vec![
            pod(revision, "a", None, "1"),
            pod(revision + 1, "a", None, "2"),
            namespace(revision + 2),
        ]);
    }
    let mut late = hub.watch(0, both()).unwrap();
    let concerned: Vec<_> = (1..=300).filter(|revision| revision % 3 != 2).collect();
    assert_eq!(drain(&mut waiting).unwrap(), concerned);
    assert_eq!(drain(&mut late).unwrap(), concerned);
    drop((waiting, late));
    assert!(hub.lock().index.is_empty());
}

#[tokio::test]
async fn what_came_meanwhile_is_gathered() {
    let hub = hub();
    let mut watch = hub.watch(0, Scope::all()).unwrap();
    let count = 4 * QUEUE as u64;
    (1..=count).for_each(|revision| hub.applied(vec![namespace(revision)]));
    let mut changes = watch.next().await.unwrap();
    watch.gather(&mut changes, usize::MAX).await.unwrap();
    assert_eq!(changes.len() as u64, count);
    assert_eq!(watch.progress(), count);
    // Of nothing there is nothing more.
    watch.gather(&mut changes, usize::MAX).await.unwrap();
    assert_eq!(changes.len() as u64, count);
}

#[test]
fn a_burst_is_caught_up_from_the_history() {
    let hub = hub();
    let mut watch = hub.watch(0, Scope::all()).unwrap();
    let count = 5 * QUEUE as u64;
    for revision in 1..=count {
        hub.applied(vec![namespace(revision)]);
    }
    assert!(
        hub.lock()
            .watchers
            .values()
            .all(|watcher| watcher.queue.len() <= QUEUE)
    );
    assert!(watch.progress() < count);
    assert_eq!(drain(&mut watch).unwrap(), (1..=count).collect::<Vec<_>>());
    hub.applied(vec![namespace(count + 1)]);
    assert_eq!(drain(&mut watch).unwrap(), [count + 1]);
}

#[test]
fn slower_than_the_history_means_lost() {
    let hub = Arc::new(Hub::new(1 << 20, 100));
    let mut watch = hub.watch(0, Scope::all()).unwrap();
    for revision in 1..=1000 {
        hub.applied(vec![namespace(revision)]);
    }
    // What was queued for it is still given, in order; then there is a gap.
    assert_eq!(drain(&mut watch), Err(Lagged));
    assert_eq!(
        hub.watch(1, Scope::all()).err(),
        Some(Expired { floor: 900 })
    );
    let mut resumed = hub.watch(990, Scope::all()).unwrap();
    assert_eq!(
        drain(&mut resumed).unwrap(),
        (991..=1000).collect::<Vec<_>>()
    );
}

#[test]
fn old_changes_go_and_take_no_watch_along() {
    let hub = hub();
    let begin = Instant::now();
    let after = |seconds| begin + Duration::from_secs(seconds);
    let mut reads = hub.watch(0, Scope::all()).unwrap();
    let mut stands_still = hub.watch(0, Scope::all()).unwrap();
    // More than what is kept for one watch.
    hub.applied((1..=600).map(namespace).collect());
    assert_eq!(hub.forget_old(after(0)), 0);
    assert_eq!(drain(&mut reads).unwrap().len(), 600);
    assert_eq!(hub.forget_old(after(299)), 0);
    let (changes, bytes) = hub.size();
    assert_eq!((changes, hub.forget_old(after(300))), (600, bytes));
    assert_eq!(hub.size(), (0, 0));
    // Who has seen all of it goes on; who has not has to list again.
    hub.applied(vec![namespace(601)]);
    assert_eq!(drain(&mut reads), Ok(vec![601]));
    assert_eq!(drain(&mut stands_still), Err(Lagged));
    assert_eq!(
        drain(&mut hub.watch(600, Scope::all()).unwrap()),
        Ok(vec![601])
    );
    assert!(hub.watch(599, Scope::all()).is_err());
}

#[test]
fn a_watch_that_nothing_concerned_for_long_takes_a_burst() {
    let hub = hub();
    let begin = Instant::now();
    let mut idle = hub.watch(0, Scope::kinds([RecordKind::Pod])).unwrap();
    hub.applied((1..=10).map(namespace).collect());
    hub.forget_old(begin);
    hub.forget_old(begin + Duration::from_secs(300));
    assert_eq!(hub.size(), (0, 0));
    // More than what is kept for one watch.
    let burst = (11..=610).map(|revision| pod(revision, "a", None, "n"));
    hub.applied(burst.collect());
    assert_eq!(drain(&mut idle).unwrap().len(), 600);
}

#[test]
fn a_replaced_state_ends_watches_that_missed_it() {
    let hub = hub();
    hub.applied(vec![namespace(1)]);
    let mut old = hub.watch(1, Scope::all()).unwrap();
    let mut ahead = hub.watch(60, Scope::all()).unwrap();
    hub.replaced(50);
    assert_eq!(drain(&mut old), Err(Lagged));
    hub.applied(vec![namespace(60), namespace(61)]);
    assert_eq!(
        drain(&mut ahead).unwrap(),
        [61],
        "what it has seen elsewhere is not repeated"
    );
    assert!(hub.watch(49, Scope::all()).is_err());
}

fn config_map(revision: u64, name: &str) -> Changed {
    let record = ConfigMap {
        metadata: meta("shop", name),
        ..ConfigMap::default()
    };
    Changed {
        revision,
        before: None,
        after: Some(Stored::ConfigMap(Arc::new(record))),
        template: None,
    }
}

#[test]
fn a_watch_of_names_hears_of_these_and_may_go_over_to_others() {
    let named = |name: &str| Scope {
        namespace: Some("shop".into()),
        name: Some(name.into()),
        ..Scope::kinds([RecordKind::ConfigMap])
    };
    let hub = hub();
    let mut watch = hub.watch(0, vec![named("web"), named("db")]).unwrap();
    hub.applied(vec![config_map(1, "web"), config_map(2, "other")]);
    assert_eq!(drain(&mut watch).unwrap(), [1]);
    watch.rescope(vec![named("other"), named("db")]);
    hub.applied(vec![config_map(3, "web"), config_map(4, "other")]);
    hub.applied(vec![config_map(5, "db")]);
    assert_eq!(drain(&mut watch).unwrap(), [4, 5]);
    assert_eq!(watch.progress(), 5);
    // More than fits into its queue: the history is looked through by the same names.
    let many = (6..900).map(|revision| config_map(revision, "other"));
    hub.applied(many.chain([config_map(900, "web")]).collect());
    assert_eq!(drain(&mut watch).unwrap().len(), 894);
    drop(watch);
    assert!(hub.lock().index.is_empty());
}

#[test]
fn nothing_of_a_watch_remains() {
    let hub = hub();
    let node = Scope {
        node: Some("1".into()),
        ..Scope::kinds([RecordKind::Pod])
    };
    let watches = [
        hub.watch(0, Scope::all()).unwrap(),
        hub.watch(0, node).unwrap(),
    ];
    assert_eq!(hub.len(), 2);
    drop(watches);
    assert!(hub.is_empty());
    assert!(hub.lock().index.is_empty());
}

proptest! {
    /// However writes, reads and new watches interleave, each watch sees exactly what it is about, in order.
    #[test]
    fn ordered_and_without_gaps(steps in proptest::collection::vec((0u8..4, 0u64..40, 0usize..3), 1..200)) {
        let hub = hub();
        let namespaces = ["a", "b", "c"];
        let mut log: Vec<(u64, usize)> = Vec::new();
        let mut watches: Vec<(Watch, u64, usize, Vec<u64>)> = Vec::new();
        for (step, count, which) in steps {
            match step {
                0 => {
                    let start = log.len() as u64 + 1;
                    let changes: Vec<_> = (start..start + count * 10)
                        .map(|revision| (revision, (revision as usize + which) % 3))
                        .collect();
                    log.extend(&changes);
                    hub.applied(
                        changes.iter().map(|(r, n)| pod(*r, namespaces[*n], None, "")).collect(),
                    );
                }
                1 => {
                    let after = count.min(log.len() as u64);
                    let scope = Scope {
                        namespace: Some(namespaces[which].into()),
                        ..Scope::kinds([RecordKind::Pod])
                    };
                    // The history may have dropped it.
                    if let Ok(watch) = hub.watch(after, scope) {
                        watches.push((watch, after, which, Vec::new()));
                    }
                }
                _ => for (watch, _, _, seen) in &mut watches {
                    if let Some(changes) = watch.next().now_or_never() {
                        seen.extend(changes.unwrap().iter().map(|change| change.revision));
                    }
                },
            }
        }
        for (mut watch, after, which, mut seen) in watches {
            seen.extend(drain(&mut watch).unwrap());
            let expected: Vec<_> =
                log.iter().filter(|(r, n)| *r > after && *n == which).map(|(r, _)| *r).collect();
            prop_assert_eq!(seen, expected);
        }
    }
}
