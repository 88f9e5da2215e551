//! The files of a volume, by their paths in it: the one place that says what a ConfigMap, a Secret, the pod, or a projection of several gives.

use std::collections::BTreeMap;

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

/// Of files whose permissions nobody says.
const DEFAULT_MODE: u32 = 0o644;

/// Whether a volume's files are made by the agent.
pub fn are_its_source(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

/// The files of a volume; `None` when it is not made of files.
///
/// # Errors
/// A sentence that says what is missing, and what to do.
pub fn of_volume(
    volume: &Volume,
    around: Around<'_>,
    account: Account<'_>,
) -> Result<Option<VolumeFiles>, String> {
    let mut made = Making {
        around,
        account,
        mode: DEFAULT_MODE,
        files: VolumeFiles::new(),
    };
    if let Some(it) = &volume.config_map {
        made.mode = mode(it.default_mode, DEFAULT_MODE);
        let optional = it.optional == Some(true);
        made.take(Source::ConfigMap, &it.name, &it.items, optional)?;
    } else if let Some(it) = &volume.secret {
        made.mode = mode(it.default_mode, DEFAULT_MODE);
        let optional = it.optional == Some(true);
        made.take(Source::Secret, &it.secret_name, &it.items, optional)?;
    } else if let Some(it) = &volume.downward_api {
        made.mode = mode(it.default_mode, DEFAULT_MODE);
        made.take_fields(&it.items)?;
    } else if let Some(it) = &volume.projected {
        made.project(it)?;
    } else {
        return Ok(None);
    }
    Ok(Some(made.files))
}

struct Making<'a> {
    around: Around<'a>,
    account: Account<'a>,
    /// Of files that do not say.
    mode: u32,
    files: VolumeFiles,
}

impl Making<'_> {
    fn put(&mut self, path: &str, bytes: Vec<u8>, own: Option<i32>) {
        let mode = mode(own, self.mode);
        self.files.insert(plain(path), VolumeFile::new(bytes, mode));
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
            self.files.insert(plain(&it.path), token);
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
        let values: BTreeMap<&str, &[u8]> = values(found).collect();
        if items.is_empty() {
            for (key, value) in values {
                self.put(key, value.to_vec(), None);
            }
            return Ok(());
        }
        for item in items {
            let key = item.key.as_str();
            match values.get(key) {
                Some(value) => self.put(&item.path, value.to_vec(), item.mode),
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
                    "metadata.labels" => all(meta.map(|meta| &meta.labels)),
                    "metadata.annotations" => all(meta.map(|meta| &meta.annotations)),
                    _ => field_of(field, self.around)?,
                }
            } else if let Some(field) = &item.resource_field_ref {
                // It names its container.
                amount_of(field, &Container::default(), self.around)?
            } else {
                let path = &item.path;
                return Err(format!(
                    "the file {path:?} comes from something that this agent does not know: install the managers' version on the node"
                ));
            };
            self.put(&item.path, text.into_bytes(), item.mode);
        }
        Ok(())
    }
}

fn mode(own: Option<i32>, default: u32) -> u32 {
    own.and_then(|mode| u32::try_from(mode).ok())
        .map_or(default, |mode| mode & 0o777)
}

/// Without parts that say nothing.
fn plain(path: &str) -> String {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    parts.collect::<Vec<_>>().join("/")
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
