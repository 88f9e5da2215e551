//! The files of a volume, by their paths in it: the one place that says what a ConfigMap, a Secret, the pod, or a projection of several gives.

use std::{borrow::Cow, collections::BTreeMap};

use barge_proto::{
    configuration::Source,
    v1::{
        Container, DownwardApiVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Volume,
        VolumeProjection,
    },
};

use super::account::{self, Account};
use crate::{
    configuration::Found,
    pods::environment::{Around, amount_of, field_of},
    runtime::{VolumeFile, VolumeFiles},
};

/// The most that the files of one pod take, in bytes. They are in memory that no container's limit counts.
const LARGEST_FILES: usize = 64 << 20;
/// What a file, link or folder takes beside what is in it, in bytes. So a pod has at most 16,384 of them.
const PAGE: usize = 4096;
/// Of files whose permissions nobody says.
const DEFAULT_MODE: u32 = 0o644;

/// Whether a volume's files are made by the agent.
pub fn are_its_source(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

/// Room for the files of a pod. It is taken before a file is made, also when a later one takes its place.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// In memory, in bytes.
    bytes: usize,
    /// What may still be made, with what is thrown away because its volume cannot be made: that gives back its room, and not the agent's time.
    work: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            bytes: LARGEST_FILES,
            work: 4 * LARGEST_FILES,
        }
    }
}

impl Room {
    /// Takes the room of a file of `bytes` bytes at `path`.
    ///
    /// # Errors
    /// A sentence.
    pub fn take(&mut self, path: &str, bytes: usize) -> Result<(), String> {
        // The file, its link, and each folder on the way.
        let nodes = path.split('/').count().saturating_add(1);
        let takes = nodes.saturating_mul(PAGE).saturating_add(bytes);
        let left = self.bytes.checked_sub(takes);
        let Some((bytes, work)) = left.zip(self.work.checked_sub(takes)) else {
            let shown: String = path.chars().take(64).collect();
            return Err(format!(
                "there is no room for the file {shown:?} of {bytes} bytes: the files of a pod's volumes are kept in memory, and take at most \
                 {LARGEST_FILES} bytes, with {PAGE} for each file, link and folder; mount fewer ConfigMaps and Secrets, or fewer of their keys"
            ));
        };
        (self.bytes, self.work) = (bytes, work);
        Ok(())
    }
}

/// The files of a volume; `None` when it is not made of files.
///
/// # Errors
/// A sentence that says what is missing, and what to do.
pub fn of_volume(
    volume: &Volume,
    around: Around<'_>,
    account: Account<'_>,
    room: &mut Room,
) -> Result<Option<VolumeFiles>, String> {
    let mut made = Making {
        around,
        account,
        mode: DEFAULT_MODE,
        files: VolumeFiles::new(),
        room: *room,
    };
    if !are_its_source(volume) {
        return Ok(None);
    }
    let whole = made.fill(volume);
    room.work = made.room.work;
    whole?;
    // A volume that cannot be made takes none.
    *room = made.room;
    Ok(Some(made.files))
}

struct Making<'a> {
    around: Around<'a>,
    account: Account<'a>,
    /// Of files that do not say.
    mode: u32,
    files: VolumeFiles,
    room: Room,
}

impl Making<'_> {
    fn fill(&mut self, volume: &Volume) -> Result<(), String> {
        if let Some(it) = &volume.config_map {
            self.mode = mode(it.default_mode, DEFAULT_MODE);
            let optional = it.optional == Some(true);
            return self.take(Source::ConfigMap, &it.name, &it.items, optional);
        }
        if let Some(it) = &volume.secret {
            self.mode = mode(it.default_mode, DEFAULT_MODE);
            let optional = it.optional == Some(true);
            return self.take(Source::Secret, &it.secret_name, &it.items, optional);
        }
        if let Some(it) = &volume.downward_api {
            self.mode = mode(it.default_mode, DEFAULT_MODE);
            return self.take_fields(&it.items);
        }
        match &volume.projected {
            Some(it) => self.project(it),
            None => Ok(()),
        }
    }

    fn put(&mut self, path: &str, bytes: &[u8], own: Option<i32>) -> Result<(), String> {
        self.room.take(path, bytes.len())?;
        let path = plain(path)?;
        let file = VolumeFile::new(bytes.to_vec(), mode(own, self.mode));
        self.files.insert(path, file);
        Ok(())
    }

    /// Of two files at one path the later one counts.
    fn project(&mut self, volume: &ProjectedVolumeSource) -> Result<(), String> {
        self.mode = mode(volume.default_mode, DEFAULT_MODE);
        volume
            .sources
            .iter()
            .try_for_each(|it| self.project_one(it))
    }

    fn project_one(&mut self, source: &VolumeProjection) -> Result<(), String> {
        if let Some(it) = &source.config_map {
            let optional = it.optional == Some(true);
            return self.take(Source::ConfigMap, &it.name, &it.items, optional);
        }
        if let Some(it) = &source.secret {
            let optional = it.optional == Some(true);
            return self.take(Source::Secret, &it.name, &it.items, optional);
        }
        if let Some(it) = &source.downward_api {
            return self.take_fields(&it.items);
        }
        if let Some(it) = &source.service_account_token {
            let request = account::request(self.around.pod, it);
            let token = account::token(&request, self.account, self.mode);
            self.room.take(&it.path, token.bytes.len())?;
            self.files.insert(plain(&it.path)?, token);
            return Ok(());
        }
        Err("a source of it is something that this agent does not know: install the managers' version on the node".to_owned())
    }

    /// All keys of an object, or those that `items` names.
    fn take(
        &mut self,
        source: Source,
        name: &str,
        items: &[KeyToPath],
        optional: bool,
    ) -> Result<(), String> {
        let Some(found) = self.around.given.find(source, name, optional)? else {
            return Ok(());
        };
        if items.is_empty() {
            return values(found).try_for_each(|(key, value)| self.put(key, value, None));
        }
        for item in items {
            let key = item.key.as_str();
            match value_at(found, key) {
                Some(value) => self.put(&item.path, value, item.mode)?,
                None if optional => {}
                None => {
                    let kind = source.kind();
                    return Err(format!(
                        "{kind} {name:?} has no key {key:?}: add it, and the pod starts"
                    ));
                }
            }
        }
        Ok(())
    }

    fn take_fields(&mut self, items: &[DownwardApiVolumeFile]) -> Result<(), String> {
        for item in items {
            let text = if let Some(field) = &item.field_ref {
                let meta = self.around.pod.metadata.as_ref();
                match field.field_path.as_str() {
                    "metadata.labels" => Cow::Owned(all(meta.map(|meta| &meta.labels))),
                    "metadata.annotations" => Cow::Owned(all(meta.map(|meta| &meta.annotations))),
                    _ => field_of(field, self.around)?,
                }
            } else if let Some(field) = &item.resource_field_ref {
                // It names its container.
                Cow::Owned(amount_of(field, &Container::default(), self.around)?)
            } else {
                let path = &item.path;
                return Err(format!(
                    "the file {path:?} comes from something that this agent does not know: install the managers' version on the node"
                ));
            };
            self.put(&item.path, text.as_bytes(), item.mode)?;
        }
        Ok(())
    }
}

fn mode(own: Option<i32>, default: u32) -> u32 {
    own.and_then(|mode| u32::try_from(mode).ok())
        .map_or(default, |mode| mode & 0o777)
}

/// Without parts that say nothing. A path that leads out of its volume, or to what the agent keeps there (`..data`), is refused here, too: the managers
/// may have another version.
fn plain(path: &str) -> Result<String, String> {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    let parts: Vec<_> = parts.collect();
    let shown: String = path.chars().take(64).collect();
    match parts.first() {
        None => Err(format!("the path {shown:?} names no file")),
        Some(first) if first.starts_with("..") || parts.contains(&"..") => Err(format!(
            "the path {shown:?} has a part \"..\", or begins with \"..\": files are in their volume"
        )),
        Some(_) => Ok(parts.join("/")),
    }
}

fn values(found: &Found) -> Box<dyn Iterator<Item = (&str, &[u8])> + '_> {
    match found {
        Found::ConfigMap(it) => {
            let data = it.data.iter();
            let data = data.map(|(key, value)| (key.as_str(), value.as_bytes()));
            let binary = it.binary_data.iter();
            Box::new(data.chain(binary.map(|(key, value)| (key.as_str(), value.as_slice()))))
        }
        Found::Secret(it) => {
            let data = it.data.iter();
            Box::new(data.map(|(key, value)| (key.as_str(), value.as_slice())))
        }
        // Nothing of an account is a file.
        Found::ServiceAccount(_) => Box::new(std::iter::empty()),
    }
}

/// The value of one key of these.
fn value_at<'a>(found: &'a Found, key: &str) -> Option<&'a [u8]> {
    match found {
        Found::ConfigMap(it) => {
            let binary = it.binary_data.get(key).map(Vec::as_slice);
            binary.or_else(|| it.data.get(key).map(String::as_bytes))
        }
        Found::Secret(it) => it.data.get(key).map(Vec::as_slice),
        Found::ServiceAccount(_) => None,
    }
}

/// Kubernetes' `FormatMap`: a line `key="value"` for each, with Go's quotes.
fn all(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten();
    let lines = lines.map(|(key, value)| format!("{key}={}", quoted(value)));
    lines.collect::<Vec<_>>().join("\n")
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Whether what the files of the pod come from is the same, as far as the pod itself goes.
pub fn same_fields(one: &Pod, other: &Pod) -> bool {
    let fields = |pod: &Pod| {
        let meta = pod.metadata.as_ref();
        meta.map(|meta| (meta.labels.clone(), meta.annotations.clone()))
    };
    fields(one) == fields(other)
}
