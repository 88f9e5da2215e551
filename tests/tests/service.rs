//! What supervisors rely on: systemd's units are well-formed, and a manager tells its supervisor how it is.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use barge_tests::{cluster::program, eventually, managers::run};
use serde_json::Value;

#[test]
fn the_units_are_well_formed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd");
    let dir = tempfile::tempdir().unwrap();
    let units = [
        ("barge-server.service", "barge-server"),
        ("barge-agent-carrier.service", "barge-agent"),
        ("barge-agent-dns.service", "barge-agent"),
        ("barge-agent.service", "barge-agent"),
    ];
    for (unit, name) in units {
        // The programs are where a package would put them: here they are where they were built.
        let text = fs::read_to_string(folder.join(unit)).unwrap();
        let text = text.replace(
            &format!("/usr/bin/{name}"),
            program(name).to_str().expect("a plain path"),
        );
        let path = dir.path().join(unit);
        fs::write(&path, text).unwrap();
        let output = Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .arg(&path)
            .output()
            .expect("start systemd-analyze");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let about_it: Vec<_> = said.lines().filter(|line| line.contains(name)).collect();
        assert!(about_it.is_empty(), "{said}");
    }
}

/// What a line of the log says.
fn messages(log: &str) -> Vec<String> {
    // The last line may still be being written.
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().map(|line| {
        let line: Value = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("{line:?} is not JSON: {error}"));
        line["fields"]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    });
    lines.collect()
}

/// Scrapes the manager where its log says.
fn measured(log: &str) {
    let url = messages(log)
        .iter()
        .find_map(|message| message.strip_prefix("metrics at ").map(str::to_owned))
        .expect("it says where its metrics are");
    let text = eventually("a leader, in the metrics", || {
        let output = Command::new("curl")
            .args(["-sSf", "-m", "5", &url])
            .output()
            .expect("start curl");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match text.contains("barge_raft_is_leader 1") {
            true => Ok(text),
            false => Err(text),
        }
    });
    assert!(text.ends_with("# EOF\n"), "it is whole");
    let mut values = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').expect("a series and its value");
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(
            values.insert(series.to_owned(), value).is_none(),
            "twice: {series}"
        );
    }
    for (series, least) in [
        ("barge_raft_term", 1.0),
        ("barge_raft_voters", 1.0),
        ("barge_raft_applied_index", 1.0),
        ("barge_raft_leader_changes_total", 1.0),
        ("barge_storage_log_sync_duration_seconds_count", 1.0),
        ("barge_storage_disk_free_bytes", 1.0),
        ("barge_state_revision", 1.0),
        ("barge_store_proposals_rejected_total", 0.0),
        ("process_resident_memory_bytes", 1e6),
    ] {
        let value = values.get(series);
        assert!(
            value.is_some_and(|value| *value >= least),
            "{series}: {value:?}\n{text}"
        );
    }
}

/// More, then less again, while it runs.
fn changes_what_it_logs(address: &str, admin: &Path, log: &dyn Fn() -> String) {
    let level = |filter: &str| {
        Command::new(program("barge"))
            .args(["cluster", "log-level", address, filter])
            .env("BARGE_CONFIG", admin)
            .output()
            .expect("start barge")
    };
    assert!(!log().contains("\"level\":\"TRACE\""));
    let refused = level("barge_server=loud");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("barge_server=loud"),
        "{said}"
    );
    assert!(level("trace").status.success());
    eventually("traces are logged", || {
        match log().contains("\"level\":\"TRACE\"") {
            true => Ok(()),
            false => Err("none".to_owned()),
        }
    });
    let back = level("");
    assert!(String::from_utf8_lossy(&back.stdout).contains("trace"));
}

#[test]
fn a_manager_tells_its_supervisor() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port();
    let log = fs::File::create(dir.path().join("log")).unwrap();
    let address = format!("127.0.0.1:{port}");
    let mut manager = Command::new(program("barge-server"))
        .args(["run", "--bootstrap", "--data-dir"])
        .arg(dir.path().join("data"))
        .args(["--advertise", &address, "--metrics", "127.0.0.1:0"])
        .args(["--log-format", "json"])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "200000")
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("start a manager");
    let wait_for = |word: &str| {
        let mut buffer = [0; 512];
        loop {
            let length = socket
                .recv(&mut buffer)
                .expect("the manager says something");
            if String::from_utf8_lossy(&buffer[..length]).contains(word) {
                return;
            }
        }
    };
    wait_for("READY=1");
    wait_for("WATCHDOG=1");
    wait_for("WATCHDOG=1");
    let log = || fs::read_to_string(dir.path().join("log")).unwrap_or_default();
    measured(&log());
    changes_what_it_logs(&address, &dir.path().join("data/admin.toml"), &log);
    run(&["kill", "-TERM", &manager.id().to_string()]);
    wait_for("STOPPING=1");
    assert!(manager.wait().unwrap().success());
}
