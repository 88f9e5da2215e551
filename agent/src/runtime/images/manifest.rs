//! What registries serve: manifests, indexes and configurations, Docker's and OCI's alike.

use std::collections::HashMap;

use containerd_client::types;
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Media types asked for, in order of preference.
pub const ACCEPTED: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Documents are read into memory whole; registries refuse larger ones too.
pub const LARGEST_DOCUMENT: u64 = 4 * 1024 * 1024;

/// A reference to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: String,
    /// Its length in bytes.
    pub size: u64,
    /// For which machines, in an index.
    #[serde(default)]
    pub platform: Option<Platform>,
}

/// A kind of machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// "linux".
    #[serde(default)]
    pub os: String,
    /// "amd64", "arm64".
    #[serde(default)]
    pub architecture: String,
}

/// An image's manifest or an index of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Image(Manifest),
    /// The same image for several kinds of machines.
    Index(Vec<Descriptor>),
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Manifest {
    /// How it runs.
    pub config: Descriptor,
    /// Its file system, lowest layer first.
    pub layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Either {
    #[serde(default)]
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

impl Document {
    /// Reads a document; answers its media type too, which OCI's may leave out.
    pub fn parse(bytes: &[u8]) -> Result<(Self, String), String> {
        let either: Either = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let document = match (either.manifests, either.config, either.layers) {
            (Some(manifests), None, None) => Self::Index(manifests),
            (None, Some(config), Some(layers)) => Self::Image(Manifest { config, layers }),
            _ => return Err("neither an image nor an index of images".to_owned()),
        };
        let default = match document {
            Self::Index(_) => ACCEPTED[0],
            Self::Image(_) => ACCEPTED[2],
        };
        Ok((
            document,
            either.media_type.unwrap_or_else(|| default.to_owned()),
        ))
    }

    /// Labels that keep from collection what the document refers to.
    pub fn gc_labels(&self) -> HashMap<String, String> {
        let label = |kind: String, digest: &str| {
            (
                format!("containerd.io/gc.ref.content.{kind}"),
                digest.to_owned(),
            )
        };
        match self {
            Self::Index(manifests) => {
                let numbered = manifests.iter().enumerate();
                numbered
                    .map(|(n, manifest)| label(format!("m.{n}"), &manifest.digest))
                    .collect()
            }
            Self::Image(manifest) => {
                let numbered = manifest.layers.iter().enumerate();
                let layers = numbered.map(|(n, layer)| label(format!("l.{n}"), &layer.digest));
                layers
                    .chain([label("config".to_owned(), &manifest.config.digest)])
                    .collect()
            }
        }
    }
}

/// The entry of an index for this machine.
pub fn select(manifests: &[Descriptor]) -> Option<&Descriptor> {
    let ours = architecture();
    manifests.iter().find(|manifest| match &manifest.platform {
        Some(platform) => platform.os == "linux" && platform.architecture == ours,
        None => false,
    })
}

/// This machine's architecture in the words of registries.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// How an image runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// Name or number, perhaps with a group after a colon; empty means root.
    pub user: String,
    /// "NAME=value".
    pub env: Vec<String>,
    /// The program and its fixed arguments.
    pub entrypoint: Vec<String>,
    /// Arguments, or the program when there is no entry point.
    pub cmd: Vec<String>,
    /// Where it starts.
    pub working_dir: String,
    /// What asks it to stop ("SIGQUIT"); empty means TERM.
    pub stop_signal: String,
    /// Digests of the layers' unpacked tars, lowest first.
    pub diff_ids: Vec<String>,
}

#[derive(Deserialize)]
struct RawImage {
    #[serde(default)]
    config: Option<RawConfig>,
    rootfs: RawRootfs,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawConfig {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
}

#[derive(Deserialize)]
struct RawRootfs {
    diff_ids: Option<Vec<String>>,
}

impl ImageConfig {
    /// Reads an image's configuration.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let raw: RawImage = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let config = raw.config.unwrap_or_default();
        Ok(Self {
            user: config.user.unwrap_or_default(),
            env: config.env.unwrap_or_default(),
            entrypoint: config.entrypoint.unwrap_or_default(),
            cmd: config.cmd.unwrap_or_default(),
            working_dir: config.working_dir.unwrap_or_default(),
            stop_signal: config.stop_signal.unwrap_or_default(),
            diff_ids: raw.rootfs.diff_ids.unwrap_or_default(),
        })
    }

    /// Names of the snapshots after each layer; the last is the whole file system.
    pub fn chain_ids(&self) -> Vec<String> {
        let mut chain: Vec<String> = Vec::with_capacity(self.diff_ids.len());
        for diff_id in &self.diff_ids {
            chain.push(match chain.last() {
                None => diff_id.clone(),
                Some(below) => sha256(format!("{below} {diff_id}").as_bytes()),
            });
        }
        chain
    }

    /// The snapshot of the whole file system; empty for an image without layers.
    pub fn top(&self) -> String {
        self.chain_ids().pop().unwrap_or_default()
    }
}

/// A digest as registries write it.
pub fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

impl Descriptor {
    /// As containerd has it.
    pub fn to_containerd(&self) -> types::Descriptor {
        types::Descriptor {
            media_type: self.media_type.clone(),
            digest: self.digest.clone(),
            size: i64::try_from(self.size).unwrap_or(i64::MAX),
            annotations: HashMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn chain_ids_are_those_of_the_specification() {
        let config = ImageConfig {
            diff_ids: vec![
                "sha256:1111111111111111111111111111111111111111111111111111111111111111".into(),
                "sha256:2222222222222222222222222222222222222222222222222222222222222222".into(),
            ],
            ..ImageConfig::default()
        };
        let chain = config.chain_ids();
        assert_eq!(chain[0], config.diff_ids[0]);
        let both = format!("{} {}", config.diff_ids[0], config.diff_ids[1]);
        assert_eq!(chain[1], sha256(both.as_bytes()));
        assert_eq!(config.top(), chain[1]);
        assert_eq!(ImageConfig::default().top(), "");
    }

    #[test]
    fn reads_both_dialects_and_selects_by_platform() {
        let index = br#"{"schemaVersion":2,"manifests":[
            {"mediaType":"m","digest":"sha256:a","size":1,"platform":{"os":"linux","architecture":"s390x"}},
            {"mediaType":"m","digest":"sha256:b","size":1,"platform":{"os":"linux","architecture":"amd64"}},
            {"mediaType":"m","digest":"sha256:c","size":1,"platform":{"os":"linux","architecture":"arm64","variant":"v8"}},
            {"mediaType":"m","digest":"sha256:d","size":1,"platform":{"os":"unknown","architecture":"unknown"}}]}"#;
        let (Document::Index(manifests), media_type) = Document::parse(index).unwrap() else {
            panic!("not an index");
        };
        assert_eq!(media_type, ACCEPTED[0]);
        let ours = &select(&manifests).unwrap().digest;
        assert_eq!(
            ours,
            if architecture() == "amd64" {
                "sha256:b"
            } else {
                "sha256:c"
            }
        );
        let docker = br#"{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",
            "config":{"mediaType":"c","size":7,"digest":"sha256:c"},
            "layers":[{"mediaType":"l","size":8,"digest":"sha256:l"}]}"#;
        let (document, media_type) = Document::parse(docker).unwrap();
        assert_eq!(media_type, ACCEPTED[3]);
        let labels = document.gc_labels();
        assert_eq!(labels["containerd.io/gc.ref.content.config"], "sha256:c");
        assert_eq!(labels["containerd.io/gc.ref.content.l.0"], "sha256:l");
        assert!(Document::parse(b"{}").is_err());
    }

    #[test]
    fn null_is_absent() {
        let config = br#"{"config":{"User":null,"Env":null,"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:a"]}}"#;
        let config = ImageConfig::parse(config).unwrap();
        assert_eq!(config.cmd, ["sh"]);
        assert_eq!(config.env, Vec::<String>::new());
        assert!(ImageConfig::parse(b"[]").is_err());
    }
}
