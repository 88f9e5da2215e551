//! People and programs: credentials made, used, listed, revoked; contexts; the way back; and what the audit log says of it all.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use barge_tests::{Managers, cluster::program, eventually};
use serde_json::Value;

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    said(output)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// The credential in `path`, for one manager only.
fn only(managers: &Managers, path: &Path, index: usize) -> PathBuf {
    let one: String = fs::read_to_string(path)
        .expect("read a credential")
        .lines()
        .map(|line| match line.trim_start().starts_with("managers") {
            true => format!("managers = [\"{}\"]\n", managers.address(index)),
            false => format!("{line}\n"),
        })
        .collect();
    let file = path.with_extension(format!("{index}.toml"));
    fs::write(&file, one).expect("write a credential");
    file
}

fn namespace(managers: &Managers, config: &Path, name: &str) -> Output {
    let file = managers.dir().join(format!("{name}.yaml"));
    let manifest = format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n");
    fs::write(&file, manifest).expect("write a manifest");
    managers.try_barge_with(config, &["apply", "-f", text(&file)])
}

/// All entries of the managers' audit logs.
fn audited(managers: &Managers, count: usize) -> Vec<Value> {
    let read =
        |index| fs::read_to_string(managers.data_dir(index).join("audit.log")).unwrap_or_default();
    (0..count)
        .map(read)
        .flat_map(|log| {
            log.lines()
                .map(|line| serde_json::from_str(line).expect("a line of JSON"))
                .collect::<Vec<Value>>()
        })
        .collect()
}

/// The one entry that `fits`, which is written a moment after the answer.
fn entry(managers: &Managers, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || {
        let all = audited(managers, 3);
        let mut found = all.iter().filter(|entry| fits(entry));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one.clone()),
            (None, _) => Err(format!("not among {all:?}")),
            (Some(_), Some(_)) => panic!("{what} is there twice: {all:?}"),
        }
    })
}

#[test]
fn credentials_are_made_used_and_revoked_and_the_audit_log_knows() {
    let managers = Managers::up(3);
    managers.wait_until_caught_up();
    let follower = (0..3).find(|index| *index != managers.leader()).unwrap();
    let make = |name: &str, flags: &[&str]| {
        let out = managers.dir().join(format!("{name}.toml"));
        let create = ["credential", "create", name, "--admin", "--out", text(&out)];
        done(&managers.try_barge(&[&create, flags].concat()));
        let mode = fs::metadata(&out).expect("the credential").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        out
    };
    let alice = make("alice", &["--description", "for the tests"]);
    let robot = make("robot", &["--bearer", "--ttl", "1h"]);

    // Both work at a manager that only passes writes on, and are named in its audit log.
    for (name, config) in [("alice", &alice), ("robot", &robot)] {
        let config = only(&managers, config, follower);
        done(&namespace(&managers, &config, &format!("by-{name}")));
        let object = format!("namespace by-{name}");
        let entry = entry(&managers, &object, |entry| entry["objects"][0] == *object);
        assert_eq!(entry["name"], name, "{entry}");
        assert_eq!(entry["outcome"], "OK");
        assert_eq!(entry["rpc"], "/barge.v1.Api/Apply");
        assert!(
            entry["from"]
                .as_str()
                .expect("an address")
                .starts_with("10.")
        );
    }
    let list = done(&managers.try_barge(&["credential", "list"]));
    for word in ["alice", "robot", "bearer", "for the tests", "never", "in "] {
        assert!(list.contains(word), "no {word:?} in: {list}");
    }
    let secret = fs::read_to_string(&robot).unwrap();
    let secret = secret
        .split('"')
        .find(|part| part.starts_with("bargeb1."))
        .unwrap();
    assert!(!list.contains(secret.rsplit('.').next().unwrap()));
    let twice = managers.dir().join("twice.toml");
    let twice = managers.try_barge(&["credential", "create", "alice", "--out", text(&twice)]);
    assert!(said(&twice).contains("already"), "{}", said(&twice));

    // Revoked, they are refused everywhere, and the refusal is written down.
    for (name, config) in [("alice", &alice), ("robot", &robot)] {
        done(&managers.try_barge(&["credential", "revoke", name]));
        for index in 0..3 {
            let refused = namespace(&managers, &only(&managers, config, index), "late");
            assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
            assert!(said(&refused).contains("any more"), "{}", said(&refused));
        }
    }
    eventually("refusals are written down", || {
        let all = audited(&managers, 3);
        let refused = all
            .iter()
            .filter(|entry| entry["verb"] == "apply" && entry["outcome"] == "UNAUTHENTICATED");
        match refused.count() {
            6.. => Ok(()),
            n => Err(format!("{n} of 6")),
        }
    });

    // Contexts: what came in a file is added under a name, and used.
    let bob = make("bob", &[]);
    let config = managers.dir().join("config.toml");
    let barge = |arguments: &[&str]| managers.try_barge_with(&config, arguments);
    done(&barge(&[
        "config",
        "import",
        text(&managers.config()),
        "--name",
        "first",
    ]));
    done(&barge(&["config", "import", text(&bob)]));
    assert_eq!(done(&barge(&["config", "current-context"])).trim(), "bob");
    done(&barge(&["config", "use-context", "first"]));
    done(&barge(&["get", "namespaces"]));
    let unknown = barge(&["config", "use-context", "nobody"]);
    assert!(
        said(&unknown).contains("it has: first, bob"),
        "{}",
        said(&unknown)
    );

    // Without any administrator, root on a manager makes a credential.
    done(&barge(&["credential", "revoke", "bob"]));
    done(&barge(&["credential", "revoke", "admin"]));
    assert!(!barge(&["get", "namespaces"]).status.success());
    let found = managers.dir().join("found.toml");
    let made = Command::new(program("barge-server"))
        .args(["credential", "found", "--data-dir"])
        .arg(managers.data_dir(follower))
        .args(["--out", text(&found)])
        .output()
        .expect("run barge-server");
    done(&made);
    done(&managers.try_barge_with(&found, &["get", "namespaces"]));
    let minted = entry(&managers, "the minting", |entry| {
        entry["objects"][0] == "credential found"
    });
    assert!(
        minted["who"]
            .as_str()
            .expect("a name")
            .starts_with("manager/")
    );
}

#[test]
fn tokens_are_described_listed_without_their_secret_and_revoked() {
    let managers = Managers::up(1);
    let describe = ["token", "create", "--role", "agent", "--uses", "3"];
    let made = managers.try_barge(&[&describe[..], &["--description", "rack 7"]].concat());
    let token = done(&made)
        .split_whitespace()
        .find(|word| word.starts_with("barge1-"))
        .expect("a token")
        .to_owned();
    let parts: Vec<_> = token.split('-').collect();
    let list = done(&managers.try_barge(&["token", "list"]));
    for word in [parts[2], "agent", "3", "rack 7"] {
        assert!(list.contains(word), "no {word:?} in: {list}");
    }
    assert!(!list.contains(parts[3]), "the secret is not shown");
    done(&managers.try_barge(&["token", "revoke", parts[2]]));
    let list = done(&managers.try_barge(&["token", "list"]));
    assert!(!list.contains("rack 7"), "{list}");
    let long = "x".repeat(300);
    let refused = managers.try_barge(&[&describe[..], &["--description", &long]].concat());
    assert!(said(&refused).contains("description"), "{}", said(&refused));
}
