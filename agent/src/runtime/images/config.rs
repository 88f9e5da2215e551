//! How an image runs: its configuration.

use serde::{Deserialize, de::IgnoredAny};

use super::{
    manifest::{Few, MOST_LAYERS, Short, sha256},
    name::is_digest,
    processor::{Platform, Processor},
};

/// Bytes of a configuration that is kept in memory; a larger one is read again for each container.
const LARGEST_KEPT: usize = 64 * 1024;

/// Variables of an image, and arguments; a program takes them all in at most 2 MiB (`execve(2)`, with the usual stack of 8 MiB).
const MOST_WORDS: usize = 4096;

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
    /// For which machines it was made; the architecture is empty when it does not say.
    pub platform: Platform,
    /// Bytes of the document.
    pub length: usize,
}

#[derive(Deserialize)]
struct Outline {
    #[serde(rename = "config")]
    _counted: Option<Counted>,
    os: Option<Short>,
    architecture: Option<Short>,
    variant: Option<Short>,
    rootfs: RawRootfs,
}

/// Its lists are counted, and not copied.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Counted {
    #[serde(rename = "Env")]
    _env: Option<Few<IgnoredAny, MOST_WORDS>>,
    #[serde(rename = "Entrypoint")]
    _entrypoint: Option<Few<IgnoredAny, MOST_WORDS>>,
    #[serde(rename = "Cmd")]
    _cmd: Option<Few<IgnoredAny, MOST_WORDS>>,
}

#[derive(Deserialize)]
struct RawConfigOnly {
    config: Option<RawConfig>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawConfig {
    user: Option<String>,
    env: Option<Few<String, MOST_WORDS>>,
    entrypoint: Option<Few<String, MOST_WORDS>>,
    cmd: Option<Few<String, MOST_WORDS>>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
}

#[derive(Deserialize)]
struct RawRootfs {
    diff_ids: Option<Few<Short, MOST_LAYERS>>,
}

impl ImageConfig {
    /// Reads an image's configuration.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let raw: RawConfigOnly =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let outline: Outline = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        Self::new(raw.config, outline, bytes.len())
    }

    fn new(config: Option<RawConfig>, outline: Outline, length: usize) -> Result<Self, String> {
        let config = config.unwrap_or_default();
        let diff_ids = outline.rootfs.diff_ids.map_or_else(Vec::new, |few| few.0);
        if let Some(bad) = diff_ids.iter().find(|diff_id| !is_digest(diff_id)) {
            let bad = bad.to_string();
            return Err(format!("\"{bad:.80}\" is no sha256 digest of a layer"));
        }
        Ok(Self {
            user: config.user.unwrap_or_default(),
            env: config.env.map_or_else(Vec::new, |few| few.0),
            entrypoint: config.entrypoint.map_or_else(Vec::new, |few| few.0),
            cmd: config.cmd.map_or_else(Vec::new, |few| few.0),
            working_dir: config.working_dir.unwrap_or_default(),
            stop_signal: config.stop_signal.unwrap_or_default(),
            diff_ids: diff_ids.iter().map(ToString::to_string).collect(),
            platform: Platform {
                os: outline.os.unwrap_or_else(|| "linux".into()),
                architecture: outline.architecture.unwrap_or_default(),
                variant: outline.variant.unwrap_or_default(),
            },
            length,
        })
    }

    /// Whether it runs here. A configuration that does not say for what it was made runs anywhere.
    pub fn suits(&self, processor: &Processor) -> bool {
        self.platform.architecture.is_empty() || processor.rank(&self.platform).is_some()
    }

    /// Reads what a pull needs of a configuration. Of an unusually large one that is the layers and the platform: the rest
    /// is not copied, and is not in memory while the layers come.
    pub fn parse_for_pull(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() <= LARGEST_KEPT {
            return Self::parse(bytes);
        }
        let outline: Outline = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        Self::new(None, outline, bytes.len())
    }

    /// Whether it may be kept in memory.
    pub fn is_small(&self) -> bool {
        self.length <= LARGEST_KEPT
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
    fn lists_have_a_bound() {
        let digest = format!("\"sha256:{}\"", "1".repeat(64));
        let list = |item: &str, count: usize| vec![item; count].join(",");
        let config = |key: &str, count| {
            let list = list("\"\"", count);
            format!(r#"{{"config":{{"{key}":[{list}]}},"rootfs":{{"diff_ids":[]}}}}"#)
        };
        for key in ["Env", "Entrypoint", "Cmd"] {
            let most = config(key, MOST_WORDS);
            ImageConfig::parse(most.as_bytes()).unwrap();
            // 4 MB: more than is parsed whole while an image is pulled.
            for count in [MOST_WORDS + 1, 1_300_000] {
                let more = config(key, count);
                ImageConfig::parse(more.as_bytes()).unwrap_err();
                let why = ImageConfig::parse_for_pull(more.as_bytes()).unwrap_err();
                assert!(why.contains("at most 4096"), "{why}");
            }
        }
        let layers = |count| {
            let list = list(&digest, count);
            format!(r#"{{"rootfs":{{"diff_ids":[{list}]}}}}"#)
        };
        ImageConfig::parse(layers(MOST_LAYERS).as_bytes()).unwrap();
        ImageConfig::parse_for_pull(layers(MOST_LAYERS + 1).as_bytes()).unwrap_err();
    }

    #[test]
    fn null_is_absent() {
        let config = br#"{"config":{"User":null,"Env":null,"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":null}}"#;
        let config = ImageConfig::parse(config).unwrap();
        assert_eq!(config.cmd, ["sh"]);
        assert_eq!(config.env, Vec::<String>::new());
        assert!(ImageConfig::parse(b"[]").is_err());
        let large = format!(
            r#"{{"architecture":"arm","config":{{"Env":["{}"]}},"rootfs":{{"diff_ids":[]}}}}"#,
            "x".repeat(LARGEST_KEPT)
        );
        let for_pull = ImageConfig::parse_for_pull(large.as_bytes()).unwrap();
        assert_eq!((for_pull.env.len(), for_pull.is_small()), (0, false));
        assert_eq!(&*for_pull.platform.architecture, "arm");
        let short = br#"{"rootfs":{"diff_ids":["sha256:a"]}}"#;
        assert!(ImageConfig::parse(short).is_err());
    }
}
