//! Annotations of the managers, and those that look like them.

use barge_proto::configuration::ROLL;

use super::*;

#[test]
fn rolling_with_the_configuration_is_switched_on_and_off_by_appliers() {
    let mut state = state();
    let asking = |value: &str| {
        let mut object = deployment("web", Some(1));
        let annotations = &mut object.metadata_mut().unwrap().annotations;
        annotations.insert(ROLL.to_owned(), value.to_owned());
        object
    };
    let asks = |state: &State| {
        let found: Deployment = get(state, Kind::Deployment, "default", "web");
        found.metadata.unwrap().annotations.get(ROLL).cloned()
    };
    one(&mut state, asking("true")).unwrap();
    assert_eq!(asks(&state).as_deref(), Some("true"));
    let error = one(&mut state, asking("yes")).unwrap_err().to_string();
    assert!(
        error.contains(ROLL) && error.contains("\"true\" or \"false\""),
        "{error}"
    );
    one(&mut state, deployment("web", Some(1))).unwrap();
    assert_eq!(asks(&state), None);
    let mut whole = state.object(Kind::Deployment, "default", "web").unwrap();
    let annotations = &mut whole.metadata_mut().unwrap().annotations;
    annotations.insert(ROLL.to_owned(), "true".to_owned());
    replace(&mut state, whole.clone()).unwrap();
    assert_eq!(asks(&state).as_deref(), Some("true"));
    let mut whole = state.object(Kind::Deployment, "default", "web").unwrap();
    whole.metadata_mut().unwrap().annotations.clear();
    replace(&mut state, whole).unwrap();
    assert_eq!(asks(&state), None);
}

#[test]
fn what_a_built_in_role_has_learned_is_not_set_by_appliers() {
    const LEARNED: &str = "barge.dev/learned-level";
    let mut state = state();
    let mut draft = Draft::new();
    let mut raised = state.cluster().unwrap().as_ref().clone();
    raised.feature_level = barge_state::LEVEL;
    draft.put(raised);
    commit(&mut state, draft);
    let role = |learned: &str| ClusterRole {
        metadata: Some(ObjectMeta {
            annotations: [(LEARNED.to_owned(), learned.to_owned())].into(),
            ..meta("", "admin").unwrap()
        }),
        ..ClusterRole::default()
    };
    let mut there = role("9");
    there.metadata.as_mut().unwrap().uid = "admin".to_owned();
    let mut draft = Draft::new();
    draft.put(there);
    commit(&mut state, draft);
    let learned = |state: &State| {
        let found = get::<ClusterRole>(state, Kind::ClusterRole, "", "admin");
        found.metadata.unwrap().annotations.get(LEARNED).cloned()
    };
    for said in ["0", "10"] {
        one(&mut state, role(said).into()).unwrap();
        assert_eq!(learned(&state).as_deref(), Some("9"));
    }
    let mut without = role("");
    without.metadata.as_mut().unwrap().annotations.clear();
    one(&mut state, without.into()).unwrap();
    assert_eq!(learned(&state).as_deref(), Some("9"));
    // Nor by those who put a whole object in its place, as it was shown to them or without.
    for shown in [true, false] {
        let mut object = state.object(Kind::ClusterRole, "", "admin").unwrap();
        let meta = object.metadata_mut().unwrap();
        meta.labels = labels(if shown { "a" } else { "b" });
        if !shown {
            meta.annotations.clear();
        }
        assert_eq!(
            replace(&mut state, object).unwrap(),
            ApplyOutcome::Configured
        );
        assert_eq!(learned(&state).as_deref(), Some("9"));
    }
    let object = state.object(Kind::ClusterRole, "", "admin").unwrap();
    assert_eq!(
        replace(&mut state, object).unwrap(),
        ApplyOutcome::Unchanged
    );
    // Nor in a role that is made anew.
    let mut draft = Draft::new();
    draft.remove::<ClusterRole>("admin");
    commit(&mut state, draft);
    one(&mut state, role("10").into()).unwrap();
    assert_eq!(learned(&state), None);
}

#[test]
fn a_program_does_not_replace_what_it_knows_in_part() {
    let mut state = state();
    let mut draft = Draft::new();
    let mut raised = state.cluster().unwrap().as_ref().clone();
    raised.feature_level = barge_state::LEVEL;
    draft.put(raised);
    commit(&mut state, draft);
    let mut object = deployment("web", Some(1));
    let Some(object::Kind::Deployment(it)) = &mut object.kind else {
        panic!("another kind");
    };
    let template = it.spec.as_mut().unwrap().template.as_mut().unwrap();
    template.spec.as_mut().unwrap().hostname = "web".to_owned();
    one(&mut state, object).unwrap();
    let mut read = state.object(Kind::Deployment, "default", "web").unwrap();
    read.metadata_mut().unwrap().labels = labels("new");
    let refused = replace_by(7, &mut state, read.clone()).unwrap_err();
    assert!(matches!(refused, ApiError::Precondition(_)), "{refused}");
    assert!(refused.to_string().contains("newer version"), "{refused}");
    assert_eq!(replace(&mut state, read).unwrap(), ApplyOutcome::Configured);
}
