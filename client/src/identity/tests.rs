use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::test_ca::TestCa;

pub(crate) fn identity(role: Role) -> Identity {
    TestCa::new().issue(role, "u-1")
}

#[test]
fn round_trip_in_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("identity");
    assert_eq!(Identity::load(&dir).unwrap(), None);
    let identity = identity(Role::Agent);
    identity.save(&dir).unwrap();
    assert_eq!(Identity::load(&dir).unwrap().as_ref(), Some(&identity));
    for file in std::fs::read_dir(&dir).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert!(!format!("{identity:?}").contains("PRIVATE"));
}

#[test]
fn the_key_of_a_join_goes_when_it_is_part_of_an_identity() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(KEY_FILE), "begun").unwrap();
    assert_eq!(Identity::load(dir.path()).unwrap(), None);
    identity(Role::Agent).save(dir.path()).unwrap();
    assert!(!dir.path().join(KEY_FILE).exists());
}

#[test]
fn damage_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut identity = identity(Role::Agent);
    identity.roots.clear();
    identity.save(dir.path()).unwrap();
    let error = Identity::load(dir.path()).unwrap_err().to_string();
    assert!(
        error.ends_with("identity.toml: roots holds no certificate in PEM"),
        "{error}"
    );
    std::fs::write(dir.path().join(IDENTITY_FILE), "key = \"secret\"").unwrap();
    let error = Identity::load(dir.path()).unwrap_err().to_string();
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn subject_is_what_was_issued() {
    let identity = identity(Role::Manager);
    assert_eq!(
        Subject::of(&identity.chain[0]).unwrap(),
        Subject {
            cluster_id: "test-cluster".into(),
            role: Role::Manager,
            uid: "u-1".into()
        }
    );
    // The root names no cluster.
    assert!(Subject::of(&identity.roots[0]).is_err());
    assert_eq!(Subject::of(b"x"), Err(SubjectError::NotACertificate));
}

#[test]
fn managers_present_their_root() {
    let identity = identity(Role::Manager);
    let presented = identity.presented_chain();
    assert_eq!(
        presented,
        [&identity.chain[..], &identity.roots[..]].concat()
    );
}
