#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod large;

use std::collections::{BTreeMap, BTreeSet};

use barge_proto::{
    manifest::{self, Source},
    v1::{Deployment, Quantity, Service},
};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: default
  labels: {team: blue}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: web:1
        env:
        - {name: A, value: '1'}
        ports:
        - containerPort: 80
";

fn read(text: &str) -> Object {
    let mut read = manifest::parse([Source::new("test", text)]).unwrap_or_else(|e| panic!("{e}"));
    read.remove(0).object
}

fn applier(manager: &str, force: bool) -> Applier<'_> {
    Applier {
        manager,
        force,
        now: Time::from_seconds(1),
    }
}

/// Applies in a name, over what there is.
fn by(manager: &str, live: Option<&Object>, config: &Object) -> Object {
    apply(live, config, &applier(manager, false)).unwrap()
}

fn value(object: &Object) -> Value {
    set(object).unwrap()
}

/// What is at a JSON pointer.
fn at<'a>(value: &'a Value, pointer: &str) -> Option<&'a Value> {
    value.pointer(pointer)
}

const IMAGE: &str = "/spec/template/spec/containers/0/image";
const POLICY: &str = "/spec/template/spec/containers/0/imagePullPolicy";

#[test]
fn the_same_again_is_the_same() {
    let config = read(WEB);
    let first = by("barge", None, &config);
    let second = by("barge", Some(&first), &config);
    assert_eq!(first, second);
    let mut printed = first.clone();
    printed.metadata_mut().unwrap().resource_version = "7".to_owned();
    let third = by("somebody else", Some(&printed), &printed);
    assert_eq!(third, printed, "what was read says nothing new");
}

#[test]
fn what_is_left_out_goes_and_what_others_set_stays() {
    let first = by("barge", None, &read(WEB));
    let sidecar = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default, labels: {mesh: 'on'}}
spec:
  template:
    spec:
      containers:
      - {name: proxy, image: 'proxy:2'}
";
    let second = by("mesh", Some(&first), &read(sidecar));
    let text = WEB
        .replace("  labels: {team: blue}\n", "")
        .replace("        env:\n        - {name: A, value: '1'}\n", "");
    let third = value(&by("barge", Some(&second), &read(&text)));
    assert_eq!(at(&third, "/metadata/labels"), Some(&json!({"mesh": "on"})));
    let containers = at(&third, "/spec/template/spec/containers").unwrap();
    assert_eq!(containers[0]["name"], "web");
    assert_eq!(containers[0].get("env"), None);
    assert_eq!(containers[1]["image"], "proxy:2");
    // The other one leaves, with all that it brought.
    let none = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: default}\n";
    let fourth = value(&by("mesh", Some(&second), &read(none)));
    assert_eq!(fourth, value(&first));
}

#[test]
fn a_conflict_names_field_value_and_owner_and_can_be_forced() {
    let first = by("barge", None, &read(WEB));
    let other = read(&WEB.replace("web:1", "web:2"));
    let error = apply(Some(&first), &other, &applier("ci", false)).unwrap_err();
    let ApiError::FieldConflict(violations) = error else {
        panic!("{error}");
    };
    assert_eq!(violations.len(), 1, "{violations:?}");
    assert_eq!(
        violations[0].field,
        "deployment.apps/web: spec.template.spec.containers[name=web].image"
    );
    let text = &violations[0].description;
    assert!(
        text.contains("web:1") && text.contains("\"barge\""),
        "{text}"
    );
    let forced = apply(Some(&first), &other, &applier("ci", true)).unwrap();
    assert_eq!(at(&value(&forced), IMAGE), Some(&json!("web:2")));
    // Now it is the other's: the first one's wish is the conflict.
    let back = apply(Some(&forced), &read(WEB), &applier("barge", false)).unwrap_err();
    assert!(back.to_string().contains("\"ci\""), "{back}");
}

#[test]
fn what_two_set_alike_belongs_to_both() {
    let first = by("barge", None, &read(WEB));
    let both = by("ci", Some(&first), &read(WEB));
    let none = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: default}\n";
    let left = by("barge", Some(&both), &read(none));
    assert_eq!(value(&left), value(&both));
    let gone = value(&by("ci", Some(&left), &read(none)));
    assert_eq!(at(&gone, IMAGE), None);
}

#[test]
fn defaults_are_made_anew() {
    let first = by("barge", None, &read(&WEB.replace("web:1", "web:latest")));
    assert_eq!(at(&value(&first), POLICY), Some(&json!("Always")));
    let second = value(&by("barge", Some(&first), &read(WEB)));
    assert_eq!(at(&second, POLICY), Some(&json!("IfNotPresent")));
    let recreate = WEB.replace(
        "  replicas: 3",
        "  strategy: {type: Recreate}\n  replicas: 3",
    );
    let third = value(&by("barge", Some(&first), &read(&recreate)));
    assert_eq!(
        at(&third, "/spec/strategy"),
        Some(&json!({"type": "Recreate"}))
    );
}

#[test]
fn a_scale_belongs_to_who_scaled() {
    let first = by("barge", None, &read(WEB));
    let scaled = |manager: &str| {
        let mut object = first.clone();
        let Some(object::Kind::Deployment(deployment)) = &mut object.kind else {
            panic!("{object}");
        };
        deployment.spec.as_mut().unwrap().replicas = Some(5);
        let entries = update(&first, &object, manager, Time::from_seconds(2)).unwrap();
        object.metadata_mut().unwrap().managed_fields = entries;
        object
    };
    let replicas = |object: &Object| at(&value(object), "/spec/replicas").cloned();
    let without = read(&WEB.replace("  replicas: 3\n", ""));
    // By another party: a wish is a conflict, no wish lets it be.
    let other = scaled("autoscaler");
    let error = apply(Some(&other), &read(WEB), &applier("barge", false)).unwrap_err();
    assert!(error.to_string().contains("spec.replicas"), "{error}");
    assert_eq!(
        replicas(&by("barge", Some(&other), &without)),
        Some(json!(5))
    );
    // By the same: the manifest wins, when it says something.
    let own = scaled("barge");
    assert_eq!(
        replicas(&by("barge", Some(&own), &read(WEB))),
        Some(json!(3))
    );
    assert_eq!(replicas(&by("barge", Some(&own), &without)), Some(json!(5)));
}

#[test]
fn what_is_put_in_place_belongs_to_who_changed_it() {
    let first = by("barge", None, &read(WEB));
    let same = replace(&first, &first, &applier("ann", false)).unwrap();
    assert_eq!(same, first, "nothing is new");
    let mut edited = first.clone();
    let Some(object::Kind::Deployment(web)) = &mut edited.kind else {
        panic!("another kind");
    };
    let metadata = web.metadata.as_mut().unwrap();
    metadata.labels.remove("team");
    metadata.labels.insert("tier".into(), "front".into());
    web.spec.as_mut().unwrap().replicas = Some(5);
    let second = replace(&first, &edited, &applier("ann", false)).unwrap();
    assert_eq!(
        at(&value(&second), "/metadata/labels"),
        Some(&json!({"tier": "front"})),
        "what others set goes, too"
    );
    // A manifest that says nothing of them leaves the changes alone.
    let text = WEB
        .replace("  labels: {team: blue}\n", "")
        .replace("  replicas: 3\n", "");
    let third = value(&by("barge", Some(&second), &read(&text)));
    assert_eq!(at(&third, "/metadata/labels/tier"), Some(&json!("front")));
    assert_eq!(at(&third, "/spec/replicas"), Some(&json!(5)));
    // One that says something else has a conflict with who changed it.
    let error = apply(Some(&second), &read(WEB), &applier("barge", false)).unwrap_err();
    assert!(error.to_string().contains("ann"), "{error}");
}

#[test]
fn items_keep_their_places() {
    let containers = |names: &[&str]| {
        let items = names.iter().map(|n| format!("{{name: {n}, image: x}}"));
        let items: Vec<_> = items.collect();
        read(&format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec: {{template: {{spec: {{containers: [{}]}}}}}}",
            items.join(", ")
        ))
    };
    let names = |object: &Object| {
        let value = value(object);
        let items = at(&value, "/spec/template/spec/containers").unwrap();
        let names = items.as_array().unwrap().iter();
        names
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let first = by("a", None, &containers(&["a", "c"]));
    let second = by("b", Some(&first), &containers(&["b"]));
    assert_eq!(names(&second), ["a", "c", "b"]);
    assert_eq!(
        names(&by("a", Some(&second), &containers(&["a", "c"]))),
        ["a", "c", "b"]
    );
    assert_eq!(
        names(&by("a", Some(&second), &containers(&["c", "a"]))),
        ["c", "a", "b"]
    );
    assert_eq!(
        names(&by("a", Some(&second), &containers(&["a", "x", "c"]))),
        ["a", "x", "c", "b"]
    );
}

#[test]
fn ports_are_told_apart_with_their_default_protocol() {
    let first = by("barge", None, &read(WEB));
    let second = by(
        "barge",
        Some(&first),
        &read(&WEB.replace("containerPort: 80", "{containerPort: 80, protocol: TCP}")),
    );
    let value = value(&second);
    let ports = at(&value, "/spec/template/spec/containers/0/ports").unwrap();
    assert_eq!(ports.as_array().unwrap().len(), 1);
}

#[test]
fn what_the_server_assigned_does_not_stick() {
    let service = |kind: &str| {
        read(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{type: {kind}, ports: [{{port: 80}}]}}"
        ))
    };
    let mut first: Service = by("barge", None, &service("NodePort")).try_into().unwrap();
    let spec = first.spec.as_mut().unwrap();
    spec.cluster_ip = "10.96.0.1".to_owned();
    spec.ports[0].node_port = 30_000;
    let first = Object::from(first);
    let second: Service = by("barge", Some(&first), &service("ClusterIP"))
        .try_into()
        .unwrap();
    assert_eq!(second.spec.unwrap().ports[0].node_port, 0);
}

#[test]
fn owners_that_cannot_be_read_are_named_and_give_way_to_force() {
    let config = read(WEB);
    let mut live = by("barge", None, &config);
    let entries = &mut live.metadata_mut().unwrap().managed_fields;
    entries[0].fields_v1.as_mut().unwrap().raw = r#"{"f:a":"#.repeat(200);
    let refused = apply(Some(&live), &config, &applier("other", false)).unwrap_err();
    let said = refused.to_string();
    assert!(
        said.contains("\"barge\"") && said.contains("force"),
        "{said}"
    );
    let forced = apply(Some(&live), &config, &applier("other", true)).unwrap();
    let managers = forced.metadata().managed_fields.iter();
    let managers: Vec<_> = managers.map(|it| it.manager.as_str()).collect();
    assert_eq!(managers, ["other"]);
}

#[test]
fn sets_survive_their_encoding() {
    let config = read(WEB);
    let fields = walk::fields_of(&value(&config), Type::root(&config));
    assert_eq!(FieldSet::decode(&fields.encode()).unwrap(), fields);
    assert!(fields.encode().len() < 600, "{}", fields.encode());
    assert!(FieldSet::decode("nonsense").is_err());
    assert!(FieldSet::decode("").unwrap().is_empty());
    let entries = by("barge", None, &config).metadata().managed_fields.clone();
    assert_eq!(
        (entries.len(), entries[0].api_version.as_str()),
        (1, "apps/v1")
    );
}

#[test]
fn what_has_no_meaning_is_refused_with_its_object() {
    let mut config: Deployment = read(WEB).try_into().unwrap();
    let template = config.spec.as_mut().unwrap().template.as_mut().unwrap();
    let container = &mut template.spec.as_mut().unwrap().containers[0];
    // Only a program can send this: a manifest would not have been read.
    let lots = Quantity {
        value: "lots".to_owned(),
    };
    let resources = container.resources.get_or_insert_default();
    resources.limits.insert("cpu".to_owned(), lots);
    let error = apply(None, &config.into(), &applier("x", false)).unwrap_err();
    assert_eq!(error.reason().0, "INVALID", "{error}");
    assert!(error.to_string().contains("deployment.apps/web"), "{error}");
}

// A model: each party's labels, and who set what is there.

#[derive(Debug, Clone)]
enum Step {
    /// A party applies these labels, by force or not.
    Apply(u8, BTreeMap<u8, u8>, bool),
    /// A party sets one of them.
    Set(u8, u8, u8),
}

#[derive(Debug, Default)]
struct Model {
    labels: BTreeMap<u8, u8>,
    /// Who applied or set what.
    applied: BTreeMap<u8, BTreeSet<u8>>,
    set: BTreeMap<u8, BTreeSet<u8>>,
}

impl Model {
    fn owners(&self, key: u8, but: u8) -> bool {
        let of = |owned: &BTreeMap<u8, BTreeSet<u8>>| {
            owned
                .iter()
                .any(|(who, keys)| *who != but && keys.contains(&key))
        };
        of(&self.applied) || of(&self.set)
    }

    /// Whether it was accepted.
    fn apply(&mut self, who: u8, wants: &BTreeMap<u8, u8>, force: bool) -> bool {
        let disputed: BTreeSet<_> = wants
            .iter()
            .filter(|(key, value)| self.owners(**key, who) && self.labels.get(key) != Some(value))
            .map(|(key, _)| *key)
            .collect();
        if !disputed.is_empty() && !force {
            return false;
        }
        for owned in [&mut self.applied, &mut self.set] {
            for (other, keys) in owned.iter_mut() {
                keys.retain(|key| *other == who || !disputed.contains(key));
            }
        }
        let before = self.applied.remove(&who).unwrap_or_default();
        let own = self.set.entry(who).or_default().clone();
        for key in before {
            if !wants.contains_key(&key) && !own.contains(&key) && !self.owners(key, who) {
                self.labels.remove(&key);
            }
        }
        self.labels.extend(wants);
        self.set
            .entry(who)
            .or_default()
            .retain(|key| !wants.contains_key(key));
        self.applied.insert(who, wants.keys().copied().collect());
        true
    }

    fn set(&mut self, who: u8, key: u8, value: u8) {
        if self.labels.insert(key, value) == Some(value) {
            return;
        }
        for owned in [&mut self.applied, &mut self.set] {
            for keys in owned.values_mut() {
                keys.remove(&key);
            }
        }
        self.set.entry(who).or_default().insert(key);
    }
}

fn labelled(labels: &BTreeMap<u8, u8>) -> Object {
    let mut object = read("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n");
    let labels = labels.iter().map(|(k, v)| (k.to_string(), v.to_string()));
    object.metadata_mut().unwrap().labels = labels.collect();
    object
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let labels = || proptest::collection::btree_map(0..4_u8, 0..3_u8, 0..4);
    let step = prop_oneof![
        3 => (0..3_u8, labels(), any::<bool>()).prop_map(|(who, l, f)| Step::Apply(who, l, f)),
        1 => (0..3_u8, 0..4_u8, 0..3_u8).prop_map(|(who, key, v)| Step::Set(who, key, v)),
    ];
    proptest::collection::vec(step, 1..20)
}

proptest! {
    #[test]
    fn owners_are_as_in_the_model(steps in steps()) {
        let mut model = Model::default();
        let mut live = by("first", None, &labelled(&BTreeMap::new()));
        for step in steps {
            match step {
                Step::Apply(who, labels, force) => {
                    let name = who.to_string();
                    let applied = apply(Some(&live), &labelled(&labels), &applier(&name, force));
                    prop_assert_eq!(applied.is_ok(), model.apply(who, &labels, force));
                    if let Ok(applied) = applied {
                        let again = by(&name, Some(&applied), &labelled(&labels));
                        prop_assert_eq!(&again, &applied, "once more changes nothing");
                        live = applied;
                    }
                }
                Step::Set(who, key, label) => {
                    model.set(who, key, label);
                    let mut changed = live.clone();
                    let metadata = changed.metadata_mut().unwrap();
                    metadata.labels.insert(key.to_string(), label.to_string());
                    let same = metadata.labels == live.metadata().labels;
                    if !same {
                        let name = who.to_string();
                        let entries = update(&live, &changed, &name, Time::from_seconds(3)).unwrap();
                        changed.metadata_mut().unwrap().managed_fields = entries;
                    }
                    live = changed;
                }
            }
            let labels: BTreeMap<_, _> = model.labels.iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect();
            prop_assert_eq!(&live.metadata().labels, &labels);
        }
    }
}
