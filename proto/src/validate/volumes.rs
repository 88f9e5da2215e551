//! Volumes of pods, and where containers mount them.

use std::collections::HashSet;

use super::{Checker, defaults, environment::is_entry, names};
use crate::{
    quantity::Amount,
    v1::{
        Container, DownwardApiVolumeFile, EmptyDirVolumeSource, HostPathVolumeSource, KeyToPath,
        PodSpec, ProjectedVolumeSource, Volume, VolumeMount, VolumeProjection,
    },
};

/// Permissions of a file.
const LARGEST_MODE: i32 = 0o777;
/// Of files whose permissions nobody says.
const DEFAULT_MODE: i32 = 0o644;
/// For how long tokens are valid.
const DEFAULT_SECONDS: i64 = 3600;
/// Fields of a pod that a file can hold.
const FIELDS: &str = "metadata.name, metadata.namespace, metadata.uid, metadata.labels, metadata.annotations, \
                      metadata.labels['KEY'] or metadata.annotations['KEY']";
/// What a path on the node can be checked for.
const HOST_PATH_TYPES: &[&str] = &[
    "DirectoryOrCreate",
    "Directory",
    "FileOrCreate",
    "File",
    "Socket",
    "CharDevice",
    "BlockDevice",
];

/// For how long a token may live, and lives when a volume does not say, in seconds.
const TOKEN_SECONDS: std::ops::RangeInclusive<i64> = 600..=86_400;
const DEFAULT_TOKEN_SECONDS: i64 = 3600;

impl Checker {
    /// `containers` are the names of all containers of the pod.
    pub(super) fn volumes(&mut self, path: &str, spec: &PodSpec, containers: &[&str]) {
        let mut seen = HashSet::new();
        for (index, volume) in spec.volumes.iter().enumerate() {
            let path = format!("{path}.volumes[{index}]");
            let field = format!("{path}.name");
            if volume.name.is_empty() {
                self.required(field);
            } else if !seen.insert(volume.name.as_str()) {
                let name = format_args!("{:?}", volume.name);
                self.violated(field, name, "is the name of another volume, too");
            } else {
                self.text(field, &volume.name, names::dns_label(&volume.name));
            }
            self.volume(&path, volume, containers);
        }
    }

    fn volume(&mut self, path: &str, volume: &Volume, containers: &[&str]) {
        let given = [
            volume.empty_dir.is_some(),
            volume.config_map.is_some(),
            volume.secret.is_some(),
            volume.downward_api.is_some(),
            volume.projected.is_some(),
            volume.host_path.is_some(),
        ];
        let words = "emptyDir, configMap, secret, downwardAPI, projected or hostPath";
        self.exactly_one(path, &given, words);
        if let Some(it) = &volume.empty_dir {
            self.empty_dir(&format!("{path}.emptyDir"), it);
        }
        if let Some(it) = &volume.config_map {
            let path = format!("{path}.configMap");
            self.name_of_object(format!("{path}.name"), &it.name);
            self.keys(&path, &it.items, &mut HashSet::new());
            self.mode(&path, "defaultMode", it.default_mode);
        }
        if let Some(it) = &volume.secret {
            let path = format!("{path}.secret");
            self.name_of_object(format!("{path}.secretName"), &it.secret_name);
            self.keys(&path, &it.items, &mut HashSet::new());
            self.mode(&path, "defaultMode", it.default_mode);
        }
        if let Some(it) = &volume.downward_api {
            let path = format!("{path}.downwardAPI");
            self.downward_files(&path, &it.items, containers, &mut HashSet::new());
            self.mode(&path, "defaultMode", it.default_mode);
        }
        if let Some(it) = &volume.projected {
            self.projected(&format!("{path}.projected"), it, containers);
        }
        if let Some(it) = &volume.host_path {
            self.host_path(&format!("{path}.hostPath"), it);
        }
    }

    fn empty_dir(&mut self, path: &str, source: &EmptyDirVolumeSource) {
        let medium = &source.medium;
        if !matches!(medium.as_str(), "" | "Memory") {
            let rule = "must be Memory, or empty for the node's disk";
            self.violated(format!("{path}.medium"), format_args!("{medium:?}"), rule);
        }
        let Some(limit) = &source.size_limit else {
            return;
        };
        let field = format!("{path}.sizeLimit");
        match Amount::try_from(limit) {
            Ok(amount) if amount.is_negative() => {
                self.violated(field, amount, "must be at least 0");
            }
            Ok(_) => {}
            Err(error) => self.violated(field, "", error.to_string()),
        }
    }

    fn projected(&mut self, path: &str, volume: &ProjectedVolumeSource, containers: &[&str]) {
        self.mode(path, "defaultMode", volume.default_mode);
        let mut seen = HashSet::new();
        for (index, source) in volume.sources.iter().enumerate() {
            let path = format!("{path}.sources[{index}]");
            self.projection(&path, source, containers, &mut seen);
        }
    }

    /// `seen` are the paths of other sources.
    fn projection<'a>(
        &mut self,
        path: &str,
        source: &'a VolumeProjection,
        containers: &[&str],
        seen: &mut HashSet<&'a str>,
    ) {
        let given = [
            source.secret.is_some(),
            source.downward_api.is_some(),
            source.config_map.is_some(),
            source.service_account_token.is_some(),
        ];
        let words = "secret, downwardAPI, configMap or serviceAccountToken";
        self.exactly_one(path, &given, words);
        if let Some(it) = &source.secret {
            let path = format!("{path}.secret");
            self.name_of_object(format!("{path}.name"), &it.name);
            self.keys(&path, &it.items, seen);
        }
        if let Some(it) = &source.config_map {
            let path = format!("{path}.configMap");
            self.name_of_object(format!("{path}.name"), &it.name);
            self.keys(&path, &it.items, seen);
        }
        if let Some(it) = &source.downward_api {
            let path = format!("{path}.downwardAPI");
            self.downward_files(&path, &it.items, containers, seen);
        }
        if let Some(it) = &source.service_account_token {
            let path = format!("{path}.serviceAccountToken");
            self.path_of_file(&path, &it.path, seen);
            let seconds = it.expiration_seconds.unwrap_or(DEFAULT_TOKEN_SECONDS);
            if !TOKEN_SECONDS.contains(&seconds) {
                let rule = "must be from 600, ten minutes, to 86400, a day";
                self.violated(format!("{path}.expirationSeconds"), seconds, rule);
            }
        }
    }

    fn keys<'a>(&mut self, path: &str, items: &'a [KeyToPath], seen: &mut HashSet<&'a str>) {
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}.items[{index}]");
            match item.key.is_empty() {
                true => self.required(format!("{path}.key")),
                false => self.text(format!("{path}.key"), &item.key, names::data_key(&item.key)),
            }
            self.path_of_file(&path, &item.path, seen);
            self.mode(&path, "mode", item.mode);
        }
    }

    fn downward_files<'a>(
        &mut self,
        path: &str,
        items: &'a [DownwardApiVolumeFile],
        containers: &[&str],
        seen: &mut HashSet<&'a str>,
    ) {
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}.items[{index}]");
            self.path_of_file(&path, &item.path, seen);
            self.mode(&path, "mode", item.mode);
            let given = [item.field_ref.is_some(), item.resource_field_ref.is_some()];
            self.exactly_one(&path, &given, "fieldRef or resourceFieldRef");
            if let Some(field) = &item.field_ref {
                let rule = format!("is not a field that a file can hold: there are {FIELDS}");
                self.field_of_pod(&format!("{path}.fieldRef"), field, is_field, rule);
            }
            if let Some(field) = &item.resource_field_ref {
                let path = format!("{path}.resourceFieldRef");
                if field.container_name.is_empty() {
                    self.required(format!("{path}.containerName"));
                }
                self.resource_field_ref(&path, field, containers);
            }
        }
    }

    fn path_of_file<'a>(&mut self, path: &str, file: &'a str, seen: &mut HashSet<&'a str>) {
        let field = format!("{path}.path");
        if file.is_empty() {
            return self.required(field);
        }
        self.text(field.clone(), file, below(file));
        if file.starts_with("..") {
            let rule =
                "must not begin with \"..\": the files of a volume are kept under such names";
            self.violated(field, format_args!("{file:?}"), rule);
        } else if !seen.insert(file) {
            self.violated(
                field,
                format_args!("{file:?}"),
                "is another file's path, too",
            );
        }
    }

    fn mode(&mut self, path: &str, field: &str, mode: Option<i32>) {
        if let Some(mode) = mode.filter(|mode| !(0..=LARGEST_MODE).contains(mode)) {
            let rule = "must be permissions from 0 to 0777, in octal with a leading 0 (0644) or as the same number in decimal (420)";
            self.violated(format!("{path}.{field}"), mode, rule);
        }
    }

    fn host_path(&mut self, path: &str, source: &HostPathVolumeSource) {
        let field = format!("{path}.path");
        match source.path.is_empty() {
            true => self.required(field),
            false => self.text(field, &source.path, absolute(&source.path)),
        }
        if let Some(kind) = &source.r#type {
            self.one_of(format!("{path}.type"), kind, HOST_PATH_TYPES);
        }
    }

    /// Where a container mounts the pod's volumes.
    pub(super) fn mounts(&mut self, path: &str, container: &Container, volumes: &HashSet<&str>) {
        let mut seen = HashSet::new();
        for (index, mount) in container.volume_mounts.iter().enumerate() {
            let path = format!("{path}.volumeMounts[{index}]");
            let field = format!("{path}.name");
            if mount.name.is_empty() {
                self.required(field);
            } else if !volumes.contains(mount.name.as_str()) {
                let name = format_args!("{:?}", mount.name);
                self.violated(field, name, "is not a volume of this pod");
            }
            self.mount_path(&path, mount);
            let place = mount.mount_path.trim_end_matches('/');
            if !place.is_empty() && !seen.insert(place) {
                let rule = "is where the container has another volume, too";
                let value = format_args!("{:?}", mount.mount_path);
                self.violated(format!("{path}.mountPath"), value, rule);
            }
            self.sub_paths(&path, mount);
            match mount.mount_propagation.as_deref() {
                None | Some("" | "None" | "HostToContainer") => {}
                Some(other) => {
                    let rule = "must be None or HostToContainer: Barge lets no container mount into its node";
                    let field = format!("{path}.mountPropagation");
                    self.violated(field, format_args!("{other:?}"), rule);
                }
            }
        }
    }

    fn mount_path(&mut self, path: &str, mount: &VolumeMount) {
        let field = format!("{path}.mountPath");
        let place = &mount.mount_path;
        if place.is_empty() {
            return self.required(field);
        }
        self.text(field.clone(), place, absolute(place));
        if place.trim_end_matches('/').is_empty() {
            let rule = "would hide the image: mount the volume at a folder below it";
            self.violated(field, format_args!("{place:?}"), rule);
        } else if place.contains(':') {
            self.violated(field, format_args!("{place:?}"), "must not contain ':'");
        }
    }

    fn sub_paths(&mut self, path: &str, mount: &VolumeMount) {
        let both = [
            ("subPath", &mount.sub_path),
            ("subPathExpr", &mount.sub_path_expr),
        ];
        for (name, sub_path) in both {
            if !sub_path.is_empty() {
                self.text(format!("{path}.{name}"), sub_path, below(sub_path));
            }
        }
        if both.iter().all(|(_, sub_path)| !sub_path.is_empty()) {
            let rule = "cannot stand beside subPath: leave one of the two out";
            self.violated(format!("{path}.subPathExpr"), "", rule);
        }
    }
}

/// Kubernetes' defaults.
pub(super) fn default(volume: &mut Volume) {
    let none = volume.config_map.is_none()
        && volume.secret.is_none()
        && volume.downward_api.is_none()
        && volume.projected.is_none()
        && volume.host_path.is_none();
    if none {
        volume.empty_dir.get_or_insert_default();
    }
    if let Some(it) = &mut volume.config_map {
        it.default_mode.get_or_insert(DEFAULT_MODE);
    }
    if let Some(it) = &mut volume.secret {
        it.default_mode.get_or_insert(DEFAULT_MODE);
    }
    let references = |file: &mut DownwardApiVolumeFile| {
        defaults::references(&mut file.field_ref, &mut file.resource_field_ref);
    };
    if let Some(it) = &mut volume.downward_api {
        it.default_mode.get_or_insert(DEFAULT_MODE);
        it.items.iter_mut().for_each(references);
    }
    if let Some(it) = &mut volume.projected {
        it.default_mode.get_or_insert(DEFAULT_MODE);
        for source in &mut it.sources {
            if let Some(token) = &mut source.service_account_token {
                token.expiration_seconds.get_or_insert(DEFAULT_SECONDS);
            }
            let downward = source.downward_api.iter_mut();
            downward.flat_map(|it| &mut it.items).for_each(references);
        }
    }
    if let Some(it) = &mut volume.host_path {
        it.r#type.get_or_insert_default();
    }
}

/// A path inside a volume.
fn below(path: &str) -> Result<(), String> {
    match path.starts_with('/') || backs_out(path) {
        true => Err("must be a relative path without \"..\"".to_owned()),
        false => Ok(()),
    }
}

fn absolute(path: &str) -> Result<(), String> {
    match !path.starts_with('/') || backs_out(path) {
        true => Err("must be an absolute path without \"..\"".to_owned()),
        false => Ok(()),
    }
}

fn backs_out(path: &str) -> bool {
    path.split('/').any(|part| part == "..") || path.contains('\0')
}

fn is_field(path: &str) -> bool {
    let plain = [
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "metadata.labels",
        "metadata.annotations",
    ];
    plain.contains(&path) || is_entry(path)
}

#[cfg(test)]
mod tests;
