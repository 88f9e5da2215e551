//! The manifests that `-f` names: a file, a folder with all below it, or standard input.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use barge_proto::{
    manifest::{self, Located, Source},
    validate,
};

use crate::{args::Namespace, context::Connection, targets};

/// Names of files that are manifests, in a folder.
const ENDINGS: &[&str] = &["yaml", "yml", "json"];
/// More than any manifest has; a larger file is a mistake.
const BYTES: u64 = 64 << 20;
/// Folders in folders; more is a loop of links.
const DEPTH: usize = 32;

/// Reads and parses all objects; nothing is sent while one of them is none. What they may say is for the cluster to judge, which
/// knows what they are merged with.
pub fn read(files: &[PathBuf]) -> Result<Vec<Located>> {
    let mut sources = Vec::new();
    for file in files {
        gather(file, &mut sources)?;
    }
    let objects = manifest::parse(sources)?;
    ensure!(
        !objects.is_empty(),
        "there are no objects in {}",
        list(files)
    );
    Ok(objects)
}

/// As [`read`], each object in its namespace: the one that it names, else that of `-n` or of the context. The error names every
/// object that names another one than `-n`.
pub fn read_in(files: &[PathBuf], asked: &Namespace, to: &Connection) -> Result<Vec<Located>> {
    let mut located = read(files)?;
    let namespace = asked.of(to)?;
    let mut errors = Vec::new();
    for one in &mut located {
        if let Err(message) = targets::place(&mut one.object, &namespace, asked) {
            errors.push(one.error("metadata.namespace", message).to_string());
        }
    }
    ensure!(errors.is_empty(), "{}", errors.join("\n"));
    Ok(located)
}

/// Applies the rules that need no cluster; the error names every one that is broken, each with its line.
pub fn check(objects: &[Located]) -> Result<()> {
    let mut errors = Vec::new();
    for one in objects {
        let mut object = one.object.clone();
        validate::default(&mut object);
        let broken = validate::validate(&object).err().unwrap_or_default();
        errors.extend(broken.iter().map(|violation| {
            one.error(&violation.field, violation.to_string())
                .to_string()
        }));
    }
    ensure!(errors.is_empty(), "{}", errors.join("\n"));
    Ok(())
}

fn list(files: &[PathBuf]) -> String {
    let files: Vec<_> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    files.join(", ")
}

fn gather(file: &Path, sources: &mut Vec<Source>) -> Result<()> {
    if file == Path::new("-") {
        let mut text = String::new();
        let read = io::stdin().take(BYTES).read_to_string(&mut text);
        read.context("read standard input")?;
        sources.push(Source::new("<stdin>", text));
        return Ok(());
    }
    let about = fs::metadata(file).with_context(|| file.display().to_string())?;
    if !about.is_dir() {
        sources.push(source(file)?);
        return Ok(());
    }
    let mut found = Vec::new();
    below(file, 0, &mut found)?;
    if found.is_empty() {
        bail!(
            "there is no .yaml, .yml or .json file in {}",
            file.display()
        );
    }
    found.sort();
    for path in found {
        sources.push(source(&path)?);
    }
    Ok(())
}

fn source(path: &Path) -> Result<Source> {
    let name = path.display().to_string();
    let size = fs::metadata(path).with_context(|| name.clone())?.len();
    ensure!(
        size <= BYTES,
        "{name}: {size} bytes are too many for a manifest"
    );
    let text = fs::read_to_string(path).with_context(|| name.clone())?;
    Ok(Source::new(name, text))
}

fn below(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    ensure!(
        depth < DEPTH,
        "{}: folders are nested too deeply",
        folder.display()
    );
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden {
            continue;
        }
        if path.is_dir() {
            below(&path, depth + 1, found)?;
        } else if path
            .extension()
            .is_some_and(|end| ENDINGS.iter().any(|known| end == *known))
        {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(name: &str) -> String {
        format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n")
    }

    #[test]
    fn a_folder_is_read_whole_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("b")).unwrap();
        fs::write(dir.path().join("c.yml"), namespace("third")).unwrap();
        fs::write(dir.path().join("b/x.yaml"), namespace("second")).unwrap();
        fs::write(dir.path().join("a.yaml"), namespace("first")).unwrap();
        fs::write(dir.path().join("notes.txt"), "not a manifest").unwrap();
        fs::write(dir.path().join(".hidden.yaml"), "not: one").unwrap();
        let objects = read(&[dir.path().to_owned()]).unwrap();
        let names: Vec<_> = objects.iter().map(|one| one.object.name()).collect();
        assert_eq!(names, ["first", "second", "third"]);
    }

    #[test]
    fn broken_rules_are_all_named_with_their_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        fs::write(&path, namespace("Not_A_Name") + "---\n" + &namespace("-x")).unwrap();
        let error = check(&read(&[path]).unwrap()).unwrap_err().to_string();
        assert!(error.contains("a.yaml:4:"), "{error}");
        assert!(error.contains("a.yaml:9:"), "{error}");
        assert!(error.contains("metadata.name"), "{error}");
    }

    #[test]
    fn an_error_in_the_last_file_is_an_error_of_all() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.yaml"), namespace("first")).unwrap();
        fs::write(dir.path().join("b.yaml"), "kind: Namespace\nx: 1\n").unwrap();
        let error = read(&[dir.path().to_owned()]).unwrap_err();
        assert!(format!("{error:#}").contains("b.yaml:"), "{error:#}");
        let empty = tempfile::tempdir().unwrap();
        assert!(read(&[empty.path().to_owned()]).is_err());
        assert!(read(&[dir.path().join("missing.yaml")]).is_err());
    }
}
