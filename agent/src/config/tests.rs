#![allow(clippy::unwrap_used)]

use super::*;

fn with_file(text: &str, flags: RunFlags) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.toml");
    fs::write(&path, text).unwrap();
    let flags = RunFlags {
        config: Some(path),
        ..flags
    };
    Config::load(flags, "Host-1")
}

#[test]
fn nothing_given_works() {
    let config = Config::load(RunFlags::default(), "Host-1").unwrap();
    assert_eq!(config.node_name, "host-1");
    assert_eq!(config.containerd_namespace, "barge");
    assert_eq!(config.data_dir, Path::new("/var/lib/barge/agent"));
}

#[test]
fn flags_win_over_the_file() {
    let text = r#"
        node_name = "from-file"
        node_ip = "192.0.2.1"
        pod_network = "vxlan"
        join = ["10.0.0.1:7101"]
        [[registry]]
        host = "docker.io"
        mirrors = ["http://10.0.0.1:5000"]
    "#;
    let flags = RunFlags {
        node_name: Some("from-flag".into()),
        ..Default::default()
    };
    let config = with_file(text, flags).unwrap();
    assert_eq!(config.node_name, "from-flag");
    assert_eq!(config.node_ip, Some([192, 0, 2, 1].into()));
    assert_eq!(config.pod_network, Mode::Vxlan);
    assert_eq!(config.join, ["10.0.0.1:7101"]);
    assert_eq!(config.registries[0].mirrors, ["http://10.0.0.1:5000"]);
}

#[test]
fn files_of_registries_are_looked_at_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    let pem = parameters.self_signed(&key).unwrap().pem();
    let ca = format!("[[registry]]\nhost = \"h.example\"\nca = {path:?}\n");
    let logins = format!("registry_config = {path:?}\n");
    let broken = "-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----\n";
    for (setting, content, says) in [
        (&ca, pem.as_str(), None),
        (&ca, "", Some("has no certificate (")),
        (
            &ca,
            broken,
            Some("h.example, has no certificate as number 1"),
        ),
        (&logins, "{\"auths\": {}}", None),
        (&logins, "{\"credsStore\": \"x\"}", Some("runs no programs")),
    ] {
        fs::write(&path, content).unwrap();
        let error = with_file(setting, RunFlags::default()).err();
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(error.is_empty(), says.is_none(), "{content}: {error}");
        if let Some(says) = says {
            assert!(error.contains(says) && error.contains("file"), "{error}");
        }
    }
    fs::remove_file(&path).unwrap();
    assert!(with_file(&ca, RunFlags::default()).is_err());
    with_file(&logins, RunFlags::default()).unwrap();
}

#[test]
fn a_wrong_setting_is_named() {
    let unknown = with_file("nodename = \"x\"", RunFlags::default()).unwrap_err();
    assert!(unknown.to_string().contains("nodename"), "{unknown}");
    let way = with_file("pod_network = \"ipip\"", RunFlags::default()).unwrap_err();
    let said = way.to_string();
    assert!(said.contains("ipip") && said.contains("vxlan"), "{said}");
    for (address, right) in [
        ("a:1", true),
        ("[::1]:7101", true),
        ("a", false),
        ("a:0", false),
    ] {
        let flags = RunFlags {
            join: vec![address.into()],
            ..Default::default()
        };
        assert_eq!(Config::load(flags, "host").is_ok(), right, "{address}");
    }
    for (limit, taken) in [
        (None, Some(Some(4096))),
        (Some(-1), Some(None)),
        (Some(64), Some(Some(64))),
        (Some(0), None),
        (Some(63), None),
        (Some(-2), None),
    ] {
        let flags = RunFlags {
            pod_pids_limit: limit,
            ..Default::default()
        };
        let config = Config::load(flags, "host").ok();
        assert_eq!(
            config.map(|config| config.pod_pids_limit),
            taken,
            "{limit:?}"
        );
    }
    for name in ["Upper", "-a", "a..b", "under_score", ""] {
        assert!(!is_node_name(name), "{name}");
    }
}
