//! Secrets and ConfigMaps: applied, shown, watched and compared like other kinds, and in clear on no disk.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use barge_tests::{Managers, eventually, said};

/// What must not be found, in any form in which it could be written down.
const VALUE: &str = "correct-horse-battery-staple";
const IN_BASE64: &str = "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ";

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    said(output)
}

fn write(managers: &Managers, name: &str, text: &str) -> PathBuf {
    let file = managers.dir().join(name);
    fs::write(&file, text).expect("write a manifest");
    file
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn secret(value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: db\nstringData:\n  user: ann\n  password: {value}\n"
    )
}

/// The files in and below a folder that hold one of some texts.
fn holding(folder: &Path, texts: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holding(&path, texts));
            continue;
        }
        // Files of the databases come and go.
        let bytes = fs::read(&path).unwrap_or_default();
        let holds = |text: &&str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
        if texts.iter().any(holds) {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_secret_is_shown_to_who_may_see_it_and_in_clear_on_no_disk() {
    let mut managers = Managers::up(3);
    managers.wait_until_caught_up();
    let file = write(&managers, "secret.yaml", &secret(VALUE));
    let applied = done(&managers.try_barge(&["apply", "-f", text(&file)]));
    assert!(applied.contains("secret/db created"), "{applied}");
    let again = done(&managers.try_barge(&["apply", "-f", text(&file)]));
    assert!(again.contains("secret/db unchanged"), "{again}");

    // Every manager opens it, for those who ask for it as a whole.
    for index in 0..3 {
        let config = managers.config_for(index);
        eventually("a manager shows the secret", || {
            let shown = managers.try_barge_with(&config, &["get", "secret", "db", "-o", "yaml"]);
            let shown = said(&shown);
            match shown.contains(IN_BASE64) && !shown.contains("stringData") {
                true => Ok(()),
                false => Err(shown),
            }
        });
    }
    let table = done(&managers.try_barge(&["get", "secrets"]));
    assert!(
        table.contains("Opaque") && !table.contains(IN_BASE64),
        "{table}"
    );
    let described = done(&managers.try_barge(&["describe", "secret", "db"]));
    assert!(
        described.contains(&format!("{} bytes", VALUE.len())),
        "{described}"
    );
    assert!(
        !described.contains(VALUE) && !described.contains(IN_BASE64),
        "{described}"
    );

    // What is compared is masked, and what is shown can be applied.
    let other = write(&managers, "other.yaml", &secret("another"));
    let diff = managers.try_barge(&["diff", "-f", text(&other)]);
    let (code, diff) = (diff.status.code(), said(&diff));
    assert_eq!(code, Some(1), "{diff}");
    assert!(
        diff.contains("*** (before)") && diff.contains("*** (after)"),
        "{diff}"
    );
    assert!(
        !diff.contains(IN_BASE64) && !diff.contains("another"),
        "{diff}"
    );
    let shown = managers.try_barge(&["get", "secret", "db", "-o", "yaml"]);
    let shown = write(
        &managers,
        "shown.yaml",
        &String::from_utf8_lossy(&shown.stdout),
    );
    let round = done(&managers.try_barge(&["apply", "-f", text(&shown)]));
    assert!(round.contains("secret/db unchanged"), "{round}");
    fs::remove_file(&shown).unwrap();
    let refused = managers.try_barge(&["apply", "-f", text(&other), "--field-manager", "somebody"]);
    let refused = said(&refused);
    assert!(
        refused.contains("another value") && !refused.contains(IN_BASE64),
        "{refused}"
    );

    // A watcher sees it open, too.
    let seen = managers.dir().join("seen");
    let mut watching = managers
        .barge_command(&managers.config(), &["get", "secrets", "-w", "-o", "yaml"])
        .stdout(fs::File::create(&seen).unwrap())
        .spawn()
        .expect("start barge");
    eventually("the watcher sees the secret", || {
        let seen = fs::read_to_string(&seen).map_err(|error| error.to_string())?;
        match seen.contains(IN_BASE64) {
            true => Ok(()),
            false => Err(seen),
        }
    });
    done(&managers.try_barge(&["apply", "-f", text(&other)]));
    done(&managers.try_barge(&["apply", "-f", text(&file)]));
    eventually("the watcher sees the change", || {
        let seen = fs::read_to_string(&seen).map_err(|error| error.to_string())?;
        // "another"
        match seen.contains("YW5vdGhlcg==") {
            true => Ok(()),
            false => Err(seen),
        }
    });
    watching.kill().expect("end the watcher");
    watching.wait().expect("the watcher ends");

    // Neither in logs, state and snapshots nor in a backup; also not after a restart, which replays the log.
    let backup = managers.dir().join("it.backup");
    done(&managers.try_barge(&["cluster", "backup", text(&backup)]));
    let follower = (0..3).find(|index| *index != managers.leader()).unwrap();
    managers.kill(follower);
    managers.start(follower, &[]);
    managers.wait_until_answers(follower);
    let shown = managers.try_barge_with(
        &managers.config_for(follower),
        &["get", "secret", "db", "-o", "yaml"],
    );
    assert!(done(&shown).contains(IN_BASE64));
    let marks = [VALUE, IN_BASE64];
    for index in 0..3 {
        let found = holding(&managers.data_dir(index), &marks);
        assert!(found.is_empty(), "{found:?}");
        assert!(!managers.log(index).contains(VALUE));
    }
    let bytes = fs::read(&backup).expect("the backup");
    let holds = |mark: &str| bytes.windows(mark.len()).any(|w| w == mark.as_bytes());
    assert!(!holds(VALUE) && !holds(IN_BASE64));

    let deleted = done(&managers.try_barge(&["delete", "secret", "db"]));
    assert!(deleted.contains("db"), "{deleted}");
    let gone = managers.try_barge(&["get", "secret", "db"]);
    assert!(said(&gone).contains("not found"), "{}", said(&gone));
}

#[test]
fn a_config_map_is_kept_and_refused_changes_when_it_is_immutable() {
    let managers = Managers::up(1);
    let map = |color: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: web\nimmutable: true\ndata:\n  color: {color}\n  \
             nginx.conf: |\n    listen 80;\n    root /;\nbinaryData:\n  logo: iVBORw0KGgo=\n"
        )
    };
    let file = write(&managers, "map.yaml", &map("blue"));
    done(&managers.try_barge(&["apply", "-f", text(&file)]));
    let described = done(&managers.try_barge(&["describe", "cm", "web"]));
    for part in ["blue", "listen 80;", "8 bytes", "Immutable"] {
        assert!(described.contains(part), "no {part:?} in {described}");
    }
    let table = done(&managers.try_barge(&["get", "configmaps"]));
    assert!(table.contains('3'), "{table}");
    let other = write(&managers, "other.yaml", &map("red"));
    let refused = managers.try_barge(&["apply", "-f", text(&other)]);
    let refused = said(&refused);
    assert!(
        refused.contains("immutable: delete it and create it anew"),
        "{refused}"
    );
    let both = map("blue")
        .replace("logo: ", "color: ")
        .replace("web", "two");
    let both = write(&managers, "both.yaml", &both);
    let refused = said(&managers.try_barge(&["apply", "-f", text(&both)]));
    assert!(refused.contains("can be in one of them only"), "{refused}");
    let explained = done(&managers.try_barge(&["explain", "configmap.binaryData"]));
    assert!(explained.contains("base64"), "{explained}");
}
