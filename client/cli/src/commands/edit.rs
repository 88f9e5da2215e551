//! `barge edit KIND NAME`

use std::{
    env,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use barge_client::{Client, v1::Object};
use barge_proto::manifest::{self, Source};
use clap::Args;

use crate::{
    args::{DryRun, Manager, Namespace, Where},
    change::{self, How},
    context::Connection,
    explain, names, output,
};

/// The editor of who has named none.
const EDITOR: &str = "vi";
/// What stands above the objects.
const HEADER: &str = "\
# Lines that begin with \"#\" are left out. An empty file, or one without changes, changes nothing.
# An object that others changed meanwhile is refused, unless only its status changed: resourceVersion says what was read.
";
/// Files of this process, in case names are taken.
const NAMES: usize = 100;

#[derive(Debug, Args)]
#[command(after_help = "Example: KUBE_EDITOR='code --wait' barge edit deployment/web")]
pub struct Edit {
    /// KIND NAME, or KIND/NAME; the editor is $KUBE_EDITOR, $EDITOR or vi
    #[arg(required = true, value_name = "KIND NAME")]
    what: Vec<String>,
    #[command(flatten)]
    namespace: Namespace,
    #[command(flatten)]
    dry: DryRun,
    #[command(flatten)]
    manager: Manager,
}

pub async fn run(to: &Connection, edit: Edit) -> Result<()> {
    let named = names::several(&edit.what)?;
    ensure!(!named.is_empty(), "say which: KIND NAME, or KIND/NAME");
    let client = to.client()?;
    let namespace = edit.namespace.of(to)?;
    let mut objects = Vec::new();
    for one in named {
        let namespace = names::namespace_of(one.kind, &namespace);
        let Some(mut object) = client.find(one.kind.kind, namespace, one.name).await? else {
            return Err(names::not_found(&client, one, namespace).await);
        };
        if let Some(metadata) = object.metadata_mut() {
            metadata.managed_fields.clear();
        }
        objects.push(object);
    }
    let text = text(&objects)?;
    let path = file(&text)?;
    let edited = match edited(&path).await {
        Ok(edited) => edited,
        Err(error) => return Err(kept(error, &path)),
    };
    let how = How {
        manager: edit.manager.field_manager,
        dry: edit.dry,
    };
    match put(&client, &objects, (&text, &edited), &path, &how).await {
        Ok(()) => {
            // Left behind, it is only in the way.
            let _ = fs::remove_file(&path);
            Ok(())
        }
        Err(error) => Err(kept(error, &path)),
    }
}

/// The error, and where the user's work is.
fn kept(error: anyhow::Error, path: &Path) -> anyhow::Error {
    let path = path.display();
    error.context(format!(
        "nothing of this object was changed; what you wrote is kept in {path}: edit again, and take from there what you need"
    ))
}

fn text(objects: &[Object]) -> Result<String> {
    let mut text = HEADER.to_owned();
    for (index, object) in objects.iter().enumerate() {
        if index > 0 {
            text.push_str("---\n");
        }
        text.push_str(&manifest::to_yaml(object)?);
    }
    Ok(text)
}

/// A file that only its owner may read: the object may be a Secret.
fn file(text: &str) -> Result<PathBuf> {
    let folder = env::temp_dir();
    for number in 0..NAMES {
        let path = folder.join(format!("barge-edit-{}-{number}.yaml", std::process::id()));
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        match made {
            Ok(mut file) => {
                file.write_all(text.as_bytes())
                    .with_context(|| path.display().to_string())?;
                return Ok(path);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        }
    }
    bail!(
        "there are {NAMES} files barge-edit-{}-*.yaml in {}: remove those that nobody needs",
        std::process::id(),
        folder.display()
    )
}

/// What is in the file once the editor has ended.
async fn edited(path: &Path) -> Result<String> {
    let names = ["KUBE_EDITOR", "EDITOR"];
    let mut set = names.into_iter().filter_map(|name| env::var(name).ok());
    let editor = set.find(|it| !it.trim().is_empty());
    let editor = editor.unwrap_or_else(|| EDITOR.to_owned());
    let mut command = Command::new("sh");
    // The editor may have arguments of its own.
    let script = format!("{editor} \"$@\"");
    command.args(["-c", &script, "sh"]).arg(path);
    let ended = tokio::task::spawn_blocking(move || command.status()).await?;
    let status = ended.with_context(|| format!("start the editor {editor:?}"))?;
    ensure!(
        status.success(),
        "the editor {editor:?} ended with {status}; $KUBE_EDITOR or $EDITOR names another one"
    );
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// Puts the objects in place that were changed.
async fn put(
    client: &Client,
    objects: &[Object],
    (before, after): (&str, &str),
    path: &Path,
    how: &How,
) -> Result<()> {
    let nothing = || Ok(writeln!(io::stdout(), "edit cancelled, no changes made")?);
    let says = |line: &str| !line.trim().is_empty() && !line.starts_with('#');
    if before == after || !after.lines().any(says) {
        return nothing();
    }
    let changed = changed(objects, after, path)?;
    if changed.is_empty() {
        return nothing();
    }
    let mut failures = Vec::new();
    for (read, object) in changed {
        if how.dry.dry_run == Some(Where::Client) {
            writeln!(io::stdout(), "{object} edited{}", how.note())?;
            continue;
        }
        let shown = object.to_string();
        match change::put_over(client, read, object, how).await {
            Ok((object, true)) => writeln!(io::stdout(), "{object} edited{}", how.note())?,
            Ok((object, false)) => writeln!(io::stdout(), "{object} not edited: nothing changes")?,
            Err(error) => failures.push(anyhow::Error::from(error).context(shown)),
        }
    }
    explain::all(failures)
}

/// The objects that the text changes, each behind the one that was read.
fn changed<'a>(
    objects: &'a [Object],
    text: &str,
    path: &Path,
) -> Result<Vec<(&'a Object, Object)>> {
    let source = Source::new(path.display().to_string(), text);
    let mut changed = Vec::new();
    for one in manifest::parse([source])? {
        let mut object = one.object.clone();
        let same = |other: &&Object| {
            let of = |it: &Object| (it.kind(), it.namespace().to_owned(), it.name().to_owned());
            of(other) == of(&object)
        };
        let Some(read) = objects.iter().find(same) else {
            return Err(one
                .error(
                    "metadata.name",
                    format!("{object} is none of the objects that are edited: a name, a namespace and a kind cannot change"),
                )
                .into());
        };
        change::on_condition(&mut object, read);
        let (before, after) = (read.clone().typed(), object.clone().typed());
        if before != after {
            change::check_kept(
                object.kind(),
                &output::value(&before)?,
                &output::value(&after)?,
            )
            .with_context(|| object.to_string())?;
            changed.push((read, object));
        }
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::tests::object;

    fn edit(change: impl Fn(String) -> String) -> Result<Vec<Object>> {
        let objects = [object()];
        let text = change(text(&objects).unwrap());
        let changed = changed(&objects, &text, Path::new("edit.yaml"))?;
        Ok(changed.into_iter().map(|(_, object)| object).collect())
    }

    #[test]
    fn only_what_was_changed_is_put() {
        assert!(edit(|text| text).unwrap().is_empty());
        assert!(
            edit(|text| format!("{text}# a remark\n"))
                .unwrap()
                .is_empty()
        );
        let changed = edit(|text| text.replace("'1'", "'2'").replace("\"1\"", "\"2\"")).unwrap();
        assert_eq!(changed.len(), 1);
        assert_eq!(changed[0].metadata().resource_version, "7");
    }

    #[test]
    fn other_objects_and_mistakes_are_told_with_their_lines() {
        let error = edit(|text| text.replace("name: a", "name: b")).unwrap_err();
        assert!(error.to_string().contains("edit.yaml:"), "{error}");
        assert!(error.to_string().contains("none of the objects"), "{error}");
        let error = edit(|text| text.replace("data:", "dta:")).unwrap_err();
        assert!(error.to_string().contains("dta"), "{error}");
    }

    #[test]
    fn the_file_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let path = file("secret").unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap(), "secret");
        fs::remove_file(path).unwrap();
    }
}
