//! Running plugins.

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use super::{CniError, NetworkConfig, Plugins, Record};
use crate::files;

/// Plugins take milliseconds; one that takes this long hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// The interface inside.
const INTERFACE: &str = "eth0";

/// A pod to be attached or detached.
#[derive(Debug, Clone, Copy)]
pub struct Attachment<'a> {
    /// Identifies the pod to the plugins.
    pub pod_uid: &'a str,
    /// Namespace of the pod, for plugins that ask.
    pub namespace: &'a str,
    /// Name of the pod, for plugins that ask.
    pub name: &'a str,
    /// Its network namespace; `None` when it is gone.
    pub netns: Option<&'a Path>,
}

impl Plugins {
    /// Runs the chain with ADD; answers what the last plugin said.
    pub async fn add(
        &self,
        network: &NetworkConfig,
        pod: &Attachment<'_>,
    ) -> Result<Value, CniError> {
        let mut previous = None;
        for plugin in &network.plugins {
            let config = configuration(network, plugin, previous.as_ref());
            previous = Some(self.run("ADD", &config, pod).await?);
        }
        previous.ok_or_else(|| CniError::Plugin {
            plugin: network.name.clone(),
            command: "ADD",
            why: "there is no plugin".to_owned(),
        })
    }

    /// Runs the chain backwards with DEL, all of it even when some fail; that nothing is there is success.
    pub async fn del(&self, record: &Record, pod: &Attachment<'_>) -> Result<(), CniError> {
        let mut first = Ok(());
        for plugin in record.network.plugins.iter().rev() {
            let config = configuration(&record.network, plugin, record.result.as_ref());
            let deleted = self.run("DEL", &config, pod).await;
            first = first.and(deleted.map(drop));
        }
        first
    }

    async fn run(
        &self,
        command: &'static str,
        config: &Value,
        pod: &Attachment<'_>,
    ) -> Result<Value, CniError> {
        let plugin = config
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let (this, name) = (self.clone(), plugin.to_owned());
        let program = files::reading(move || Ok(this.find(&name))).await??;
        let arguments = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_UID={}",
            pod.namespace, pod.name, pod.pod_uid
        );
        let mut child = Command::new(program)
            .env_clear()
            // Some plugins call others.
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", pod.pod_uid)
            .env("CNI_NETNS", pod.netns.unwrap_or(Path::new("")))
            .env("CNI_IFNAME", INTERFACE)
            .env("CNI_ARGS", arguments)
            .env(
                "CNI_PATH",
                std::env::join_paths(&self.folders).unwrap_or_default(),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = serde_json::to_vec(config).map_err(std::io::Error::other)?;
        let talk = async {
            if let Some(mut stdin) = child.stdin.take() {
                // A plugin that fails before it has read all says why on its output.
                let _ = stdin.write_all(&input).await;
            }
            child.wait_with_output().await
        };
        let output = timeout(PATIENCE, talk)
            .await
            .map_err(|_| CniError::Timeout {
                plugin: plugin.to_owned(),
                seconds: PATIENCE.as_secs(),
            })??;
        if output.status.success() {
            return Ok(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null));
        }
        Err(CniError::Plugin {
            plugin: plugin.to_owned(),
            command,
            why: explanation(&output.stdout, &output.stderr)
                .unwrap_or_else(|| format!("it ended with {}", output.status)),
        })
    }
}

/// A plugin's configuration as it is run: with the network's name and version, and what was answered before.
fn configuration(network: &NetworkConfig, plugin: &Value, previous: Option<&Value>) -> Value {
    let mut config = plugin.clone();
    config["cniVersion"] = json!(network.cni_version);
    config["name"] = json!(network.name);
    if let Some(previous) = previous {
        config["prevResult"] = previous.clone();
    }
    config
}

/// What a failed plugin said: an error object, or else the last thing it wrote.
fn explanation(stdout: &[u8], stderr: &[u8]) -> Option<String> {
    let object: Option<Value> = serde_json::from_slice(stdout).ok();
    let field = |key: &str| Some(object.as_ref()?.get(key)?.as_str()?.trim().to_owned());
    let said = [field("msg"), field("details")];
    let said: Vec<String> = said
        .into_iter()
        .flatten()
        .filter(|text| !text.is_empty())
        .collect();
    if !said.is_empty() {
        return Some(said.join(": "));
    }
    let text = [stderr, stdout].map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
    text.into_iter().find(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

    use super::*;

    /// Plugins that note what they were asked, and answer or fail as the configuration wants.
    fn scripted(folder: &Path, names: &[&str]) -> Plugins {
        let script = format!(
            "#!/bin/sh\nin=$(cat)\necho \"$CNI_COMMAND ${{0##*/}} $CNI_NETNS $in\" >> {0}/calls\n\
             case $in in *fail*) echo '{{\"code\":7,\"msg\":\"no room\",\"details\":\"all given out\"}}'; exit 1;; esac\n\
             echo '{{\"ips\":[{{\"address\":\"10.0.0.2/24\"}}],\"by\":\"'${{0##*/}}'\"}}'\n",
            folder.display()
        );
        for name in names {
            let path = folder.join(name);
            fs::write(&path, &script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Plugins {
            folders: vec![folder.to_owned()],
        }
    }

    fn pod(netns: Option<&Path>) -> Attachment<'_> {
        Attachment {
            pod_uid: "u",
            namespace: "default",
            name: "web",
            netns,
        }
    }

    fn network(plugins: Value) -> NetworkConfig {
        NetworkConfig {
            cni_version: "1.0.0".into(),
            name: "n".into(),
            plugins: plugins.as_array().unwrap().clone(),
        }
    }

    #[tokio::test]
    async fn the_whole_chain_forth_and_back() {
        let folder = tempfile::tempdir().unwrap();
        let plugins = scripted(folder.path(), &["one", "two"]);
        let network = network(json!([{"type": "one"}, {"type": "two"}]));
        let netns = PathBuf::from("/ns");
        let result = plugins.add(&network, &pod(Some(&netns))).await.unwrap();
        assert_eq!(result["by"], "two");
        let record = Record {
            network,
            result: Some(result),
        };
        assert_eq!(
            record.ips(),
            ["10.0.0.2".parse::<std::net::IpAddr>().unwrap()]
        );
        plugins.del(&record, &pod(None)).await.unwrap();
        let calls = fs::read_to_string(folder.path().join("calls")).unwrap();
        let calls: Vec<&str> = calls.lines().collect();
        assert!(calls[0].starts_with("ADD one /ns") && !calls[0].contains("prevResult"));
        assert!(calls[1].starts_with("ADD two /ns") && calls[1].contains("\"by\":\"one\""));
        assert!(calls[2].starts_with("DEL two  ") && calls[2].contains("\"by\":\"two\""));
        assert!(calls[3].starts_with("DEL one  ") && calls[3].contains("\"by\":\"two\""));
    }

    #[tokio::test]
    async fn a_failure_is_said_in_the_plugins_words_and_del_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let plugins = scripted(folder.path(), &["one", "two"]);
        let record = Record {
            network: network(json!([{"type": "one"}, {"type": "two", "fail": true}])),
            result: None,
        };
        let error = plugins
            .add(&record.network, &pod(None))
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("\"two\" failed to ADD the pod: no room: all given out"),
            "{error}"
        );
        plugins.del(&record, &pod(None)).await.unwrap_err();
        let calls = fs::read_to_string(folder.path().join("calls")).unwrap();
        assert!(
            calls.lines().last().unwrap().starts_with("DEL one"),
            "{calls}"
        );
    }
}
