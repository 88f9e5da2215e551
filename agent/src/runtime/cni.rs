//! The Container Network Interface: whole chains of plugins, and their results kept for the way back.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

mod config;
mod exec;

pub use config::{NetworkConfig, load};
pub use exec::Attachment;

/// Why a pod is not attached to the network, or detached from it.
#[derive(Debug, thiserror::Error)]
pub enum CniError {
    /// No configuration.
    #[error("there is no network configuration in {0}")]
    NoConfiguration(PathBuf),
    /// A configuration that is not one.
    #[error("{path} cannot be used: {why}")]
    Configuration {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A plugin that is not installed.
    #[error(
        "the network plugin \"{plugin}\" is in none of {folders:?}; install it (Debian: containernetworking-plugins)"
    )]
    NoPlugin {
        /// Its name.
        plugin: String,
        /// Where it was looked for.
        folders: Vec<PathBuf>,
    },
    /// A plugin that said no.
    #[error("the network plugin \"{plugin}\" failed to {command} the pod: {why}")]
    Plugin {
        /// Its name.
        plugin: String,
        /// ADD or DEL.
        command: &'static str,
        /// What it said.
        why: String,
    },
    /// A plugin that did not end.
    #[error("the network plugin \"{plugin}\" did not end within {seconds} s")]
    Timeout {
        /// Its name.
        plugin: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The records of what was done.
    #[error("cannot keep the network's state: {0}")]
    Io(#[from] io::Error),
    /// The agent could not wire the pod.
    #[error("cannot wire it: {0}")]
    Routed(#[source] io::Error),
    /// The pod asks for something that it cannot have here.
    #[error("{0}")]
    Refused(String),
}

/// How a pod was attached: what its removal needs, whatever the configuration is by then.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The configuration used. Without plugins: the agent wired the pod itself.
    pub network: NetworkConfig,
    /// What the last plugin of ADD answered, or the agent in its words; nothing while the pod is not attached.
    #[serde(default)]
    pub result: Option<Value>,
}

impl Record {
    /// Of a pod that the agent wires itself. Agents before it find no plugin in it to call, and the addresses where they look for them.
    pub fn routed(address: Option<IpAddr>) -> Self {
        let network = NetworkConfig {
            cni_version: "1.0.0".to_owned(),
            name: "barge".to_owned(),
            plugins: Vec::new(),
        };
        let result = address.map(|address| {
            let whole = IpNet::from(address).to_string();
            json!({"cniVersion": network.cni_version, "ips": [{"address": whole}]})
        });
        Self { network, result }
    }

    /// Whether the agent wired the pod itself.
    pub fn is_routed(&self) -> bool {
        self.network.plugins.is_empty()
    }

    /// The addresses that ADD answered.
    pub fn ips(&self) -> Vec<IpAddr> {
        self.result.as_ref().map(ips).unwrap_or_default()
    }
}

/// The addresses in a result, of any version of the specification from 0.3 on.
fn ips(result: &Value) -> Vec<IpAddr> {
    let list = result.get("ips").and_then(Value::as_array);
    let addresses = list
        .into_iter()
        .flatten()
        .filter_map(|ip| ip.get("address")?.as_str());
    addresses
        .filter_map(|address| address.split('/').next()?.parse().ok())
        .collect()
}

/// Finds plugins.
#[derive(Debug, Clone)]
pub struct Plugins {
    /// Where they are looked for, in order.
    pub folders: Vec<PathBuf>,
}

impl Plugins {
    fn find(&self, plugin: &str) -> Result<PathBuf, CniError> {
        // A name that is a path would lead out of the folders.
        let named = !plugin.is_empty() && Path::new(plugin).file_name() == Some(plugin.as_ref());
        let mut candidates = self.folders.iter().map(|folder| folder.join(plugin));
        let found = candidates.find(|path| named && path.is_file());
        found.ok_or_else(|| CniError::NoPlugin {
            plugin: plugin.to_owned(),
            folders: self.folders.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_of_both_families() {
        let result = json!({"cniVersion": "1.0.0", "ips": [
            {"address": "10.244.1.2/24", "gateway": "10.244.1.1"}, {"address": "fd00::2/64"}, {"gateway": "x"}]});
        assert_eq!(
            ips(&result),
            [
                "10.244.1.2".parse::<IpAddr>().unwrap(),
                "fd00::2".parse().unwrap()
            ]
        );
        assert_eq!(ips(&json!({})), Vec::<IpAddr>::new());
    }

    #[test]
    fn a_routed_pod_has_one_address_and_no_plugin() {
        let address: IpAddr = "10.244.1.5".parse().unwrap();
        let record = Record::routed(Some(address));
        assert_eq!(record.ips(), [address]);
        assert!(record.is_routed());
        let text = serde_json::to_string(&record).unwrap();
        assert!(text.contains("10.244.1.5/32"), "{text}");
    }

    #[test]
    fn a_plugin_is_a_name() {
        let plugins = Plugins {
            folders: vec!["/usr/bin".into()],
        };
        assert!(plugins.find("env").is_ok());
        for bad in ["", "..", "../bin/env", "/usr/bin/env", "no-such-plugin"] {
            assert!(plugins.find(bad).is_err(), "{bad}");
        }
    }
}
