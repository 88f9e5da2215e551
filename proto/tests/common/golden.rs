//! Files that hold what is expected. `UPDATE_GOLDEN=1` writes what is there now, for review in the diff.

use std::{env, fs, path::PathBuf};

/// The path of a golden file.
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// The text of a golden file.
#[allow(dead_code, reason = "not every test reads one by itself")]
pub fn read(name: &str) -> String {
    let path = path(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Fails when the file does not hold this text.
pub fn check(name: &str, text: &str) {
    let path = path(name);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        return fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if expected != text {
        let line = expected
            .lines()
            .zip(text.lines())
            .position(|(expected, found)| expected != found)
            .unwrap_or_else(|| expected.lines().count().min(text.lines().count()));
        panic!(
            "{} differs in line {}:\nexpected {:?}\n   found {:?}\nUPDATE_GOLDEN=1 writes it anew",
            path.display(),
            line + 1,
            expected.lines().nth(line),
            text.lines().nth(line),
        );
    }
}
