//! Network configurations of the user's own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::CniError;

/// A list of plugins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkConfig {
    /// Version of the specification.
    pub cni_version: String,
    /// Name of the network.
    pub name: String,
    /// The plugins' configurations, in the order of ADD.
    pub plugins: Vec<Value>,
}

/// The first configuration of a folder, by name, and its file: a list (`.conflist`) or a single plugin (`.conf`, `.json`).
pub fn load(folder: &Path) -> Result<(PathBuf, NetworkConfig), CniError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("conflist" | "conf" | "json")) {
            files.push(path);
        }
    }
    files.sort();
    let path = files
        .first()
        .ok_or_else(|| CniError::NoConfiguration(folder.to_owned()))?;
    let parsed = parse(&fs::read(path)?).map_err(|why| CniError::Configuration {
        path: path.clone(),
        why,
    })?;
    Ok((path.clone(), parsed))
}

fn parse(bytes: &[u8]) -> Result<NetworkConfig, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let config = match value.get("plugins") {
        Some(_) => serde_json::from_value(value).map_err(|error| error.to_string())?,
        None => {
            let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
            NetworkConfig {
                cni_version: text("cniVersion").ok_or("it has no cniVersion")?,
                name: text("name").ok_or("it has no name")?,
                plugins: vec![value],
            }
        }
    };
    if config.plugins.is_empty() {
        return Err("it has no plugins".to_owned());
    }
    match config
        .plugins
        .iter()
        .all(|plugin| plugin.get("type").is_some_and(Value::is_string))
    {
        true => Ok(config),
        false => Err("a plugin has no type".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_users_first_one_wins() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(
            load(folder.path()),
            Err(CniError::NoConfiguration(_))
        ));
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write(
            "20-b.conflist",
            r#"{"cniVersion":"1.0.0","name":"b","plugins":[{"type":"ptp"}]}"#,
        );
        write(
            "10-a.conf",
            r#"{"cniVersion":"0.4.0","name":"a","type":"bridge","bridge":"x"}"#,
        );
        write("00-readme", "not one");
        let (file, config) = load(folder.path()).unwrap();
        assert!(file.ends_with("10-a.conf"), "{file:?}");
        assert_eq!((config.name.as_str(), config.plugins.len()), ("a", 1));
        write(
            "05-bad.conflist",
            r#"{"cniVersion":"1.0.0","name":"c","plugins":[{}]}"#,
        );
        assert!(
            load(folder.path())
                .unwrap_err()
                .to_string()
                .contains("has no type")
        );
    }
}
