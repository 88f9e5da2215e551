//! What registries serve: manifests and indexes, Docker's and OCI's alike, with a bound for everything in them.

use std::{collections::HashMap, fmt, marker::PhantomData, ops::Deref};

use containerd_client::types;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, SeqAccess, Visitor},
};
use sha2::{Digest, Sha256};

use super::{
    name::is_digest,
    processor::{Platform, Processor},
};

/// Media types asked for, in order of preference.
pub const ACCEPTED: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Documents are read into memory whole; registries refuse larger ones too. In bytes.
pub const LARGEST_DOCUMENT: u64 = 4 * 1024 * 1024;
/// Layers of an image; overlayfs takes no more (`OVL_MAX_STACK`).
pub const MOST_LAYERS: usize = 500;
/// Entries of an index.
const MOST_ENTRIES: usize = 1024;
/// Bytes of a word in a document: a digest, a media type, an architecture.
const LONGEST_WORD: usize = 255;

/// A reference to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: Short,
    /// Its digest.
    pub digest: Short,
    /// Its length in bytes.
    pub size: u64,
    /// For which machines, in an index.
    #[serde(default)]
    pub platform: Option<Platform>,
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
    media_type: Option<Short>,
    manifests: Option<Few<Descriptor, MOST_ENTRIES>>,
    config: Option<Descriptor>,
    layers: Option<Few<Descriptor, MOST_LAYERS>>,
}

impl Document {
    /// Reads a document; answers its media type too, which OCI's may leave out.
    pub fn parse(bytes: &[u8]) -> Result<(Self, String), String> {
        let either: Either = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let document = match (either.manifests, either.config, either.layers) {
            (Some(Few(manifests)), None, None) => Self::Index(manifests),
            (None, Some(config), Some(Few(layers))) => {
                let all = layers.iter().chain([&config]);
                if let Some(bad) = all.into_iter().find(|blob| !is_digest(&blob.digest)) {
                    return Err(format!("\"{}\" is no sha256 digest", bad.digest));
                }
                Self::Image(Manifest { config, layers })
            }
            _ => return Err("neither an image nor an index of images".to_owned()),
        };
        let default = match document {
            Self::Index(_) => ACCEPTED[0],
            Self::Image(_) => ACCEPTED[2],
        };
        let media_type = either
            .media_type
            .map_or(default.to_owned(), |named| named.0);
        Ok((document, media_type))
    }
}

impl Manifest {
    /// Labels that keep from collection what the manifest refers to.
    pub fn gc_labels(&self) -> HashMap<String, String> {
        let label = |kind: String, digest: &str| {
            let key = format!("containerd.io/gc.ref.content.{kind}");
            (key, digest.to_owned())
        };
        let layers = self.layers.iter().enumerate();
        layers
            .map(|(n, layer)| label(format!("l.{n}"), &layer.digest))
            .chain([label("config".to_owned(), &self.config.digest)])
            .collect()
    }
}

/// Labels that keep from collection the one entry of an index that was pulled.
pub fn index_labels(entry: &str) -> HashMap<String, String> {
    let key = "containerd.io/gc.ref.content.m.0".to_owned();
    HashMap::from([(key, entry.to_owned())])
}

/// The entries of an index that may be for this machine, the best first; those that do not name their platform come
/// last, and their configuration has to be asked.
pub fn candidates(processor: &Processor, entries: Vec<Descriptor>) -> Vec<Descriptor> {
    let mut ranked: Vec<_> = entries
        .into_iter()
        .filter(|entry| is_digest(&entry.digest))
        .filter_map(|entry| match &entry.platform {
            Some(platform) => Some((processor.rank(platform)?, entry)),
            None => Some((usize::MAX, entry)),
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, entry)| entry).collect()
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
            media_type: self.media_type.to_string(),
            digest: self.digest.to_string(),
            size: i64::try_from(self.size).unwrap_or(i64::MAX),
            annotations: HashMap::new(),
        }
    }
}

/// A word of at most 255 bytes: a longer one is refused before it is copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Short(String);

impl Deref for Short {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Short {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Short {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl<'de> Deserialize<'de> for Short {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(ShortVisitor)
    }
}

struct ShortVisitor;

impl Visitor<'_> for ShortVisitor {
    type Value = Short;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a word of at most {LONGEST_WORD} bytes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Short, E> {
        match text.len() <= LONGEST_WORD {
            true => Ok(Short(text.to_owned())),
            false => Err(E::invalid_length(text.len(), &self)),
        }
    }
}

/// A list of at most `MOST`: reading ends at the first one more.
#[derive(Debug)]
pub struct Few<T, const MOST: usize>(pub Vec<T>);

impl<'de, T: DeserializeOwned, const MOST: usize> Deserialize<'de> for Few<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FewVisitor(PhantomData))
    }
}

struct FewVisitor<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: DeserializeOwned, const MOST: usize> Visitor<'de> for FewVisitor<T, MOST> {
    type Value = Few<T, MOST>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MOST} layers or entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut few = Vec::new();
        while let Some(item) = list.next_element()? {
            if few.len() == MOST {
                return Err(A::Error::invalid_length(MOST + 1, &self));
            }
            few.push(item);
        }
        Ok(Few(few))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn digest(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    fn entry(digit: char, platform: &str) -> String {
        let digest = digest(digit);
        format!(r#"{{"mediaType":"m","digest":"{digest}","size":1{platform}}}"#)
    }

    fn index(entries: &[String]) -> String {
        let entries = entries.join(",");
        format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#)
    }

    #[test]
    fn the_best_entry_first_and_the_unnamed_last() {
        let platform = |os: &str, architecture: &str, variant: &str| {
            format!(
                r#","platform":{{"os":"{os}","architecture":"{architecture}","variant":"{variant}"}}"#
            )
        };
        let index = index(&[
            entry('a', &platform("linux", "s390x", "")),
            entry('b', ""),
            entry('c', &platform("linux", "amd64", "")),
            entry('d', &platform("linux", "amd64", "v3")),
            entry('e', &platform("linux", "amd64", "v4")),
            entry('f', &platform("unknown", "unknown", "")),
        ]);
        let (Document::Index(entries), media_type) = Document::parse(index.as_bytes()).unwrap()
        else {
            panic!("not an index");
        };
        assert_eq!(media_type, ACCEPTED[0]);
        let ours = candidates(&Processor::amd64(3), entries);
        let ours: Vec<&str> = ours.iter().map(|entry| &*entry.digest).collect();
        assert_eq!(ours, [digest('d'), digest('c'), digest('b')]);
    }

    #[test]
    fn reads_dockers_dialect() {
        let (config, layer) = (digest('c'), digest('1'));
        let docker = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",
            "config":{{"mediaType":"c","size":7,"digest":"{config}"}},
            "layers":[{{"mediaType":"l","size":8,"digest":"{layer}"}}]}}"#
        );
        let (Document::Image(manifest), media_type) = Document::parse(docker.as_bytes()).unwrap()
        else {
            panic!("not an image");
        };
        assert_eq!(media_type, ACCEPTED[3]);
        let labels = manifest.gc_labels();
        assert_eq!(labels["containerd.io/gc.ref.content.config"], config);
        assert_eq!(labels["containerd.io/gc.ref.content.l.0"], layer);
        assert!(Document::parse(b"{}").is_err());
        let foreign = docker.replace(&layer, "sha512:00");
        assert!(Document::parse(foreign.as_bytes()).is_err());
    }

    #[test]
    fn everything_has_a_bound() {
        let most = vec![entry('a', ""); MOST_ENTRIES];
        assert!(Document::parse(index(&most).as_bytes()).is_ok());
        let more = vec![entry('a', ""); MOST_ENTRIES + 1];
        let error = Document::parse(index(&more).as_bytes()).unwrap_err();
        assert!(error.contains("at most 1024 layers or entries"), "{error}");
        let long = index(&[entry('a', "")]).replace('m', &"m".repeat(300));
        assert!(Document::parse(long.as_bytes()).is_err());
        let deep = format!("{{\"x\":{}1{}}}", "[".repeat(500), "]".repeat(500));
        assert!(Document::parse(deep.as_bytes()).is_err());
    }
}
