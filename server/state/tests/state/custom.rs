//! Objects of registered kinds: one kind of record, each kind with its own names.

use barge_proto::{
    kinds::{CustomKind, Registry},
    v1::{self, CustomObject, GroupVersionResource, Object, object},
};
use barge_state::{CUSTOM, Kind, RecordKind, State};

use crate::fixtures::{accept, meta, put};

fn widget(namespace: &str, resource: &str, name: &str) -> CustomObject {
    let record = format!("{resource}.example.com/{name}");
    CustomObject {
        api_version: "example.com/v1".to_owned(),
        kind: resource.to_owned(),
        metadata: Some(meta(namespace, &record, &format!("{namespace}/{record}"))),
        json: "{}".to_owned(),
    }
}

fn filled() -> State {
    let mut state = State::default();
    for namespace in ["a", "b", "c"] {
        for resource in ["gadgets", "widgets", "zebras"] {
            for name in ["one", "two"] {
                accept(&mut state, [put(widget(namespace, resource, name))]);
            }
        }
    }
    state
}

/// Namespaces and names of the records of a list.
fn listed(state: &State, namespace: Option<&str>, after: Option<(&str, &str)>) -> Vec<String> {
    let records = state.list_prefixed::<CustomObject>("widgets.example.com/", namespace, after);
    let records = records.map(|it| format!("{} {}", it.meta().namespace, it.meta().name));
    records.collect()
}

#[test]
fn a_list_has_one_kind_and_goes_on_where_it_stopped() {
    let state = filled();
    let all = listed(&state, None, None);
    assert_eq!(all.len(), 6);
    assert!(
        all.iter().all(|it| it.contains(" widgets.example.com/")),
        "{all:?}"
    );
    assert_eq!(
        all.iter().collect::<std::collections::BTreeSet<_>>().len(),
        6
    );
    assert_eq!(listed(&state, Some("b"), None), all[2..4]);
    for (index, last) in all.iter().enumerate() {
        let (namespace, name) = last.split_once(' ').unwrap();
        let after = Some((namespace, name));
        assert_eq!(
            listed(&state, None, after),
            all[index + 1..],
            "after {last}"
        );
        let rest: Vec<_> = all[index + 1..]
            .iter()
            .filter(|it| it.starts_with(namespace))
            .collect();
        assert_eq!(
            listed(&state, Some(namespace), after)
                .iter()
                .collect::<Vec<_>>(),
            rest
        );
    }
    // A place of another kind, or of nothing.
    assert_eq!(
        listed(&state, None, Some(("b", "gadgets.example.com/two"))),
        all[2..]
    );
    assert_eq!(
        listed(&state, None, Some(("b", "zebras.example.com/one"))),
        all[4..]
    );
    assert!(listed(&state, Some("d"), None).is_empty());
}

#[test]
fn an_object_is_shown_without_the_prefix_of_its_record() {
    let state = filled();
    let found = state.object(v1::Kind::Custom, "a", "widgets.example.com/one");
    let Some(Object {
        kind: Some(object::Kind::Custom(found)),
    }) = found
    else {
        panic!("{found:?}");
    };
    assert_eq!(found.metadata.unwrap().name, "one");
    assert_eq!(found.kind, "widgets");
}

#[test]
fn records_roles_and_the_log_agree_on_the_level_of_registered_kinds() {
    let kind = CustomKind {
        resource: GroupVersionResource {
            group: "example.com".to_owned(),
            version: "v1".to_owned(),
            resource: "widgets".to_owned(),
        },
        name: "Widget".to_owned(),
        singular: String::new(),
        namespaced: true,
    };
    let registered = Registry::default().register(&kind).unwrap();
    assert_eq!(RecordKind::Custom.level(), CUSTOM);
    assert_eq!(registered.level, CUSTOM);
}
