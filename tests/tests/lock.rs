//! Locking the sealing key: what a manager that was started again does and does not do, and how it is given its key back.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use barge_tests::{Managers, eventually, said};
use serde_json::Value;

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    said(output)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn write(managers: &Managers, name: &str, text: &str) -> PathBuf {
    let file = managers.dir().join(name);
    fs::write(&file, text).expect("write a file");
    file
}

fn key(managers: &Managers, index: usize) -> Vec<u8> {
    fs::read(managers.data_dir(index).join("sealing.key")).expect("the key's file")
}

/// What the manager says of itself, once it answers.
fn status(managers: &Managers, index: usize) -> Value {
    let config = managers.config_for(index);
    eventually("a manager says how it is", || {
        let output = managers.try_barge_with(&config, &["cluster", "status", "-o", "json"]);
        let all: Value = serde_json::from_slice(&output.stdout).map_err(|_| said(&output))?;
        let address = managers.address(index);
        let own = all["managers"].as_array().expect("managers").iter();
        let mut own = own.filter(|one| one["address"] == *address);
        let own = own.next().ok_or_else(|| all.to_string())?.clone();
        match own["status"].is_object() {
            true => Ok(own["status"].clone()),
            false => Err(own.to_string()),
        }
    })
}

fn get(managers: &Managers, index: usize) -> Output {
    managers.try_barge_with(
        &managers.config_for(index),
        &["get", "secret", "db", "-o", "yaml"],
    )
}

#[test]
fn a_locked_manager_takes_part_and_opens_nothing_until_it_is_unlocked() {
    let mut managers = Managers::up(3);
    managers.wait_until_caught_up();
    let manifest =
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: db\nstringData:\n  password: hunter2\n";
    let secret = write(&managers, "secret.yaml", manifest);
    done(&managers.try_barge(&["apply", "-f", text(&secret)]));
    let clear = key(&managers, 0);
    let right = write(&managers, "right", "correct horse\n");
    let wrong = write(&managers, "wrong", "wrong horse\n");
    done(&with_passphrase(&managers, &right, &["lock"]));
    for index in 0..3 {
        let kept = key(&managers, index);
        assert!(!kept.windows(32).any(|window| window == clear), "{index}");
    }
    // Those that run go on.
    done(&get(&managers, 0));

    let follower = (0..3).find(|index| *index != managers.leader()).unwrap();
    let other = (0..3)
        .find(|index| *index != managers.leader() && *index != follower)
        .unwrap();
    managers.kill(follower);
    managers.start(follower, &[]);
    assert_eq!(status(&managers, follower)["locked"], true);
    let shown = said(&managers.try_barge(&["cluster", "status"]));
    assert!(
        shown.contains(&format!("{} is locked", managers.address(follower))),
        "{shown}"
    );
    assert!(managers.log(follower).contains("this manager is locked"));
    let refused = said(&get(&managers, follower));
    assert!(refused.contains("barge cluster unlock"), "{refused}");
    // It answers what needs no key, and counts for the majority.
    managers.kill(other);
    let config = managers.config_for(follower);
    let namespace = write(
        &managers,
        "namespace.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n",
    );
    done(&managers.try_barge_with(&config, &["apply", "-f", text(&namespace)]));
    managers.start(other, &[]);
    assert_eq!(status(&managers, other)["locked"], true);

    // Another passphrase changes nothing; the right one does, and the file stays under it.
    let before = key(&managers, follower);
    let refused = with_passphrase(&managers, &wrong, &["unlock"]);
    assert!(!refused.status.success());
    assert!(
        said(&refused).contains("not the passphrase"),
        "{}",
        said(&refused)
    );
    assert_eq!(key(&managers, follower), before);
    assert_eq!(status(&managers, follower)["locked"], true);
    let unlocked = done(&with_passphrase(&managers, &right, &["unlock"]));
    for index in [follower, other] {
        assert!(unlocked.contains(&managers.address(index)), "{unlocked}");
        done(&get(&managers, index));
        assert_eq!(key(&managers, index), before);
    }

    // It ends with the passphrase only, and all is in clear again.
    let refused = with_passphrase(&managers, &wrong, &["unlock", "--forget"]);
    assert!(!refused.status.success(), "{}", said(&refused));
    assert_eq!(key(&managers, follower), before);
    done(&with_passphrase(&managers, &right, &["unlock", "--forget"]));
    for index in 0..3 {
        assert_eq!(key(&managers, index), clear);
    }
    managers.kill(follower);
    managers.start(follower, &[]);
    assert_eq!(status(&managers, follower)["locked"], false);
    done(&get(&managers, follower));
}

fn with_passphrase(managers: &Managers, file: &Path, words: &[&str]) -> Output {
    managers.try_barge(&[&["cluster"], words, &["--passphrase-file", text(file)]].concat())
}

#[test]
fn a_manager_that_is_killed_while_it_is_locked_has_its_key_in_the_old_form_or_the_new() {
    let mut managers = Managers::up(1);
    let file = |n: u32| format!("passphrase number {n}");
    let mut known = Vec::new();
    for round in 0..8_u32 {
        let new = write(&managers, &format!("p{round}"), &file(round));
        let mut lock = managers
            .barge_command(
                &managers.config(),
                &["cluster", "lock", "--passphrase-file", text(&new)],
            )
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start barge");
        known.push(new);
        // Anywhere between before it began and after it was done.
        std::thread::sleep(Duration::from_millis(u64::from(round) * 40));
        managers.kill(0);
        let _ = lock.kill();
        lock.wait().expect("the command ends");
        managers.start(0, &[]);
        if status(&managers, 0)["locked"] == true {
            let opened = known.iter().any(|passphrase| {
                with_passphrase(&managers, passphrase, &["unlock"])
                    .status
                    .success()
            });
            assert!(opened, "no passphrase opens the key after round {round}");
        }
        assert_eq!(status(&managers, 0)["locked"], false);
        // It has the right key: it signs.
        let out = managers.dir().join(format!("c{round}.toml"));
        let name = format!("c{round}");
        done(&managers.try_barge(&[
            "credential",
            "create",
            &name,
            "--admin",
            "--out",
            text(&out),
        ]));
    }
}
