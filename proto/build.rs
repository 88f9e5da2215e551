//! Generates the Rust types and services of `barge/v1`, and gives the API's messages their JSON form.
//!
//! Messages of the files in [`JSON_FILES`] have Kubernetes' JSON. prost knows nothing of serde, so attributes
//! for it are derived here from the descriptors: the JSON name of each field, what counts as absent, and
//! refusal of unknown fields. Types whose JSON is not a mapping of their fields are written by hand in `src/json`.

#[path = "build/heap.rs"]
mod heap;
#[path = "build/kinds.rs"]
mod kinds;

use std::{collections::HashSet, env, fs, io, path::PathBuf};

use prost_types::{DescriptorProto, FieldDescriptorProto, field_descriptor_proto as field};
use tonic_prost_build::Config;

const FILES: &[&str] = &[
    "fields",
    "kinds",
    "meta",
    "core",
    "apps",
    "policy",
    "rbac",
    "custom",
    "auth",
    "api",
    "access",
    "accounts",
    "cluster",
    "credentials",
    "streams",
    "metrics",
    "session",
    "life",
    "store",
    "raft",
    "backup",
];

/// Files whose messages have a JSON form.
const JSON_FILES: &[&str] = &[
    "barge/v1/meta.proto",
    "barge/v1/core.proto",
    "barge/v1/apps.proto",
    "barge/v1/policy.proto",
    "barge/v1/rbac.proto",
];

/// Messages whose JSON is a string or a number, in `src/json`.
const BY_HAND: &[&str] = &["Time", "Quantity", "IntOrString", "FieldsV1"];

/// Fields that Kubernetes prints even when they are empty, zero or false.
const ALWAYS_PRINTED: &[&str] = &[
    "ClusterRole.rules",
    "Condition.type",
    "Condition.status",
    "Container.name",
    "ContainerPort.container_port",
    "ContainerStateTerminated.exit_code",
    "ContainerStatus.name",
    "ContainerStatus.ready",
    "ContainerStatus.restart_count",
    "ContainerStatus.image",
    "ContainerStatus.image_id",
    "EndpointAddress.ip",
    "EndpointPort.port",
    "EnvVar.name",
    "GrpcAction.port",
    "HttpHeader.name",
    "HttpHeader.value",
    "HostPathVolumeSource.path",
    "KeyToPath.key",
    "KeyToPath.path",
    "LabelSelectorRequirement.key",
    "LabelSelectorRequirement.operator",
    "NodeAddress.type",
    "NodeAddress.address",
    "NodeSystemInfo.machine_id",
    "NodeSystemInfo.boot_id",
    "NodeSystemInfo.kernel_version",
    "NodeSystemInfo.os_image",
    "NodeSystemInfo.container_runtime_version",
    "NodeSystemInfo.kubelet_version",
    "NodeSystemInfo.operating_system",
    "NodeSystemInfo.architecture",
    "OwnerReference.api_version",
    "OwnerReference.kind",
    "OwnerReference.name",
    "OwnerReference.uid",
    "PodDisruptionBudgetStatus.current_healthy",
    "PodDisruptionBudgetStatus.desired_healthy",
    "PodDisruptionBudgetStatus.disruptions_allowed",
    "PodDisruptionBudgetStatus.expected_pods",
    "PodIP.ip",
    "PolicyRule.verbs",
    "RbacRole.rules",
    "ReplicaSetStatus.replicas",
    "RoleRef.api_group",
    "RoleRef.kind",
    "RoleRef.name",
    "ServicePort.port",
    "Subject.kind",
    "Subject.name",
    "Taint.key",
    "Taint.effect",
    "Volume.name",
    "VolumeMount.mount_path",
    "VolumeMount.name",
];

fn main() -> io::Result<()> {
    let files: Vec<_> = FILES
        .iter()
        .map(|name| format!("barge/v1/{name}.proto"))
        .collect();
    for file in &files {
        println!("cargo::rerun-if-changed={file}");
    }
    let out = PathBuf::from(
        env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?,
    );
    println!("cargo::rerun-if-changed=build");
    let mut config = Config::new();
    // The file is written by protoc itself and keeps the options that prost does not know.
    config
        .btree_map(["."])
        .file_descriptor_set_path(out.join("descriptor.bin"))
        // Log entries and snapshots pass through without being copied.
        .bytes([
            ".barge.v1.Batch.compressed",
            ".barge.v1.RaftEntry.command",
            ".barge.v1.RaftSnapshotMessage.data",
        ])
        // Its values are nothing for logs and test reports: written by hand, in src/secret.rs.
        .skip_debug([".barge.v1.Secret"]);
    let descriptors = config.load_fds(&files, &["."])?;

    let mut always: HashSet<&str> = ALWAYS_PRINTED.iter().copied().collect();
    for file in &descriptors.file {
        if JSON_FILES.contains(&file.name()) {
            for message in &file.message_type {
                add_serde(&mut config, file.package(), message, &mut always);
            }
        }
    }
    if let Some(unknown) = always.iter().next() {
        return Err(io::Error::other(format!("{unknown} is not a field")));
    }
    let heap = heap::impls(&descriptors).map_err(io::Error::other)?;
    fs::write(out.join("heap.rs"), heap)?;
    let kinds = kinds::source(&fs::read(out.join("descriptor.bin"))?).map_err(io::Error::other)?;
    fs::write(out.join("kinds.rs"), kinds)?;
    // The generated `connect` helper would collide with the RPC Session.Connect; channels are made in barge-client.
    tonic_prost_build::configure()
        .build_transport(false)
        .compile_fds_with_config(descriptors, config)
}

/// Derives serde for a message; fields that it meets are removed from `always`.
fn add_serde(
    config: &mut Config,
    package: &str,
    message: &DescriptorProto,
    always: &mut HashSet<&str>,
) {
    if BY_HAND.contains(&message.name()) {
        return;
    }
    let path = format!(".{package}.{}", message.name());
    config.message_attribute(
        &path,
        "#[derive(serde::Serialize, serde::Deserialize)]\n\
         #[serde(default, deny_unknown_fields)]",
    );
    for field in &message.field {
        let printed = always.remove(format!("{}.{}", message.name(), field.name()).as_str());
        let attribute = field_attribute(message, field, printed);
        config.field_attribute(format!("{path}.{}", field.name()), attribute);
    }
}

fn field_attribute(
    message: &DescriptorProto,
    field: &FieldDescriptorProto,
    always: bool,
) -> String {
    let repeated = field.label() == field::Label::Repeated;
    let optional = !repeated && (field.r#type() == field::Type::Message || field.proto3_optional());
    let mut attributes = vec![format!("rename = {:?}", field.json_name())];
    if is_map_of_bytes(message, field) {
        attributes.push("with = \"crate::json::base64\"".to_owned());
    } else if matches!(field.name(), "mode" | "default_mode") {
        attributes.push("deserialize_with = \"crate::json::mode::deserialize\"".to_owned());
    } else if !optional {
        attributes.push("deserialize_with = \"crate::json::null_is_default\"".to_owned());
    }
    if !always {
        let absent = if optional {
            "Option::is_none"
        } else {
            "crate::json::is_default"
        };
        attributes.push(format!("skip_serializing_if = {absent:?}"));
    }
    format!("#[serde({})]", attributes.join(", "))
}

/// Maps are lists of messages of their own, whose second field is the value.
fn is_map_of_bytes(message: &DescriptorProto, field: &FieldDescriptorProto) -> bool {
    message.nested_type.iter().any(|entry| {
        let value = entry.field.get(1);
        field
            .type_name()
            .ends_with(&format!(".{}.{}", message.name(), entry.name()))
            && value.is_some_and(|value| value.r#type() == field::Type::Bytes)
    })
}
