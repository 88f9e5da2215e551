//! Valid and invalid settings.

use super::*;
use crate::cli::{Cli, Command};
use clap::Parser;

fn flags(args: &[&str]) -> Result<Config, String> {
    let all = ["barge-server", "run"].iter().chain(args);
    let cli = Cli::try_parse_from(all).map_err(|e| e.to_string())?;
    let Command::Run(flags) = cli.command else {
        return Err("another command".to_owned());
    };
    flags.resolve().map_err(|e| e.to_string())
}

#[test]
fn flags_make_a_configuration() {
    let config = flags(&[
        "--data-dir",
        "/d",
        "--advertise",
        "10.0.0.1:7101",
        "--bootstrap",
    ]);
    let config = config.unwrap();
    assert_eq!(config.listen, "0.0.0.0:7101".parse().unwrap());
    assert_eq!(config.origin, Origin::Bootstrap);
    assert_eq!(config.pod_cidr.to_string(), "10.244.0.0/16");
    assert_eq!(config.service_cidr.to_string(), "10.96.0.0/16");
}

#[test]
fn a_loopback_address_listens_there_only() {
    let config = flags(&["--data-dir", "/d", "--advertise", "127.0.0.1:7101"]).unwrap();
    assert_eq!(config.listen, "127.0.0.1:7101".parse().unwrap());
    assert_eq!(config.origin, Origin::Existing);
}

#[test]
fn what_does_not_work_is_named() {
    let with = |more: &[&str]| {
        let mut args = vec!["--data-dir", "/d", "--advertise", "h:1"];
        args.extend(more);
        flags(&args).unwrap_err()
    };
    assert!(
        flags(&["--data-dir", "/d"])
            .unwrap_err()
            .contains("--advertise is missing")
    );
    assert!(
        flags(&["--advertise", "h:1"])
            .unwrap_err()
            .contains("--data-dir is missing")
    );
    assert!(with(&["--join", "h:1"]).contains("--token-file"));
    assert!(with(&["--join", "h", "--token-file", "f"]).contains("host:port"));
    assert!(with(&["--join", "h:1", "--token-file", "f", "--bootstrap"]).contains("--bootstrap"));
    assert!(with(&["--pod-cidr", "10.96.0.0/12"]).contains("overlap"));
    assert!(with(&["--pod-cidr", "10.1.2.3/16"]).contains("begin at 10.1.0.0/16"));
    assert!(with(&["--pod-cidr", "10.1.0.0/25"]).contains("/24"));
    assert!(with(&["--min-disk-free", "5%"]).contains("such as 512Mi"));
    assert!(with(&["--snapshot-rate", "64"]).contains("at least 1Mi"));
    assert!(with(&["--snapshot-after", "0"]).contains("at least 1Mi"));
    assert!(with(&["--certificate-lifetime", "5s"]).contains("between 10 s"));
    assert!(with(&["--node-grace", "1s"]).contains("at least 4 s"));
    assert!(with(&["--reserved-ports", "22,ssh"]).contains("\"ssh\" is no port"));
    assert!(with(&["--otlp-endpoint", "collector:4317"]).contains("http://host:port"));
    assert!(with(&["--otlp-sample", "0.5"]).contains("without --otlp-endpoint"));
}

#[test]
fn flags_win_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.toml");
    fs::write(
        &path,
        "log_format = \"json\"\ndata_dir = \"/file\"\nadvertise = \"f:1\"\nbootstrap = true\notlp_endpoint = \"http://c:4317\"\notlp_sample = 0.5\ncertificate_lifetime = \"30d\"\nreserved_ports = \"23,90-91\"\n",
    )
    .unwrap();
    let path = path.to_str().unwrap();
    let config = flags(&["--config", path, "--advertise", "g:2"]).unwrap();
    assert_eq!(config.data_dir, PathBuf::from("/file"));
    assert_eq!(config.advertise, "g:2");
    assert_eq!(config.certificate_lifetime.as_secs(), 30 * 86_400);
    assert_eq!(config.log_format, LogFormat::Json);
    let kept = [22, 23, 91, 2].map(|port| config.reserved_ports.holder(port).is_some());
    assert_eq!(kept, [false, true, true, true], "2 is where it listens");
    let otlp = config.otlp.unwrap();
    assert_eq!(
        (otlp.endpoint.as_str(), otlp.sample),
        ("http://c:4317", 0.5)
    );
    assert_eq!(config.origin, Origin::Bootstrap);
    let joined = flags(&["--config", path, "--join", "a:1,b:2", "--token-file", "t"]).unwrap();
    assert!(matches!(joined.origin, Origin::Join { managers, .. } if managers.len() == 2));
}

#[test]
fn ports_on_which_only_the_machine_itself_is_answered_are_free_for_services() {
    let kept = |metrics: &str| {
        let config = flags(&[
            "--data-dir",
            "/d",
            "--advertise",
            "h:1",
            "--metrics",
            metrics,
        ]);
        let ports = config.unwrap().reserved_ports;
        ports.holder(9100).is_some()
    };
    assert!(kept("0.0.0.0:9100"));
    assert!(!kept("127.0.0.1:9100"));
    assert!(!kept("[::1]:9100"));
}
