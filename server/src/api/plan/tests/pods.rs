//! Labels and annotations of pods.

use std::collections::BTreeMap;

use barge_proto::v1::PodRecord;
use barge_state::OWN_LABELS;

use super::*;

/// A state where pods may have their own labels.
fn raised() -> State {
    let mut state = state();
    let mut draft = Draft::new();
    let mut cluster = state.cluster().unwrap().as_ref().clone();
    cluster.feature_level = OWN_LABELS;
    draft.put(cluster);
    commit(&mut state, draft);
    state
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

/// The pod with these labels and annotations.
fn labelled(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Object {
    let mut object = pod("web:1");
    let meta = object.metadata_mut().unwrap();
    (meta.labels, meta.annotations) = (map(labels), map(annotations));
    object
}

/// What there is, changed.
fn changed(state: &State, change: impl FnOnce(&mut ObjectMeta)) -> Object {
    let mut object = state.object(Kind::Pod, "default", "one").unwrap();
    change(object.metadata_mut().unwrap());
    object
}

fn shown(state: &State) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let found: Pod = get(state, Kind::Pod, "default", "one");
    let meta = found.metadata.unwrap();
    (meta.labels, meta.annotations)
}

fn record(state: &State) -> PodRecord {
    state.get::<PodRecord>("default", "one").unwrap().record()
}

#[test]
fn labels_and_annotations_of_a_pod_change() {
    let mut state = raised();
    one(
        &mut state,
        labelled(&[("app", "web"), ("tier", "front")], &[("note", "a")]),
    )
    .unwrap();
    let (first, size) = (
        record(&state),
        state.get::<PodRecord>("default", "one").unwrap().size(),
    );
    let wanted = changed(&state, |meta| {
        meta.labels = map(&[("app", "debug"), ("by", "ann")]);
        meta.annotations.clear();
    });
    assert_eq!(
        replace(&mut state, wanted.clone()).unwrap(),
        ApplyOutcome::Configured
    );
    assert_eq!(
        shown(&state),
        (map(&[("app", "debug"), ("by", "ann")]), map(&[]))
    );
    // Only the difference is kept.
    let kept = record(&state);
    assert_eq!(
        kept.metadata.as_ref().unwrap().labels,
        map(&[("app", "debug"), ("by", "ann")])
    );
    assert_eq!(
        (kept.removed_labels, kept.removed_annotations),
        (vec!["tier".to_owned()], vec!["note".to_owned()])
    );
    // What was read before is not put over it, and what is as it was changes nothing.
    assert!(replace(&mut state, wanted).is_err());
    let same = changed(&state, |_| ());
    assert_eq!(replace(&mut state, same).unwrap(), ApplyOutcome::Unchanged);
    // Back to the template, nothing is left of it.
    let back = changed(&state, |meta| {
        meta.labels = map(&[("app", "web"), ("tier", "front")]);
        meta.annotations = map(&[("note", "a")]);
    });
    assert_eq!(replace(&mut state, back).unwrap(), ApplyOutcome::Configured);
    let mut last = record(&state);
    last.metadata.as_mut().unwrap().resource_version =
        first.metadata.as_ref().unwrap().resource_version.clone();
    assert_eq!(last, first);
    assert_eq!(
        state.get::<PodRecord>("default", "one").unwrap().size(),
        size
    );
}

#[test]
fn an_apply_leaves_what_others_set_and_drops_what_the_pod_was_made_with() {
    let mut state = raised();
    one(
        &mut state,
        labelled(&[("app", "web"), ("tier", "front")], &[]),
    )
    .unwrap();
    let debug = changed(&state, |meta| {
        meta.labels = map(&[("app", "debug"), ("tier", "front"), ("by", "ann")]);
    });
    replace(&mut state, debug).unwrap();
    let again = labelled(&[("app", "web")], &[("note", "a")]);
    assert_eq!(
        one(&mut state, again.clone()).unwrap(),
        ApplyOutcome::Configured
    );
    assert_eq!(
        shown(&state),
        (map(&[("app", "web"), ("by", "ann")]), map(&[("note", "a")]))
    );
    assert_eq!(one(&mut state, again).unwrap(), ApplyOutcome::Unchanged);
}

#[test]
fn labels_are_checked_and_nothing_else_of_a_pod_changes() {
    let mut state = raised();
    one(&mut state, labelled(&[("app", "web")], &[])).unwrap();
    let wrong = changed(&state, |meta| {
        drop(meta.labels.insert("app".to_owned(), "no label".to_owned()))
    });
    let error = replace(&mut state, wrong).unwrap_err().to_string();
    assert!(
        error.contains("metadata.labels") && error.contains("no label"),
        "{error}"
    );
    let mut other = changed(&state, |meta| meta.labels.clear());
    let Some(object::Kind::Pod(pod)) = &mut other.kind else {
        panic!("no pod");
    };
    pod.spec.as_mut().unwrap().containers[0].image = "web:2".to_owned();
    let error = replace(&mut state, other).unwrap_err().to_string();
    assert!(error.contains("of a pod cannot change"), "{error}");
    assert_eq!(shown(&state).0, map(&[("app", "web")]));
}

#[test]
fn own_labels_wait_for_all_managers() {
    let mut state = state();
    let mut cluster = state.cluster().unwrap().as_ref().clone();
    cluster.feature_level = OWN_LABELS - 1;
    let mut draft = Draft::new();
    draft.put(cluster);
    commit(&mut state, draft);
    one(&mut state, labelled(&[("app", "web")], &[])).unwrap();
    for (labels, annotations) in [
        (&[("app", "debug")][..], &[][..]),
        (&[], &[]),
        (&[("app", "web")], &[("a", "b")]),
    ] {
        let wanted = changed(&state, |meta| {
            (meta.labels, meta.annotations) = (map(labels), map(annotations));
        });
        let objects = [wanted];
        let wanted = prepare(&KINDS, &objects, "", false).unwrap().replacing(9);
        let merged = merge(&wanted, &there(&state, &wanted), &vault(), &STAMP).unwrap();
        let (draft, _) = plan(&state, merged, &STAMP, true).unwrap().unwrap();
        let outcome = state.apply(1, draft.build("t".to_owned(), None)).outcome;
        let message = outcome.refusal.unwrap().message;
        assert_eq!(
            message,
            "this needs feature level 9, the cluster is at 8: upgrade all managers first"
        );
    }
}

#[test]
fn a_pod_of_a_controller_keeps_what_an_apply_leaves_out() {
    let mut state = raised();
    one(&mut state, labelled(&[("app", "web"), ("hash", "1")], &[])).unwrap();
    // As a controller makes them: the template belongs to its owner, and has an annotation of the managers.
    let made = record(&state);
    let mut template = state
        .by_uid::<barge_proto::v1::Revision>(&made.template_uid)
        .unwrap()
        .as_ref()
        .clone();
    let meta = template.metadata.as_mut().unwrap();
    meta.owner_references[0].uid = "web".to_owned();
    (meta.uid, meta.name) = ("theirs".to_owned(), "theirs".to_owned());
    let labels = template
        .template
        .as_mut()
        .unwrap()
        .metadata
        .as_mut()
        .unwrap();
    labels.annotations = map(&[("barge.dev/configuration", "x")]);
    let mut owner = Deployment::try_from(deployment("web", None)).ok().unwrap();
    let meta = owner.metadata.as_mut().unwrap();
    (meta.uid, meta.namespace) = ("web".to_owned(), "default".to_owned());
    let mut pod = made.clone();
    let meta = pod.metadata.as_mut().unwrap();
    (meta.uid, meta.name) = ("two".to_owned(), "two".to_owned());
    pod.template_uid = "theirs".to_owned();
    let mut draft = Draft::new();
    draft.put(owner);
    draft.put(template);
    draft.put(pod);
    commit(&mut state, draft);
    let mut partly = labelled(&[("by", "ann")], &[]);
    partly.metadata_mut().unwrap().name = "two".to_owned();
    assert_eq!(one(&mut state, partly).unwrap(), ApplyOutcome::Configured);
    let found: Pod = get(&state, Kind::Pod, "default", "two");
    let meta = found.metadata.unwrap();
    assert_eq!(
        meta.labels,
        map(&[("app", "web"), ("by", "ann"), ("hash", "1")])
    );
    // Nor does whoever puts the whole pod in its place take away what the managers keep.
    let mut whole = state.object(Kind::Pod, "default", "two").unwrap();
    let meta = whole.metadata_mut().unwrap();
    meta.annotations.clear();
    meta.labels.clear();
    replace(&mut state, whole).unwrap();
    let found: Pod = get(&state, Kind::Pod, "default", "two");
    let meta = found.metadata.unwrap();
    assert_eq!(
        (meta.labels, meta.annotations),
        (map(&[]), map(&[("barge.dev/configuration", "x")]))
    );
}

#[test]
fn a_pod_that_its_namespace_would_not_let_in_any_more_is_labelled() {
    let mut state = raised();
    one(&mut state, labelled(&[("app", "web")], &[])).unwrap();
    let mut draft = Draft::new();
    let mut namespace = state
        .get::<Namespace>("", "default")
        .unwrap()
        .as_ref()
        .clone();
    namespace.metadata.as_mut().unwrap().labels =
        map(&[("pod-security.kubernetes.io/enforce", "restricted")]);
    draft.put(namespace);
    commit(&mut state, draft);
    let debug = changed(&state, |meta| meta.labels.clear());
    assert_eq!(
        replace(&mut state, debug).unwrap(),
        ApplyOutcome::Configured
    );
}
