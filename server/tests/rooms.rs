#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

//! The rooms of the manager: each knows only those before it in the table of `src/lib.rs`, so no two know each other.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The rooms in the order of the table.
fn rooms(lib: &str) -> Vec<&str> {
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | [`"));
    rows.filter_map(|row| Some(row.split_once("`]")?.0))
        .collect()
}

/// All files of a folder that are part of the program.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if matches!(name, "tests" | "testing" | "conformance") {
            continue;
        }
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
}

/// The rooms that a file names: what stands behind `crate::`, also in the branches of a `use`.
fn named(text: &str) -> Vec<String> {
    let code = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(branches) = rest.strip_prefix('{') else {
            found.push(word(rest));
            continue;
        };
        let (mut depth, mut begins) = (0, true);
        for (at, c) in branches.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                c if c.is_alphabetic() && begins && depth == 0 => {
                    found.push(word(&branches[at..]));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    found
}

fn word(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

#[test]
fn a_room_knows_only_those_before_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = fs::read_to_string(src.join("lib.rs")).unwrap();
    let rooms = rooms(&lib);
    let declared = lib.lines().filter_map(|line| line.strip_prefix("pub mod "));
    let mut declared: Vec<_> = declared.map(|name| name.trim_end_matches(';')).collect();
    // The command line knows the settings of every command; nothing but `main` knows it.
    declared.retain(|name| *name != "cli");
    let mut sorted = rooms.clone();
    sorted.sort_unstable();
    assert_eq!(
        sorted, declared,
        "the table of src/lib.rs names each room once"
    );

    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (floor, room) in rooms.iter().enumerate() {
        let mut found = vec![src.join(format!("{room}.rs"))];
        if src.join(room).is_dir() {
            files(&src.join(room), &mut found);
        }
        for file in found {
            for name in named(&fs::read_to_string(&file).unwrap()) {
                seen += 1;
                match rooms.iter().position(|other| *other == name) {
                    Some(other) if other <= floor => {}
                    _ => wrong.push(format!("{} uses crate::{name}", file.display())),
                }
            }
        }
    }
    assert!(
        seen > 300,
        "{seen} uses were seen: this test reads the wrong text"
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn branches_of_a_use_are_seen() {
    let text = "use crate::{\n    api::{a, b},\n    store::Store,\n};\nfn f() { crate::net::g() }\n// crate::no\n";
    assert_eq!(named(text), ["api", "store", "net"]);
}
