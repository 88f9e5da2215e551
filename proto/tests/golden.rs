//! What is printed is Kubernetes' form, byte for byte; and the schema changes only where a reviewer sees it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/golden.rs"]
mod golden;

use std::{collections::BTreeSet, fmt::Write};

use barge_proto::{
    DESCRIPTOR_SET,
    auth::AuthTable,
    kinds::KINDS,
    manifest::{self, Source},
    schema::{Merge, Schema},
    v1::{CustomObject, Object, Pod, Role},
};
use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto, field_descriptor_proto as field,
};

const OBJECTS: &[&str] = &[
    "namespace",
    "node",
    "deployment",
    "pod",
    "service",
    "service_headless",
    "endpoints",
    "event",
    "secret",
    "config_map",
    "role",
    "cluster_role",
    "role_binding",
    "cluster_role_binding",
    "service_account",
    "pod_disruption_budget",
    "replica_set",
];

fn read(name: &str) -> (String, Object) {
    let text = golden::read(&format!("{name}.json"));
    let mut objects =
        manifest::parse([Source::new(name, text.clone())]).unwrap_or_else(|e| panic!("{e}"));
    (text, objects.remove(0).object)
}

#[test]
fn json_is_kubernetes_byte_for_byte() {
    let mut kinds = BTreeSet::new();
    for name in OBJECTS {
        let (text, object) = read(name);
        assert_eq!(manifest::to_json(&object).unwrap(), text, "{name}");
        assert_eq!(
            serde_json::from_str::<Object>(&text).unwrap(),
            object,
            "{name}"
        );
        kinds.insert(object.kind().as_str_name());
    }
    assert_eq!(kinds.len(), KINDS.len(), "a kind has no example: {kinds:?}");
}

#[test]
fn json_survives_yaml_and_grpc() {
    for name in OBJECTS {
        let (_, object) = read(name);
        let yaml = manifest::to_yaml(&object).unwrap();
        let again = manifest::parse([Source::new(*name, yaml)]).unwrap();
        assert_eq!(again[0].object, object, "{name}");
        assert_eq!(
            Object::decode(object.encode_to_vec().as_slice()).unwrap(),
            object
        );
    }
}

#[test]
fn yaml_looks_like_this() {
    let (_, object) = read("pod");
    golden::check("pod.yaml", &manifest::to_yaml(&object).unwrap());
}

#[test]
fn null_is_absent_and_zero_is_not() {
    let pod = |text: &str| serde_json::from_str::<Pod>(text).unwrap();
    let nulls = r#"{"metadata": {"labels": null, "name": null, "creationTimestamp": null}, "spec": {"containers": null}}"#;
    assert_eq!(pod(nulls), pod(r#"{"metadata": {}, "spec": {}}"#));
    let zero = pod(r#"{"spec": {"terminationGracePeriodSeconds": 0}}"#);
    assert_eq!(zero.spec.unwrap().termination_grace_period_seconds, Some(0));
}

#[test]
fn of_a_registered_kind_what_is_beside_the_metadata_is_kept_as_json() {
    let text = r#"{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a"},"rank":1,"spec":{"size":3}}"#;
    let read: CustomObject = serde_json::from_str(text).unwrap();
    assert_eq!(read.json, r#"{"rank":1,"spec":{"size":3}}"#);
    assert_eq!(read.metadata.as_ref().unwrap().name, "a");
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
    assert!(serde_json::from_str::<CustomObject>(r#"{"kind": 1}"#).is_err());
    let deep = "[".repeat(200) + &"]".repeat(200);
    let text = format!(r#"{{"kind": "Widget", "spec": {deep}}}"#);
    assert!(serde_json::from_str::<CustomObject>(&text).is_err());
}

#[test]
fn only_camel_case_is_accepted() {
    for text in [
        r#"{"api_version": "v1"}"#,
        r#"{"status": {"podIp": "10.0.0.1"}}"#,
        r#"{"status": {"pod_ip": "10.0.0.1"}}"#,
        r#"{"spec": {"restart_policy": "Always"}}"#,
    ] {
        let error = serde_json::from_str::<Pod>(text).unwrap_err().to_string();
        assert!(error.starts_with("unknown field"), "{text}: {error}");
    }
}

#[test]
fn quantities_are_numbers_or_strings() {
    let cpu = |value: &str| {
        let text = format!(
            r#"{{"spec": {{"containers": [{{"resources": {{"limits": {{"cpu": {value}}}}}}}]}}}}"#
        );
        let pod: Pod = serde_json::from_str(&text)?;
        let limits = &pod.spec.unwrap().containers[0]
            .resources
            .clone()
            .unwrap()
            .limits;
        Ok::<_, serde_json::Error>(limits["cpu"].value.clone())
    };
    for (value, canonical) in [
        ("2", "2"),
        ("0.5", "500m"),
        ("\"0.5\"", "500m"),
        ("1000", "1k"),
        ("1e3", "1k"),
    ] {
        assert_eq!(cpu(value).unwrap(), canonical, "{value}");
    }
    assert!(cpu("\"two\"").is_err() && cpu("true").is_err() && cpu("[]").is_err());
}

/// The whole schema in a form for reviewers. After an intended change: `UPDATE_GOLDEN=1 cargo test -p barge-proto`.
#[test]
fn the_schema_is_reviewed() {
    let set = FileDescriptorSet::decode(DESCRIPTOR_SET).unwrap();
    let auth = AuthTable::new().unwrap();
    let mut text = String::new();
    let mut files: Vec<_> = set
        .file
        .iter()
        .filter(|file| file.package() == "barge.v1")
        .collect();
    files.sort_by_key(|file| file.name());
    for file in files {
        writeln!(text, "# {}", file.name()).unwrap();
        for service in &file.service {
            list_service(&mut text, service, &auth);
        }
        for message in &file.message_type {
            list_message(&mut text, message);
        }
        for list in &file.enum_type {
            list_enum(&mut text, list);
        }
        text.push('\n');
    }
    golden::check("schema.txt", &text);
}

/// The registry in a form for reviewers, to be renewed as the schema.
#[test]
fn the_registry_is_reviewed() {
    let mut text = String::new();
    for info in KINDS {
        let scope = if info.namespaced {
            "in a namespace"
        } else {
            "of the cluster"
        };
        writeln!(
            text,
            "{} {} {}, {scope}",
            info.kind as i32, info.api_version, info.name
        )
        .unwrap();
        writeln!(
            text,
            "  names: {} {} {}",
            info.plural,
            info.singular,
            info.short.join(" ")
        )
        .unwrap();
        writeln!(text, "  verbs: {}", info.verbs().join(" ")).unwrap();
        writeln!(text, "  parts: {}", info.parts.join(" ")).unwrap();
        writeln!(
            text,
            "  roles: read {:?}, write {:?}",
            info.read, info.write
        )
        .unwrap();
        writeln!(text, "  selectable: {}", info.selectable.join(" ")).unwrap();
        writeln!(text, "  level: {}", info.level).unwrap();
    }
    let lines = text.lines().map(|line| line.trim_end().to_owned() + "\n");
    golden::check("kinds.txt", &lines.collect::<String>());
}

fn list_service(text: &mut String, service: &ServiceDescriptorProto, auth: &AuthTable) {
    writeln!(text, "service {}", service.name()).unwrap();
    for method in &service.method {
        let rule = auth
            .get(&format!("/barge.v1.{}/{}", service.name(), method.name()))
            .unwrap();
        let stream = |streaming| if streaming { "stream " } else { "" };
        let roles: Vec<_> = rule.roles.iter().map(Role::as_str_name).collect();
        writeln!(
            text,
            "  {}({}{}) -> {}{}  {} {} by {}",
            method.name(),
            stream(method.client_streaming()),
            plain(method.input_type()),
            stream(method.server_streaming()),
            plain(method.output_type()),
            rule.verb,
            rule.resource,
            roles.join(", "),
        )
        .unwrap();
    }
}

fn list_message(text: &mut String, message: &DescriptorProto) {
    writeln!(text, "message {}", message.name()).unwrap();
    for field in &message.field {
        let choice = match field.oneof_index {
            Some(index) if !field.proto3_optional() => {
                let choice = &message.oneof_decl[usize::try_from(index).unwrap()];
                format!("  (one of {})", choice.name())
            }
            _ => String::new(),
        };
        let schema = Schema::get().message(message.name()).unwrap();
        let merge = match &schema.field(field.json_name()).unwrap().merge {
            Merge::Items(keys) => {
                let names: Vec<_> = keys.iter().map(|key| key.name.as_str()).collect();
                format!("  (items by {})", names.join(", "))
            }
            Merge::Whole if type_of(message, field).starts_with("map") => "  (whole)".to_owned(),
            Merge::Whole | Merge::Parts => String::new(),
        };
        let (number, name) = (field.number(), field.json_name());
        writeln!(
            text,
            "  {number} {name}: {}{choice}{merge}",
            type_of(message, field)
        )
        .unwrap();
    }
}

fn type_of(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let name = plain(field.type_name());
    let entry = message
        .nested_type
        .iter()
        .find(|nested| name == format!("{}.{}", message.name(), nested.name()));
    if let Some(entry) = entry {
        let [key, value] = entry.field.as_slice() else {
            panic!("{name}")
        };
        return format!("map<{}, {}>", type_of(entry, key), type_of(entry, value));
    }
    let kind = match field.r#type() {
        field::Type::Message | field::Type::Enum => name.to_owned(),
        scalar => scalar
            .as_str_name()
            .trim_start_matches("TYPE_")
            .to_lowercase(),
    };
    match field.label() {
        field::Label::Repeated => format!("[{kind}]"),
        _ if field.proto3_optional() => format!("{kind}?"),
        _ => kind,
    }
}

fn list_enum(text: &mut String, list: &EnumDescriptorProto) {
    writeln!(text, "enum {}", list.name()).unwrap();
    for value in &list.value {
        writeln!(text, "  {} {}", value.number(), value.name()).unwrap();
    }
}

fn plain(name: &str) -> &str {
    name.trim_start_matches(".barge.v1.")
}
