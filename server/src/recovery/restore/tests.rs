#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use barge_client::backup::Writer;
use barge_proto::v1::BackupHeader;

use super::*;
use crate::{
    boot::bootstrap,
    config::{Config, Origin},
    controllers::{NODE_GRACE, NODE_LOSS_INTERVAL},
    observe::logging::LogFormat,
};

const PASSPHRASE: &str = "correct horse battery staple";

struct Lost {
    dir: tempfile::TempDir,
    manager: Identity,
    key: SealingKey,
}

/// A cluster that had begun, and a backup of it.
fn lost(passphrase: Option<&str>) -> Lost {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open(&dir.path().join("old")).unwrap();
    let config = Config {
        data_dir: folder.path().to_owned(),
        advertise: "127.0.0.1:7101".to_owned(),
        listen: "127.0.0.1:7101".parse().unwrap(),
        origin: Origin::Bootstrap,
        pod_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
        min_disk_free: None,
        certificate_lifetime: LEAF_LIFE,
        audit: false,
        log_format: LogFormat::Text,
        metrics: None,
        otlp: None,
        snapshot_after: None,
        snapshot_rate: None,
        node_grace: NODE_GRACE,
        node_loss_interval: NODE_LOSS_INTERVAL,
        reserved_ports: Default::default(),
    };
    let manager = bootstrap::begin(&folder, &config).unwrap();
    let key = folder.load_keyring().unwrap().key().unwrap();
    let mut state = State::default();
    let genesis = bootstrap::pending(&folder, &manager).unwrap().unwrap();
    state.apply(1, genesis);
    let header = BackupHeader {
        cluster_id: manager.cluster_id.clone(),
        revision: state.revision(),
        feature_level: barge_state::LEVEL,
        sealing_key: passphrase.map(|text| crate::pki::passphrase::seal(&key, text).unwrap()),
        ..BackupHeader::default()
    };
    let file = File::create(dir.path().join("backup")).unwrap();
    let mut writer = Writer::begin(file, header).unwrap();
    for record in state.stored() {
        writer.record(record.encode()).unwrap();
    }
    writer.finish().unwrap();
    Lost { dir, manager, key }
}

impl Lost {
    fn flags(&self) -> Flags {
        Flags {
            file: self.dir.path().join("backup"),
            data_dir: self.dir.path().join("new"),
            advertise: "127.0.0.1:7201".to_owned(),
            passphrase_file: None,
            sealing_key_file: None,
        }
    }

    fn with_passphrase(&self, text: &str) -> Flags {
        let path = self.dir.path().join("passphrase");
        fs::write(&path, format!("{text}\n")).unwrap();
        Flags {
            passphrase_file: Some(path),
            ..self.flags()
        }
    }

    fn refused(&self, flags: &Flags) -> String {
        let error = restore(flags).unwrap_err().to_string();
        assert!(!flags.data_dir.exists(), "nothing was made");
        error
    }
}

#[test]
fn a_passphrase_is_enough() {
    let lost = lost(Some(PASSPHRASE));
    let flags = lost.with_passphrase(PASSPHRASE);
    restore(&flags).unwrap();
    let folder = Folder::open(&flags.data_dir).unwrap();
    let identity = Identity::load(&folder.identity()).unwrap().unwrap();
    assert_eq!(identity.cluster_id, lost.manager.cluster_id);
    assert_ne!(identity.uid, lost.manager.uid);
    assert_eq!(identity.roots, lost.manager.roots);
    let key = folder.load_keyring().unwrap().key().unwrap();
    assert_eq!(key.as_bytes(), lost.key.as_bytes());
    let subject = Subject::from_certificate(&identity.chain[0]).unwrap();
    let owner = rocks::Identity {
        cluster_id: identity.cluster_id.clone(),
        raft_id: subject.raft_id.unwrap(),
    };
    assert!(owner.raft_id > 1000);
    let state = offline::survivor(&folder.store(), &owner).unwrap().state;
    let managers: Vec<_> = state.list::<ManagerRecord>(None).collect();
    assert_eq!(managers.len(), 1);
    assert_eq!(managers[0].uid(), identity.uid);
    assert_eq!(managers[0].address, "127.0.0.1:7201");
    // Both administrators: the one of before, and the one in the folder.
    let admin = AdminConfig::load(&folder.admin()).unwrap();
    let admin = admin.context(None).unwrap().identity().unwrap();
    assert!(
        state
            .by_uid::<barge_proto::v1::CredentialRecord>(&admin.uid)
            .is_some()
    );
    assert_eq!(
        state
            .list::<barge_proto::v1::CredentialRecord>(None)
            .count(),
        2
    );
}

#[test]
fn so_is_the_key_of_before() {
    let lost = lost(None);
    let flags = Flags {
        sealing_key_file: Some(lost.dir.path().join("old/sealing.key")),
        ..lost.flags()
    };
    restore(&flags).unwrap();
}

#[test]
fn nothing_is_made_without_a_key_that_fits() {
    let lost = lost(Some(PASSPHRASE));
    assert!(lost.refused(&lost.flags()).contains("--passphrase-file"));
    let wrong = lost.refused(&lost.with_passphrase("incorrect horse"));
    assert!(wrong.contains("not the passphrase"), "{wrong}");
    let other = lost.dir.path().join("other.key");
    fs::write(&other, SealingKey::generate().as_bytes()).unwrap();
    let flags = Flags {
        sealing_key_file: Some(other),
        ..lost.flags()
    };
    let wrong = lost.refused(&flags);
    assert!(wrong.contains("not the sealing key"), "{wrong}");
}

#[test]
fn nothing_is_made_of_a_damaged_backup() {
    let lost = lost(Some(PASSPHRASE));
    let flags = lost.with_passphrase(PASSPHRASE);
    let mut bytes = fs::read(&flags.file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&flags.file, &bytes).unwrap();
    assert!(lost.refused(&flags).contains("damaged"));
    fs::write(&flags.file, &bytes[..40]).unwrap();
    assert!(lost.refused(&flags).contains("cut off"));
}

#[test]
fn a_folder_with_a_cluster_is_left_alone() {
    let lost = lost(Some(PASSPHRASE));
    let flags = Flags {
        data_dir: lost.dir.path().join("old"),
        ..lost.with_passphrase(PASSPHRASE)
    };
    let error = restore(&flags).unwrap_err();
    assert!(matches!(error, RestoreError::HasCluster { .. }), "{error}");
    let flags = Flags {
        advertise: "nowhere".to_owned(),
        ..lost.with_passphrase(PASSPHRASE)
    };
    assert!(matches!(restore(&flags), Err(RestoreError::Usage(_))));
}

#[test]
fn an_interrupted_restore_is_repeated() {
    let lost = lost(Some(PASSPHRASE));
    let flags = lost.with_passphrase(PASSPHRASE);
    restore(&flags).unwrap();
    // The identity is written last.
    fs::remove_dir_all(flags.data_dir.join("identity")).unwrap();
    restore(&flags).unwrap();
    assert!(restore(&flags).is_err());
}
