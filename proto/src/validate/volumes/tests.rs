#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::{
    manifest::{self, Source},
    v1::{Object, Pod, PodSpec},
    validate::{default, validate},
};

fn read(spec: &str) -> Result<Object, String> {
    let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{{spec}}}\n");
    let objects = manifest::parse([Source::new("a.yaml", text)]);
    let mut object = objects.map_err(|error| error.to_string())?.remove(0).object;
    default(&mut object);
    Ok(object)
}

/// The first broken rule; empty when all hold.
fn broken(spec: &str) -> String {
    let object = match read(spec) {
        Ok(object) => object,
        Err(error) => return error,
    };
    match validate(&object) {
        Ok(()) => String::new(),
        Err(violations) => violations[0].to_string(),
    }
}

fn volumes(volumes: &str) -> String {
    broken(&format!(
        "containers: [{{name: a, image: b}}], volumes: [{volumes}]"
    ))
}

fn mounts(mounts: &str) -> String {
    broken(&format!(
        "containers: [{{name: a, image: b, volumeMounts: [{mounts}]}}], volumes: [{{name: v}}, {{name: w, hostPath: {{path: /a}}}}]"
    ))
}

#[test]
fn volumes_of_every_source_are_taken() {
    for good in [
        "{name: a}",
        "{name: a, emptyDir: {}}",
        "{name: a, emptyDir: {medium: Memory, sizeLimit: 10Mi}}",
        "{name: a, configMap: {name: c, optional: true, defaultMode: 0555, items: [{key: k, path: a/b, mode: 0o400}]}}",
        "{name: a, secret: {secretName: c, defaultMode: 256}}",
        "{name: a, downwardAPI: {items: [{path: l, fieldRef: {fieldPath: metadata.labels}}]}}",
        "{name: a, downwardAPI: {items: [{path: l, resourceFieldRef: {containerName: a, resource: limits.cpu}}]}}",
        "{name: a, projected: {sources: [{secret: {name: s}}, {configMap: {name: c}}, {downwardAPI: {items: [{path: u, fieldRef: {fieldPath: metadata.uid}}]}}]}}",
        "{name: a, hostPath: {path: /var/log, type: DirectoryOrCreate}}",
    ] {
        assert_eq!(volumes(good), "", "{good}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    for (bad, expected) in [
        ("{name: A}", "spec.volumes[0].name: \"A\" must be"),
        (
            "{name: a}, {name: a}",
            "spec.volumes[1].name: \"a\" is the name of another volume",
        ),
        (
            "{name: a, emptyDir: {}, secret: {secretName: b}}",
            "takes only one of emptyDir",
        ),
        ("{name: a, emptyDir: {medium: Disk}}", "must be Memory"),
        (
            "{name: a, emptyDir: {sizeLimit: -1}}",
            "sizeLimit: -1 must be at least 0",
        ),
        ("{name: a, configMap: {}}", "configMap.name: is required"),
        (
            "{name: a, configMap: {name: c, defaultMode: 644}}",
            "defaultMode: 644 must be permissions from 0 to 0777",
        ),
        (
            "{name: a, configMap: {name: c, defaultMode: 0888}}",
            "permissions: octal with a leading 0",
        ),
        (
            "{name: a, configMap: {name: c, items: [{key: k, path: ../x}]}}",
            "must be a relative path",
        ),
        (
            "{name: a, configMap: {name: c, items: [{key: k, path: ..x}]}}",
            "must not begin with",
        ),
        (
            "{name: a, configMap: {name: c, items: [{key: k, path: x}, {key: l, path: x}]}}",
            "is another file's path",
        ),
        (
            "{name: a, secret: {secretName: c, items: [{key: '', path: x}]}}",
            "items[0].key: is required",
        ),
        (
            "{name: a, downwardAPI: {items: [{path: x, fieldRef: {fieldPath: status.podIP}}]}}",
            "is not a field that a file can hold",
        ),
        (
            "{name: a, downwardAPI: {items: [{path: x, resourceFieldRef: {resource: limits.cpu}}]}}",
            "containerName: is required",
        ),
        (
            "{name: a, projected: {sources: [{serviceAccountToken: {path: token, expirationSeconds: 60}}]}}",
            "expirationSeconds: 60 must be from 600, ten minutes, to 86400, a day",
        ),
        (
            "{name: a, projected: {sources: [{}]}}",
            "needs one of secret",
        ),
        ("{name: a, hostPath: {path: a}}", "must be an absolute path"),
        (
            "{name: a, hostPath: {path: /a, type: Folder}}",
            "type: \"Folder\" must be DirectoryOrCreate or",
        ),
        (
            "{name: a, persistentVolumeClaim: {claimName: a}}",
            "`persistentVolumeClaim` is a field of Kubernetes that Barge does not implement",
        ),
        (
            "{name: a, nfs: {server: a}}",
            "`nfs` is a field of Kubernetes that Barge does not implement",
        ),
    ] {
        let found = volumes(bad);
        assert!(found.contains(expected), "{bad}: {found}");
    }
    for (bad, expected) in [
        (
            "{name: x, mountPath: /a}",
            "volumeMounts[0].name: \"x\" is not a volume of this pod",
        ),
        ("{name: v, mountPath: a}", "must be an absolute path"),
        ("{name: v, mountPath: /}", "would hide the image"),
        (
            "{name: v, mountPath: /a}, {name: w, mountPath: /a/}",
            "another volume",
        ),
        (
            "{name: v, mountPath: /a, subPath: /b}",
            "must be a relative path",
        ),
        (
            "{name: v, mountPath: /a, subPath: b/../c}",
            "must be a relative path",
        ),
        (
            "{name: v, mountPath: /a, subPath: b, subPathExpr: c}",
            "cannot stand beside",
        ),
        (
            "{name: v, mountPath: /a, mountPropagation: Bidirectional}",
            "must be None or HostToContainer",
        ),
        (
            "{name: v, mountPath: /a, recursiveReadOnly: Enabled}",
            "`recursiveReadOnly` is a field of Kubernetes",
        ),
    ] {
        let found = mounts(bad);
        assert!(found.contains(expected), "{bad}: {found}");
    }
    let good = "{name: v, mountPath: /a, subPath: b/c, readOnly: true}, {name: w, mountPath: /b, mountPropagation: None, subPathExpr: $(POD)}";
    assert_eq!(mounts(good), "");
}

/// YAML 1.1 and 1.2 write octal numbers in two ways, and JSON has none.
#[test]
fn permissions_are_read_as_people_mean_them() {
    let mode = |mode: &str| {
        let volume =
            format!("volumes: [{{name: a, secret: {{secretName: b, defaultMode: {mode}}}}}]");
        let spec: PodSpec = Pod::try_from(read(&volume).unwrap()).unwrap().spec.unwrap();
        spec.volumes[0].secret.clone().unwrap().default_mode
    };
    for (written, read) in [
        ("0644", 0o644),
        ("0o555", 0o555),
        ("365", 0o555),
        ("0", 0),
        ("00400", 0o400),
        ("null", 0o644),
    ] {
        assert_eq!(mode(written), Some(read), "{written}");
    }
}
