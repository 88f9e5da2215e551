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
fn contexts_are_added_renamed_and_told_apart() {
    let identity = identity(Role::Admin);
    let mut config = Config::single(&identity, vec![]);
    let other = Context::new("prod".into(), &identity, vec!["m:1".into()]);
    config.add(other.clone()).unwrap();
    assert_eq!(config.current, "prod");
    let twice = config.add(other).unwrap_err().to_string();
    assert!(twice.contains("\"prod\" already"), "{twice}");
    config.rename("prod", "live").unwrap();
    assert_eq!(config.context(None).unwrap().managers, ["m:1"]);
    assert!(config.rename("live", "default").is_err());
    assert!(config.rename("prod", "x").is_err());
}

#[test]
fn a_bearer_token_needs_no_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ci.toml");
    let mut context = Context::new("ci".into(), &identity(Role::Admin), vec!["m:1".into()]);
    context.certificate.clear();
    context.key.clear();
    context.token = "bargeb1.0f.s3cret".into();
    let config = Config::of(context);
    config.save(&path).unwrap();
    assert!(
        !std::fs::read_to_string(&path)
            .unwrap()
            .contains("certificate =")
    );
    let read = Config::load(&path).unwrap();
    assert_eq!(read, config);
    let Credential::Bearer { roots, header } = read.contexts[0].credential().unwrap() else {
        panic!("it is a bearer token");
    };
    assert_eq!(roots.len(), 1);
    assert_eq!(header.to_str().unwrap(), "Bearer bargeb1.0f.s3cret");
    assert!(!format!("{read:?} {header:?}").contains("s3cret"));
    let mut damaged = read;
    damaged.contexts[0].token = "nonsense".into();
    let error = damaged.contexts[0].credential().unwrap_err().to_string();
    assert!(
        error.contains("not a bearer token") && !error.contains("nonsense"),
        "{error}"
    );
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

#[test]
fn what_is_learned_of_the_managers_loses_nothing() {
    let identity = identity(Role::Admin);
    let own = |list: &[&str]| list.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>();
    let mut config = Config::single(&identity, own(&["alias:1", "m1:1"]));
    let mut fixed = Context::new("fixed".into(), &identity, own(&["tunnel:1"]));
    fixed.only_these_managers = true;
    config.contexts.push(fixed);
    let before = config.clone();
    let cluster = identity.cluster_id.clone();
    let named = own(&["m1:1", "m2:1", "m3:1"]);
    assert!(!config.learned("default", "another cluster", &named));
    assert!(!config.learned("fixed", &cluster, &named));
    assert_eq!(config, before);
    assert!(config.learned("default", &cluster, &named));
    assert_eq!(
        config.contexts[0].managers,
        own(&["m1:1", "m2:1", "m3:1", "alias:1"])
    );
    assert!(!config.learned("default", &cluster, &named), "once");
    config.renewed("fixed", &identity).unwrap();
    assert_eq!(config.contexts[1], before.contexts[1]);

    // Two that change the file at the same time: what both did is there.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    config.save(&path).unwrap();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (path, identity) = (&path, &identity);
            scope.spawn(move || {
                let name = format!("c{number}");
                let added = Context::new(name, identity, vec!["m:1".to_owned()]);
                Config::update::<ConfigError>(path, |config| config.add(added).map(|()| true))
                    .unwrap();
            });
        }
    });
    assert_eq!(Config::load(&path).unwrap().contexts.len(), 10);
}

#[test]
fn a_context_keeps_its_namespace() {
    let identity = identity(Role::Admin);
    let mut config = Config::single(&identity, vec![]);
    config.set_namespace("default", "shop").unwrap();
    config.renewed("default", &identity).unwrap();
    let text = toml::to_string(&config).unwrap();
    let read: Config = toml::from_str(&text).unwrap();
    assert_eq!(read.context(None).unwrap().namespace, "shop");
    for wrong in ["Shop", "-a", "a_b", &"a".repeat(64)] {
        let error = config.set_namespace("default", wrong).unwrap_err();
        assert!(error.to_string().contains(wrong), "{error}");
    }
    assert!(config.set_namespace("other", "shop").is_err());
    // Files without one stay as they were.
    config.set_namespace("default", "").unwrap();
    assert!(!toml::to_string(&config).unwrap().contains("namespace"));
}
