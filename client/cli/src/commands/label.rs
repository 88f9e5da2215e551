//! `barge label` and `barge annotate`: KIND NAME KEY=VALUE… KEY-…

use std::io::{self, Write};

use anyhow::{Result, bail, ensure};
use clap::Args;
use serde_json::{Map, Value};

use crate::{
    args::{DryRun, Manager},
    change::{self, How},
    context::Connection,
    explain,
    targets::Whose,
};

const LABEL_EXAMPLES: &str = "\
Examples:
  barge label deployment web tier=front
  barge label deployment/web tier=back --overwrite
  barge label deployments -l app=web tier-
  barge label pod/web-x2b7k app=debug --overwrite";
const ANNOTATE_EXAMPLES: &str = "\
Examples:
  barge annotate deployment/web owner=ann
  barge annotate services --all owner-";

#[derive(Debug, Args)]
#[command(after_help = LABEL_EXAMPLES)]
pub struct Label {
    #[command(flatten)]
    pairs: Pairs,
}

#[derive(Debug, Args)]
#[command(after_help = ANNOTATE_EXAMPLES)]
pub struct Annotate {
    #[command(flatten)]
    pairs: Pairs,
}

#[derive(Debug, Args)]
struct Pairs {
    /// KIND NAME, KIND/NAME or kinds, then KEY=VALUE to set and KEY- to remove
    #[arg(required = true, value_name = "KIND NAME KEY=VALUE|KEY-")]
    words: Vec<String>,
    #[command(flatten)]
    whose: Whose,
    /// Change keys that have another value already
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    dry: DryRun,
    #[command(flatten)]
    manager: Manager,
}

/// What is done to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    key: String,
    /// Nothing removes it.
    value: Option<String>,
}

pub async fn label(to: &Connection, label: Label) -> Result<()> {
    run(to, label.pairs, ("labels", "label", "labeled")).await
}

pub async fn annotate(to: &Connection, annotate: Annotate) -> Result<()> {
    run(
        to,
        annotate.pairs,
        ("annotations", "annotation", "annotated"),
    )
    .await
}

async fn run(to: &Connection, pairs: Pairs, words: (&str, &str, &str)) -> Result<()> {
    let (field, one, done) = words;
    let (what, changes) = split(&pairs.words)?;
    let targets = pairs.whose.which(what.to_vec())?.targets(to).await?;
    if targets.is_empty() {
        bail!("no {} found", what.join(" "));
    }
    let how = How {
        manager: pairs.manager.field_manager,
        dry: pairs.dry,
    };
    let client = to.client()?;
    let mut failures = Vec::new();
    for target in &targets {
        let edit = |object: &mut Value| set(object, (field, one), &changes, pairs.overwrite);
        match change::change(&client, target, &how, edit).await {
            Ok((object, true)) => writeln!(io::stdout(), "{object} {done}{}", how.note())?,
            Ok((object, false)) => writeln!(io::stdout(), "{object} not {done}: nothing changes")?,
            Err(error) => failures.push(error),
        }
    }
    explain::all(failures)
}

/// The words that say which objects, and what is done to their keys.
fn split(words: &[String]) -> Result<(&[String], Vec<Change>)> {
    // No name ends with a hyphen or has an equals sign.
    let is_change = |word: &String| word.contains('=') || word.ends_with('-');
    let first = words.iter().position(is_change).unwrap_or(words.len());
    let (what, rest) = words.split_at(first);
    ensure!(
        !rest.is_empty(),
        "say what to set (KEY=VALUE) or to remove (KEY-)"
    );
    let mut changes: Vec<Change> = Vec::new();
    for word in rest {
        let change = match (word.split_once('='), word.strip_suffix('-')) {
            (Some((key, value)), _) if !key.is_empty() => Change {
                key: key.to_owned(),
                value: Some(value.to_owned()),
            },
            (None, Some(key)) if !key.is_empty() => Change {
                key: key.to_owned(),
                value: None,
            },
            _ => bail!("\"{word}\" should be KEY=VALUE or KEY-"),
        };
        if changes.iter().any(|other| other.key == change.key) {
            bail!(
                "\"{}\" is there twice: say once what becomes of it",
                change.key
            );
        }
        changes.push(change);
    }
    Ok((what, changes))
}

/// Carries the changes out on an object's JSON.
fn set(
    object: &mut Value,
    (field, one): (&str, &str),
    changes: &[Change],
    overwrite: bool,
) -> Result<()> {
    let mut pairs = match object["metadata"][field].take() {
        Value::Object(pairs) => pairs,
        _ => Map::new(),
    };
    for Change { key, value } in changes {
        let Some(value) = value else {
            pairs.remove(key);
            continue;
        };
        let is = pairs.get(key).and_then(Value::as_str);
        if let Some(is) = is
            && is != value
            && !overwrite
        {
            bail!("{one} {key} is \"{is}\" already, not \"{value}\": --overwrite changes it");
        }
        pairs.insert(key.clone(), value.clone().into());
    }
    match (object["metadata"].as_object_mut(), pairs.is_empty()) {
        (Some(metadata), true) => {
            metadata.remove(field);
        }
        (Some(metadata), false) => {
            metadata.insert(field.to_owned(), Value::Object(pairs));
        }
        (None, _) => bail!("the object has no metadata"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    fn done(object: &Value, text: &str, overwrite: bool) -> Result<Value> {
        let words = words(text);
        let (_, changes) = split(&words)?;
        let mut object = object.clone();
        set(&mut object, ("labels", "label"), &changes, overwrite)?;
        Ok(object["metadata"]["labels"].take())
    }

    #[test]
    fn words_are_objects_and_then_changes() {
        let all = words("deploy web app=web=1 tier-");
        let (what, changes) = split(&all).unwrap();
        assert_eq!(what, ["deploy", "web"]);
        assert_eq!(changes[0].value.as_deref(), Some("web=1"));
        assert_eq!(
            (changes[1].key.as_str(), &changes[1].value),
            ("tier", &None)
        );
        for (text, part) in [
            ("deploy web", "say what to set"),
            ("deploy web a=1 b", "\"b\" should be"),
            ("deploy web =1", "\"=1\" should be"),
            ("deploy web a=1 a-", "twice"),
        ] {
            let error = split(&words(text)).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn another_value_needs_overwrite() {
        let object = json!({"metadata": {"labels": {"app": "web"}}});
        let error = done(&object, "d w app=api", false).unwrap_err().to_string();
        assert!(
            error.contains("app is \"web\" already, not \"api\": --overwrite"),
            "{error}"
        );
        assert_eq!(
            done(&object, "d w app=api", true).unwrap(),
            json!({"app": "api"})
        );
        assert_eq!(
            done(&object, "d w app=web b=1", false).unwrap(),
            json!({"app": "web", "b": "1"})
        );
        assert_eq!(done(&object, "d w app- none-", false).unwrap(), Value::Null);
        let bare = json!({"metadata": {"name": "a"}});
        assert_eq!(done(&bare, "d w a=1", false).unwrap(), json!({"a": "1"}));
    }
}
