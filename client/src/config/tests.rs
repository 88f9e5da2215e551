use std::path::{Path, PathBuf};

use super::*;
use crate::{identity::tests::identity, v1::Role};

#[test]
fn round_trip_through_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.toml");
    let identity = identity(Role::Admin);
    let config = Config::single(&identity, identity.members.clone());
    config.save(&path).unwrap();
    let read = Config::load(&path).unwrap();
    assert_eq!(read, config);
    assert_eq!(read.context(None).unwrap().identity().unwrap(), identity);
    assert!(!format!("{read:?}").contains("PRIVATE KEY"));
}

#[test]
fn says_what_is_wrong_and_where() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    let missing = Config::load(&path).unwrap_err().to_string();
    assert!(missing.contains("barge dev up"), "{missing}");

    std::fs::write(&path, "current = \"a\"\nkey = \"secret\"\n").unwrap();
    let syntax = Config::load(&path).unwrap_err().to_string();
    assert!(syntax.contains("config.toml:2: unknown field"), "{syntax}");
    assert!(!syntax.contains("secret"), "{syntax}");

    let identity = identity(Role::Admin);
    let mut config = Config::single(&identity, vec![]);
    let unknown = config.context(Some("prod")).unwrap_err().to_string();
    assert!(unknown.contains("it has: default"), "{unknown}");
    config.contexts[0].key = "nonsense".into();
    let damaged = config.contexts[0].identity().unwrap_err().to_string();
    assert!(damaged.contains("private key"), "{damaged}");
    config.contexts[0].certificate = String::new();
    assert!(config.contexts[0].identity().is_err());
}

#[test]
fn discovery_prefers_the_explicit() {
    let (asked, env) = (PathBuf::from("/a"), PathBuf::from("/e"));
    let home = Path::new("/home/u");
    let found = discover(Some(asked.clone()), Some(env.clone()), Some(home));
    assert_eq!(found, Some(asked));
    assert_eq!(discover(None, Some(env.clone()), Some(home)), Some(env));
    assert_eq!(
        discover(None, Some(PathBuf::new()), Some(home)),
        Some(home.join(".config/barge/config.toml"))
    );
    assert_eq!(discover(None, None, None), None);
}
