//! Pod Security when objects are applied.

use barge_proto::v1::SecurityContext;

use super::*;

fn namespace(name: &str, labels: &[(&str, &str)]) -> Object {
    let labels = labels.iter().map(|(mode, level)| {
        (
            format!("pod-security.kubernetes.io/{mode}"),
            (*level).to_owned(),
        )
    });
    Namespace {
        metadata: Some(ObjectMeta {
            name: name.to_owned(),
            labels: labels.collect(),
            ..ObjectMeta::default()
        }),
        ..Namespace::default()
    }
    .into()
}

fn privileged(mut object: Object, namespace: &str) -> Object {
    let context = Some(SecurityContext {
        privileged: Some(true),
        ..SecurityContext::default()
    });
    match &mut object.kind {
        Some(object::Kind::Pod(pod)) => {
            pod.spec.as_mut().unwrap().containers[0].security_context = context;
        }
        Some(object::Kind::Deployment(it)) => {
            let template = it.spec.as_mut().unwrap().template.as_mut().unwrap();
            template.spec.as_mut().unwrap().containers[0].security_context = context;
        }
        _ => panic!("no pods in it"),
    }
    object.metadata_mut().unwrap().namespace = namespace.to_owned();
    object
}

fn refusal(result: Result<ApplyOutcome, ApiError>) -> String {
    match result.unwrap_err() {
        ApiError::Invalid(violations) => violations
            .iter()
            .map(|it| format!("{}: {}", it.field, it.description))
            .collect::<Vec<_>>()
            .join("; "),
        other => panic!("{other}"),
    }
}

#[test]
fn a_namespace_that_says_nothing_has_the_baseline() {
    let mut state = state();
    for object in [deployment("web", None), pod("web:1")] {
        let said = refusal(one(&mut state, privileged(object, "default")));
        let expected = "containers[0].securityContext.privileged: true must be false \
                        (namespace default has pod-security.kubernetes.io/enforce=baseline)";
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn the_label_counts_from_the_request_on_that_sets_it() {
    let mut state = state();
    let mut raised = ClusterRecord::clone(state.cluster().unwrap());
    raised.feature_level = barge_state::LEVEL;
    let mut draft = Draft::new();
    draft.put(raised);
    commit(&mut state, draft);
    let free = namespace("free", &[("enforce", "privileged"), ("warn", "restricted")]);
    let all = vec![privileged(pod("web:1"), "free"), free];
    let (draft, planned) = planned(&state, all).unwrap();
    commit(&mut state, draft);
    let warned = planned[0].warnings.join("\n");
    assert!(warned.contains("pod/one: spec.containers[0].securityContext.privileged: true must be false at the level restricted"), "{warned}");
    // Later it is narrowed: what is there stays, and may be applied again; nothing new comes, and nothing changes.
    one(&mut state, privileged(deployment("web", Some(1)), "free")).unwrap();
    one(&mut state, namespace("free", &[("enforce", "restricted")])).unwrap();
    let again = one(&mut state, privileged(deployment("web", Some(1)), "free"));
    assert_eq!(again.unwrap(), ApplyOutcome::Unchanged);
    let said = refusal(one(
        &mut state,
        privileged(deployment("web", Some(2)), "free"),
    ));
    assert!(said.contains("enforce=restricted"), "{said}");
    let said = refusal(one(&mut state, namespace("free", &[("enforce", "none")])));
    assert!(
        said.contains("must be privileged, baseline or restricted"),
        "{said}"
    );
}
