//! The beginning of a cluster: its authority, its id, and the first transaction.

use std::time::SystemTime;

use barge_client::{
    config::{Config as AdminConfig, ConfigError},
    identity::{Identity, IdentityError},
    token::{ca_digest, hex},
};
use barge_proto::v1::{
    ClusterRecord, CredentialRecord, ManagerRecord, ManagerRole, Namespace, NamespaceSpec,
    NamespaceStatus, ObjectMeta, Role, Transaction,
};
use barge_state::LEVEL;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::{
    boot::folder::{Folder, FolderError},
    config::Config,
    pki::{Authority, PkiError, Purpose, SealingKey, Subject},
    runtime::clock,
    security::rbac::identity::master,
    store::transaction::Draft,
};

/// The name of the one cluster record.
pub const CLUSTER: &str = "cluster";
/// The Raft id of the first manager.
pub const FIRST_RAFT_ID: u64 = 1;
const DEFAULT_NAMESPACE: &str = "default";

/// Why a cluster could not begin.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The data folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Keys and certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The manager's own identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The administrator's credential.
    #[error(transparent)]
    Admin(#[from] ConfigError),
    /// The transaction that was kept for the beginning.
    #[error("{}: damaged: {source}", path.display())]
    Genesis {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        source: prost::DecodeError,
    },
}

/// Makes everything that a new cluster begins with and keeps it in the folder. The manager's identity is written last: a
/// folder in which this was interrupted has no cluster yet, and the next call begins anew.
///
/// # Errors
/// What the file system says.
pub fn begin(folder: &Folder, config: &Config) -> Result<Identity, BootstrapError> {
    let now = SystemTime::now();
    let cluster_id = clock::new_uid();
    let authority = Authority::create(&cluster_id, now)?;
    let sealing_key = SealingKey::generate();
    let issue = |role, raft_id| -> Result<Identity, BootstrapError> {
        let subject = Subject {
            cluster_id: cluster_id.clone(),
            role,
            uid: clock::new_uid(),
            raft_id,
        };
        let (key, certificate) =
            authority.issue_with_new_key(&subject, now, config.certificate_lifetime)?;
        Ok(Identity {
            cluster_id: subject.cluster_id,
            role,
            uid: subject.uid,
            key: key.serialize_pem(),
            chain: vec![certificate],
            roots: vec![authority.root().clone()],
            members: vec![config.advertise.clone()],
        })
    };
    let manager = issue(Role::Manager, Some(FIRST_RAFT_ID))?;
    let admin = issue(Role::Admin, None)?;
    let sealed_ca_key = sealing_key.seal(Purpose::AuthorityKey, authority.key())?;
    let genesis = transaction(config, &authority, sealed_ca_key, &manager, &admin);

    folder.save_sealing_key(&sealing_key)?;
    folder.save_origin(&hex(&ca_digest(authority.root())))?;
    folder.write(&folder.genesis(), &genesis.encode_to_vec())?;
    AdminConfig::single(&admin, vec![config.advertise.clone()]).save(&folder.admin())?;
    manager.save(&folder.identity())?;
    tracing::info!(
        cluster = manager.cluster_id,
        credential = %folder.admin().display(),
        "a new cluster begins"
    );
    Ok(manager)
}

/// The first transaction of the cluster, while it waits to be committed.
///
/// # Errors
/// The file is damaged or unreadable.
pub fn pending(
    folder: &Folder,
    identity: &Identity,
) -> Result<Option<Transaction>, BootstrapError> {
    let path = folder.genesis();
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(crate::boot::folder::failed(&path)(error).into()),
    };
    let genesis = Transaction::decode(bytes.as_slice())
        .map_err(|source| BootstrapError::Genesis { path, source })?;
    // One of a beginning that was interrupted before this folder joined another cluster.
    let ours = genesis.principal == principal(identity);
    Ok(ours.then_some(genesis))
}

fn principal(manager: &Identity) -> String {
    format!("manager/{}", manager.uid)
}

fn transaction(
    config: &Config,
    authority: &Authority,
    sealed_ca_key: Vec<u8>,
    manager: &Identity,
    admin: &Identity,
) -> Transaction {
    let meta = |name: &str, uid: &str| {
        Some(ObjectMeta {
            name: name.to_owned(),
            uid: uid.to_owned(),
            ..ObjectMeta::default()
        })
    };
    let mut draft = Draft::new();
    draft.absent::<ClusterRecord>("", CLUSTER);
    draft.put(ClusterRecord {
        metadata: meta(CLUSTER, &manager.cluster_id),
        roots: vec![authority.root().to_vec()],
        sealed_ca_key,
        pod_cidr: config.pod_cidr.to_string(),
        service_cidr: config.service_cidr.to_string(),
        feature_level: LEVEL,
        next_raft_id: FIRST_RAFT_ID + 1,
        ..ClusterRecord::default()
    });
    draft.put(ManagerRecord {
        metadata: meta(&manager.uid, &manager.uid),
        raft_id: FIRST_RAFT_ID,
        address: config.advertise.clone(),
        public_key_sha256: public_key_sha256(manager),
        role: ManagerRole::Voter.into(),
        feature_level: LEVEL,
        ..ManagerRecord::default()
    });
    draft.put(CredentialRecord {
        metadata: meta("admin", &admin.uid),
        role: Role::Admin.into(),
        description: "made when the cluster began".to_owned(),
        identity: master(LEVEL),
        ..CredentialRecord::default()
    });
    draft.put(Namespace {
        metadata: meta(DEFAULT_NAMESPACE, &clock::new_uid()),
        spec: Some(NamespaceSpec {}),
        status: Some(NamespaceStatus {
            phase: "Active".to_owned(),
        }),
        ..Namespace::default()
    });
    draft.build(principal(manager), None)
}

/// What a manager's record says of its key.
pub fn public_key_sha256(identity: &Identity) -> Vec<u8> {
    identity
        .chain
        .first()
        .and_then(|der| x509_parser::parse_x509_certificate(der).ok())
        .map(|(_, certificate)| Sha256::digest(certificate.public_key().raw).to_vec())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Origin,
        controllers::{NODE_GRACE, NODE_LOSS_INTERVAL},
        observe::logging::LogFormat,
    };

    fn config(dir: &std::path::Path) -> Config {
        Config {
            data_dir: dir.to_owned(),
            advertise: "127.0.0.1:7101".to_owned(),
            listen: "127.0.0.1:7101".parse().unwrap(),
            origin: Origin::Bootstrap,
            pod_cidr: "10.244.0.0/16".parse().unwrap(),
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            min_disk_free: None,
            certificate_lifetime: crate::pki::authority::LEAF_LIFE,
            audit: false,
            log_format: LogFormat::Text,
            metrics: None,
            otlp: None,
            snapshot_after: None,
            snapshot_rate: None,
            node_grace: NODE_GRACE,
            node_loss_interval: NODE_LOSS_INTERVAL,
            reserved_ports: Default::default(),
        }
    }

    #[test]
    fn leaves_an_identity_a_credential_and_a_genesis() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let manager = begin(&folder, &config(dir.path())).unwrap();
        assert_eq!(
            Identity::load(&folder.identity()).unwrap().as_ref(),
            Some(&manager)
        );
        let admin = AdminConfig::load(&folder.admin()).unwrap();
        let admin = admin.context(None).unwrap().identity().unwrap();
        assert_eq!(admin.role, Role::Admin);
        assert_eq!(admin.cluster_id, manager.cluster_id);
        let genesis = pending(&folder, &manager).unwrap().unwrap();
        assert_eq!(genesis.changes.len(), 4);
    }

    #[test]
    fn the_genesis_holds_no_key_in_the_clear() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let manager = begin(&folder, &config(dir.path())).unwrap();
        let mut state = barge_state::State::default();
        state.apply(1, pending(&folder, &manager).unwrap().unwrap());
        let cluster = state.cluster().unwrap();
        let key = folder
            .load_keyring()
            .unwrap()
            .key()
            .unwrap()
            .open(Purpose::AuthorityKey, &cluster.sealed_ca_key)
            .unwrap();
        let authority = Authority::open(&cluster.roots[0], &key).unwrap();
        let bytes = std::fs::read(folder.genesis()).unwrap();
        assert!(!bytes.windows(key.len()).any(|window| window == key));
        assert_eq!(authority.root(), &manager.roots[0]);
    }

    #[test]
    fn a_genesis_of_another_beginning_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let mut manager = begin(&folder, &config(dir.path())).unwrap();
        manager.uid = "another".to_owned();
        assert_eq!(pending(&folder, &manager).unwrap(), None);
    }
}
