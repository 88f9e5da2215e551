//! Network configurations: ours, generated, or the user's own.

use std::{fs, path::Path};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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

/// What the generated network is made of.
#[derive(Debug, Clone, Copy)]
pub struct Bridge<'a> {
    /// Name of the bridge.
    pub name: &'a str,
    /// The node's range of pod addresses.
    pub range: IpNet,
    /// Where the given-out addresses are noted.
    pub addresses: &'a Path,
}

/// Our own network: a bridge, the node's range, nothing else.
///
/// `portmap` and `firewall` would cost 44 and 24 ms a pod, and `ipMasq` calls iptables: ports and masquerading are rules
/// for all pods at once in the agent's own table instead. Hairpin lets a pod reach itself through a Service.
pub fn generate(bridge: &Bridge<'_>) -> NetworkConfig {
    let everywhere = match bridge.range {
        IpNet::V4(_) => "0.0.0.0/0",
        IpNet::V6(_) => "::/0",
    };
    NetworkConfig {
        cni_version: "1.0.0".to_owned(),
        name: "barge".to_owned(),
        plugins: vec![json!({
            "type": "bridge",
            "bridge": bridge.name,
            "isGateway": true,
            "hairpinMode": true,
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": bridge.addresses,
                "ranges": [[{"subnet": bridge.range.trunc().to_string()}]],
                "routes": [{"dst": everywhere}],
            },
        })],
    }
}

/// The first configuration of a folder, by name: a list (`.conflist`) or a single plugin (`.conf`, `.json`).
pub fn load(folder: &Path) -> Result<NetworkConfig, CniError> {
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
    parse(&fs::read(path)?).map_err(|why| CniError::Configuration {
        path: path.clone(),
        why,
    })
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
    fn golden() {
        let bridge = Bridge {
            name: "barge0",
            range: "10.244.1.0/24".parse().unwrap(),
            addresses: Path::new("/d/cni/addresses"),
        };
        let expected = json!({"cniVersion": "1.0.0", "name": "barge", "plugins": [{
            "type": "bridge", "bridge": "barge0", "isGateway": true, "hairpinMode": true, "ipMasq": false,
            "ipam": {"type": "host-local", "dataDir": "/d/cni/addresses",
                "ranges": [[{"subnet": "10.244.1.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]});
        assert_eq!(serde_json::to_value(generate(&bridge)).unwrap(), expected);
    }

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
        let config = load(folder.path()).unwrap();
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
