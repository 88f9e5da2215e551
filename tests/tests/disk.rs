//! Disks that run full: managers step aside while there is still space, refuse writes in words that help when too few have
//! any, and go on by themselves.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, path::Path};

use barge_tests::{Disk, Managers, eventually};

/// Of a disk of 192 MiB.
const FLOOR: &str = "64Mi";
/// Below the floor, with room for what is replicated meanwhile.
const LEFT: u64 = 40 << 20;

/// A Deployment without pods, of which each write changes a number.
fn write(managers: &Managers, config: &Path, value: u64) -> Result<(), String> {
    let manifest = managers.dir().join("counter.yaml");
    let text = format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: counter}}, spec: {{replicas: 0, paused: true,
  minReadySeconds: {value}, selector: {{matchLabels: {{app: c}}}}, template: {{metadata: {{labels: {{app: c}}}},
  spec: {{containers: [{{name: main, image: 'my-app:1.0'}}]}}}}}}}}\n"
    );
    fs::write(&manifest, text).expect("write a manifest");
    let output = managers.try_barge_with(config, &["apply", "-f", &manifest.display().to_string()]);
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// The number that was written last, and how often it changed.
fn read(managers: &Managers, config: &Path) -> Result<(u64, u64), String> {
    let arguments = ["get", "deployment", "counter", "-o", "json"];
    let output = managers.try_barge_with(config, &arguments);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let number = |value: &serde_json::Value| value.as_u64().expect("a number");
    Ok((
        number(&json["spec"]["minReadySeconds"]),
        number(&json["metadata"]["generation"]),
    ))
}

#[test]
fn a_full_disk_moves_leadership_then_refuses_writes_and_loses_nothing() {
    let mut managers = Managers::prepare(3);
    // Declared after the managers, and unmounted before their folders go.
    let mut disks = Vec::new();
    for index in 0..3 {
        let mut disk = Disk::new(&managers.dir().join(format!("{index}.img")), "192M");
        disk.mount(&managers.data_dir(index));
        disks.push(disk);
    }
    managers.form(&["--min-disk-free", FLOOR]);
    // The folder of the first manager is on a disk that runs full.
    let config = managers.config_for(1);
    write(&managers, &config, 1).expect("a write");

    let first = managers.leader();
    disks[first].fill(LEFT);
    eventually(
        "leadership has moved to a manager with space",
        || match managers.leader() {
            leader if leader == first => Err("it leads on".to_owned()),
            leader => Ok(leader),
        },
    );
    eventually("writes are accepted by the next leader", || {
        write(&managers, &config, 2)
    });

    // Two of three are low: what is written would soon be on no majority.
    let second = managers.leader();
    disks[second].fill(LEFT);
    let mut written = 2;
    let refusal = until_refused(&managers, &config, &mut written);
    for part in [
        "the disks of managers run full",
        &managers.address(first),
        &managers.address(second),
        "64Mi needed",
        "reads go on",
    ] {
        assert!(refusal.contains(part), "{part:?} is not in: {refusal}");
    }
    for index in 0..3 {
        let config = managers.config_for(index);
        assert_eq!(
            read(&managers, &config),
            Ok((written, written)),
            "through {index}"
        );
    }
    let status = managers.try_barge_with(&config, &["cluster", "status"]);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    let warning = format!("the disk of {} runs full", managers.address(second));
    assert!(status.contains(&warning), "{status}");

    // A manager that starts on such a disk starts, and changes nothing about it.
    assert!(managers.stop(second), "it stops in order");
    managers.start(second, &["--min-disk-free", FLOOR]);
    eventually("it serves reads again", || {
        read(&managers, &managers.config_for(second)).map(drop)
    });
    until_refused(&managers, &config, &mut written);

    for index in [first, second] {
        disks[index].empty();
    }
    eventually("writes are accepted again, by themselves", || {
        write(&managers, &config, written + 1)
    });
    written += 1;
    for index in 0..3 {
        let config = managers.config_for(index);
        assert_eq!(
            read(&managers, &config),
            Ok((written, written)),
            "through {index}"
        );
    }
}

/// Writes one after the other until one is refused for want of space; counts those that were acknowledged.
fn until_refused(managers: &Managers, config: &Path, written: &mut u64) -> String {
    eventually("writes are refused", || {
        match write(managers, config, *written + 1) {
            Err(error) if error.contains("run full") => Ok(error),
            Err(error) => Err(error),
            Ok(()) => {
                *written += 1;
                Err(format!("{written} was written"))
            }
        }
    })
}
