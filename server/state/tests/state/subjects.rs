//! Bindings are found by whom they are for, whatever happens to them.

use barge_proto::v1::{ClusterRoleBinding, RoleBinding, Subject};
use barge_state::{RecordKind, State};

use crate::fixtures::{accept, copy, meta, namespace, put, remove, state};

fn subject(text: &str) -> Subject {
    let (kind, name) = text.split_once(' ').unwrap();
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    Subject {
        kind: kind.to_owned(),
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        ..Subject::default()
    }
}

fn binding(place: &str, uid: &str, subjects: &[&str]) -> RoleBinding {
    RoleBinding {
        metadata: Some(meta(place, uid, uid)),
        subjects: subjects.iter().map(|text| subject(text)).collect(),
        ..RoleBinding::default()
    }
}

fn everywhere(uid: &str, subjects: &[&str]) -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: Some(meta("", uid, uid)),
        subjects: subjects.iter().map(|text| subject(text)).collect(),
        ..ClusterRoleBinding::default()
    }
}

/// The names of the bindings for a user and groups, in a namespace and everywhere.
fn of(state: &State, place: &str, user: &str, groups: &[&str]) -> (Vec<String>, Vec<String>) {
    let groups: Vec<_> = groups.iter().map(|group| (*group).to_owned()).collect();
    let here = state.role_bindings_for(place, user, &groups);
    let here = here
        .into_iter()
        .map(|b| b.metadata.as_ref().unwrap().name.clone());
    let all = state.cluster_role_bindings_for(user, &groups);
    let all = all
        .into_iter()
        .map(|b| b.metadata.as_ref().unwrap().name.clone());
    (here.collect(), all.collect())
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn by_user_group_and_service_account() {
    let state = state([
        put(namespace("shop")),
        put(namespace("lab")),
        put(binding(
            "shop",
            "a",
            &["User alice", "User alice", "Group devs"],
        )),
        put(binding(
            "lab",
            "b",
            &["User alice", "ServiceAccount shop/ci"],
        )),
        put(everywhere("c", &["Group devs"])),
    ]);
    let (here, all) = of(&state, "shop", "alice", &["devs"]);
    assert_eq!((here, all), (names(&["a", "a"]), names(&["c"])));
    assert_eq!(of(&state, "lab", "alice", &[]), (names(&["b"]), vec![]));
    let ci = barge_state::service_account_user("shop", "ci");
    assert_eq!(of(&state, "lab", &ci, &[]).0, names(&["b"]));
    // A user is no group, and nobody has what another's name begins with.
    assert_eq!(of(&state, "shop", "devs", &["alice"]), (vec![], vec![]));
    assert_eq!(of(&state, "shop", "ali", &[]), (vec![], vec![]));
}

#[test]
fn what_changes_and_goes_is_followed() {
    let mut state = state([
        put(namespace("shop")),
        put(binding("shop", "a", &["User alice", "User bob"])),
        put(everywhere("c", &["User alice"])),
    ]);
    accept(
        &mut state,
        [put(binding("shop", "a", &["User bob", "User carol"]))],
    );
    assert_eq!(of(&state, "shop", "alice", &[]), (vec![], names(&["c"])));
    assert_eq!(of(&state, "shop", "carol", &[]).0, names(&["a"]));
    accept(&mut state, [remove(RecordKind::ClusterRoleBinding, "c")]);
    assert_eq!(of(&state, "shop", "alice", &[]), (vec![], vec![]));
    let restored = copy(&state);
    assert_eq!(of(&restored, "shop", "bob", &[]).0, names(&["a"]));
    accept(&mut state, [remove(RecordKind::Namespace, "ns-shop")]);
    assert_eq!(of(&state, "shop", "bob", &[]).0, names(&[]));
}
