//! The last assignment, on disk: what a node runs when it starts and no manager can be reached.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use barge_proto::v1::{Assignment, ConfigMap, ObjectMeta, Pod, ServiceAccount, Welcome};
use prost::Message;

use super::secrets::SecretFiles;

use crate::{
    configuration::Configuration,
    desired::{Desired, Serving, Touched},
    files::{self, Reserve},
    pods::Links,
};

/// The folder of the assignment's files.
#[derive(Debug, Clone)]
pub struct AssignmentFiles {
    folder: PathBuf,
    secrets: SecretFiles,
    reserve: Reserve,
}

/// Why an assignment could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct SavedError {
    path: PathBuf,
    source: io::Error,
}

/// Written after the parts it speaks of: with an older one the parts are only newer than it says, which is harmless.
#[derive(Clone, PartialEq, Message)]
struct Acted {
    #[prost(string, tag = "1")]
    cluster_id: String,
    #[prost(uint64, tag = "2")]
    revision: u64,
}

/// What runs here, and what has to end. Both are uids in `Desired` too.
#[derive(Clone, PartialEq, Message)]
struct Pods {
    #[prost(message, repeated, tag = "3")]
    pods: Vec<Pod>,
    #[prost(string, repeated, tag = "12")]
    unknown: Vec<String>,
    #[prost(string, repeated, tag = "13")]
    deleted: Vec<String>,
}

/// ConfigMaps and ServiceAccounts, and whether there are Secrets besides, in memory.
#[derive(Clone, PartialEq, Message)]
struct Configured {
    #[prost(message, repeated, tag = "1")]
    config_maps: Vec<ConfigMap>,
    #[prost(bool, tag = "2")]
    has_secrets: bool,
    /// Of what was kept, nothing was missing.
    #[prost(bool, tag = "3")]
    complete: bool,
    #[prost(message, repeated, tag = "4")]
    accounts: Vec<ServiceAccount>,
    /// The agent that wrote this knew of ServiceAccounts.
    #[prost(bool, tag = "5")]
    has_accounts: bool,
}

/// Services, endpoints, peers, and what the cluster said of itself.
#[derive(Clone, PartialEq, Message)]
struct Network {
    #[prost(message, optional, tag = "1")]
    assignment: Option<Assignment>,
    #[prost(message, optional, tag = "2")]
    welcome: Option<Welcome>,
}

impl SavedError {
    /// The file system's answer about this path.
    pub(crate) fn new(path: &Path, source: io::Error) -> Self {
        Self {
            path: path.to_owned(),
            source,
        }
    }
}

impl AssignmentFiles {
    /// The files of a data folder. Their own folder is made when it is missing. Blocks, as all of this does.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(data_dir: &Path) -> Result<Self, SavedError> {
        let folder = data_dir.join("assigned");
        let reserve = Reserve::of(data_dir);
        let made = reserve.with(|| fs::create_dir_all(&folder));
        made.map_err(|source| SavedError {
            path: folder.clone(),
            source,
        })?;
        Ok(Self {
            folder,
            secrets: SecretFiles::of(data_dir),
            reserve,
        })
    }

    /// What was kept of this cluster; nothing when there is none. A part that cannot be read is missing, and containers that it
    /// spoke of run on.
    pub fn load(&self, cluster_id: &str) -> Desired {
        match self.read(cluster_id) {
            Ok(desired) => desired,
            Err(error) => {
                tracing::warn!(%error, "cannot read the last assignment; waiting for a manager");
                Desired::default()
            }
        }
    }

    fn read(&self, cluster_id: &str) -> Result<Desired, SavedError> {
        let acted: Acted = self.decode("acted")?;
        if acted.cluster_id != cluster_id {
            return Ok(Desired::default());
        }
        let pods: Pods = self.part("pods");
        let network: Network = self.part("network");
        let known = network.assignment.unwrap_or_default();
        let uid = |meta: &Option<ObjectMeta>| meta.clone().unwrap_or_default().uid;
        let services = table(known.services, |service| uid(&service.metadata));
        let mut desired = Desired {
            revision: acted.revision,
            network_revision: acted.revision,
            epoch: 0,
            pods: table(pods.pods, |pod| uid(&pod.metadata)),
            unknown: pods.unknown.into_iter().collect(),
            deleted: pods.deleted.into_iter().collect(),
            life: None,
            links: Links::of(services.values()),
            services,
            endpoints: table(known.endpoints, |endpoints| uid(&endpoints.metadata)),
            peers: table(known.peers, |peer| peer.node_uid.clone()),
            serving: Serving::default(),
            configuration: self.configuration(),
            welcome: network.welcome.map(Arc::new),
        };
        desired.find_places();
        Ok(desired)
    }

    fn configuration(&self) -> Configuration {
        let configured: Configured = self.part("configuration");
        let secrets = match configured.has_secrets {
            true => self.secrets.load(),
            false => Some(Vec::new()),
        };
        let complete = configured.complete && secrets.is_some();
        let kept = Configuration::kept(
            configured.config_maps,
            secrets.unwrap_or_default(),
            complete,
        );
        match configured.has_accounts {
            true => kept.with_accounts(configured.accounts),
            false => kept,
        }
    }

    /// Keeps ConfigMaps on disk and Secrets in memory. Without the Secrets, a start without managers waits for these; nothing else does.
    fn configure(&self, configuration: &Configuration) -> Result<(), SavedError> {
        let secrets: Vec<_> = configuration.secrets().cloned().collect();
        let configured = Configured {
            config_maps: configuration.config_maps().cloned().collect(),
            has_secrets: !secrets.is_empty(),
            complete: configuration.is_whole(),
            accounts: configuration.accounts().cloned().collect(),
            has_accounts: configuration.knows_accounts(),
        };
        if let Err(error) = self.secrets.save(secrets) {
            tracing::warn!(%error, "cannot keep Secrets in memory: after a restart of the agent, containers that use them wait for a manager");
        }
        self.write("configuration", &configured)
    }

    /// As [`AssignmentFiles::configure`]; when it fails, nothing is kept, so that nothing old is taken for what there is: a start without managers
    /// waits for these. Tells whether it was done.
    fn try_configure(&self, configuration: &Configuration) -> Result<bool, SavedError> {
        let Err(error) = self.configure(configuration) else {
            return Ok(true);
        };
        tracing::warn!(%error, "cannot keep ConfigMaps: after a restart of the agent, containers that use them wait for a manager; trying again");
        let path = self.path("configuration");
        files::remove_if_there(&path).map_err(failed(&path))?;
        Ok(false)
    }

    /// Makes durable what changed, then the revision. What pods use comes before the pods, and does not hold them up: ConfigMaps may be large, and a
    /// disk without room for them still takes deletions. Answers whether all of it was kept; if not, the configuration is missing.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save(
        &self,
        cluster_id: &str,
        desired: &Desired,
        touched: Touched,
    ) -> Result<bool, SavedError> {
        let Touched {
            pods,
            network,
            configuration,
        } = touched;
        let configured = !configuration || self.try_configure(&desired.configuration)?;
        if pods || !self.path("pods").exists() {
            let pods = Pods {
                pods: values(&desired.pods),
                unknown: desired.unknown.iter().cloned().collect(),
                deleted: desired.deleted.iter().cloned().collect(),
            };
            self.write("pods", &pods)?;
        }
        if network || !self.path("network").exists() {
            let assignment = Assignment {
                services: values(&desired.services),
                endpoints: values(&desired.endpoints),
                peers: values(&desired.peers),
                ..Default::default()
            };
            self.write(
                "network",
                &Network {
                    assignment: Some(assignment),
                    welcome: desired.welcome.as_deref().cloned(),
                },
            )?;
        }
        self.write(
            "acted",
            &Acted {
                cluster_id: cluster_id.to_owned(),
                revision: desired.revision,
            },
        )?;
        Ok(configured)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, message: &impl Message) -> Result<(), SavedError> {
        let path = self.path(name);
        let written = self.reserve.write_atomic(&path, &message.encode_to_vec());
        written.map_err(failed(&path))
    }

    /// Its revision still holds without it: nothing older is acted on.
    fn part<M: Message + Default>(&self, name: &str) -> M {
        self.decode(name).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read a part of the last assignment; waiting for a manager");
            M::default()
        })
    }

    fn decode<M: Message + Default>(&self, name: &str) -> Result<M, SavedError> {
        let path = self.path(name);
        let bytes = files::read_if_there(&path).map_err(failed(&path))?;
        M::decode(bytes.unwrap_or_default().as_slice())
            .map_err(|error| failed(&path)(io::Error::other(error)))
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> SavedError + '_ {
    move |source| SavedError::new(path, source)
}

fn table<T>(
    objects: Vec<T>,
    uid: impl Fn(&T) -> String,
) -> std::collections::BTreeMap<String, Arc<T>> {
    let keyed = objects
        .into_iter()
        .map(|object| (uid(&object), Arc::new(object)));
    keyed.collect()
}

fn values<T: Clone>(table: &std::collections::BTreeMap<String, Arc<T>>) -> Vec<T> {
    table.values().map(|object| T::clone(object)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use barge_proto::v1::{DeletedPod, Service};

    use super::*;

    fn meta(uid: &str) -> Option<ObjectMeta> {
        Some(ObjectMeta {
            uid: uid.into(),
            ..Default::default()
        })
    }

    #[test]
    fn an_assignment_survives_and_another_clusters_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let files = AssignmentFiles::open(folder.path()).unwrap();
        assert_eq!(files.load("a").revision, 0);
        let assignment = Assignment {
            revision: 7,
            full: true,
            pods: vec![Pod {
                metadata: meta("p"),
                ..Default::default()
            }],
            services: vec![Service {
                metadata: meta("s"),
                ..Default::default()
            }],
            ..Default::default()
        };
        let tombstone = DeletedPod {
            uid: "d".into(),
            ..Default::default()
        };
        let assignment = Assignment {
            tombstones: vec![tombstone],
            ..assignment
        };
        let (mut desired, touched) = Desired::default().apply(assignment, false).unwrap();
        desired.unknown.insert("p".into());
        files.save("a", &desired, touched).unwrap();
        let loaded = files.load("a");
        assert_eq!(loaded.revision, 7);
        assert_eq!(loaded.epoch, 0);
        assert_eq!(loaded.pods, desired.pods);
        assert_eq!(loaded.services, desired.services);
        assert_eq!(loaded.unknown, desired.unknown);
        assert_eq!(Vec::from_iter(loaded.deleted), ["d"]);
        assert!(files.load("b").pods.is_empty());
        fs::write(folder.path().join("assigned/pods"), b"\xff\xff\xff").unwrap();
        let rest = files.load("a");
        assert!(rest.pods.is_empty());
        assert_eq!((rest.revision, rest.services), (7, desired.services));
    }

    /// Secrets do not outlive a boot, and say nothing about accounts: a container whose account is the namespace's own, of which there is no object,
    /// gets its token's volume also when no manager answers.
    #[test]
    fn accounts_are_known_after_a_boot_that_took_the_secrets() {
        use barge_proto::configuration::Source;

        let folder = tempfile::tempdir().unwrap();
        let files = AssignmentFiles::open(folder.path()).unwrap();
        let secret = barge_proto::v1::Secret {
            metadata: meta("s"),
            ..Default::default()
        };
        let assignment = Assignment {
            revision: 7,
            full: true,
            secrets: vec![secret],
            ..Default::default()
        };
        let (desired, touched) = Desired::default().apply(assignment, false).unwrap();
        files.save("a", &desired, touched).unwrap();
        let secrets = folder.path().join("run/secrets");
        let _ = nix::mount::umount2(&secrets, nix::mount::MntFlags::MNT_DETACH);
        let _ = fs::remove_dir_all(&secrets);
        let loaded = files.load("a").configuration;
        assert!(loaded.is_unknown(Source::Secret, "shop", "s"));
        assert!(!loaded.is_unknown(Source::ServiceAccount, "shop", "default"));
        // Before a manager said anything, nothing is known.
        let nothing = Desired::default();
        files.save("a", &nothing, touched).unwrap();
        let loaded = files.load("a").configuration;
        assert!(loaded.is_unknown(Source::ServiceAccount, "shop", "default"));
    }
}
