//! `barge set image KIND NAME CONTAINER=IMAGE…`

use std::io::{self, Write};

use anyhow::{Result, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::{
    args::{DryRun, Manager},
    change::{self, How},
    context::Connection,
    explain,
    targets::Whose,
};

const EXAMPLES: &str = "\
Examples:
  barge set image deployment/web web=nginx:1.27
  barge set image deployments --all '*=registry.example.org/base:2'";

#[derive(Debug, Subcommand)]
pub enum Set {
    /// Set the images of containers
    Image(Image),
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Image {
    /// KIND NAME, KIND/NAME or kinds, then CONTAINER=IMAGE; the container '*' is all
    #[arg(required = true, value_name = "KIND NAME CONTAINER=IMAGE")]
    words: Vec<String>,
    #[command(flatten)]
    whose: Whose,
    #[command(flatten)]
    dry: DryRun,
    #[command(flatten)]
    manager: Manager,
}

/// Where kinds have the pods that they make, the deepest first; a pod is one itself.
const PODS: &[&str] = &[
    "/spec/jobTemplate/spec/template/spec",
    "/spec/template/spec",
    "/spec",
];

pub async fn run(to: &Connection, Set::Image(image): Set) -> Result<()> {
    let (what, images) = split(&image.words)?;
    let targets = image.whose.which(what.to_vec())?.changeable(to).await?;
    if targets.is_empty() {
        bail!("no {} found to change", what.join(" "));
    }
    let how = How {
        manager: image.manager.field_manager,
        dry: image.dry,
    };
    let client = to.client()?;
    let mut failures = Vec::new();
    for target in &targets {
        let edit = |object: &mut Value| set(object, &images);
        match change::change(&client, target, &how, edit).await {
            Ok((object, true)) => writeln!(io::stdout(), "{object} image updated{}", how.note())?,
            Ok((object, false)) => {
                writeln!(io::stdout(), "{object} image not updated: it is this one")?;
            }
            Err(error) => failures.push(error),
        }
    }
    explain::all(failures)
}

/// Names of containers with their images.
type Images<'a> = Vec<(&'a str, &'a str)>;

/// The words that say which objects, and the image of each container.
fn split(words: &[String]) -> Result<(&[String], Images<'_>)> {
    let first = words.iter().position(|word| word.contains('='));
    let (what, rest) = words.split_at(first.unwrap_or(words.len()));
    ensure!(
        !rest.is_empty(),
        "say which image: CONTAINER=IMAGE, or '*=IMAGE' for all containers"
    );
    let pair = |word: &'_ String| match word.split_once('=') {
        Some((container, image)) if !container.is_empty() && !image.is_empty() => Ok(()),
        _ => bail!("\"{word}\" should be CONTAINER=IMAGE"),
    };
    rest.iter().try_for_each(pair)?;
    let images = rest.iter().filter_map(|word| word.split_once('='));
    Ok((what, images.collect()))
}

/// Sets the images in an object's JSON.
fn set(object: &mut Value, images: &[(&str, &str)]) -> Result<()> {
    let has = |path: &&&str| {
        object
            .pointer(path)
            .is_some_and(|spec| spec["containers"].is_array())
    };
    let place = PODS.iter().find(has);
    let Some(spec) = place.and_then(|path| object.pointer_mut(path)) else {
        bail!("has no containers; pods and the kinds that make pods have");
    };
    for (container, image) in images {
        let mut names = Vec::new();
        let mut found = false;
        for list in ["initContainers", "containers"] {
            let Some(items) = spec.get_mut(list).and_then(Value::as_array_mut) else {
                continue;
            };
            for item in items {
                let name = item["name"].as_str().unwrap_or_default().to_owned();
                if *container == "*" || *container == name {
                    item["image"] = (*image).into();
                    found = true;
                }
                names.push(name);
            }
        }
        ensure!(
            found,
            "there is no container \"{container}\"; there are {}",
            names.join(", ")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn images(text: &str) -> Result<Value> {
        let words: Vec<_> = text.split(' ').map(str::to_owned).collect();
        let (_, images) = split(&words)?;
        let mut object = json!({"spec": {"template": {"spec": {
            "initContainers": [{"name": "init", "image": "i:1"}],
            "containers": [{"name": "web", "image": "w:1"}, {"name": "log", "image": "l:1"}],
        }}}});
        set(&mut object, &images)?;
        let spec = &object["spec"]["template"]["spec"];
        Ok(json!([
            spec["initContainers"][0]["image"],
            spec["containers"][0]["image"],
            spec["containers"][1]["image"],
        ]))
    }

    #[test]
    fn containers_get_their_images() {
        assert_eq!(
            images("deploy/web web=reg:5000/w:2 init=i:2").unwrap(),
            json!(["i:2", "reg:5000/w:2", "l:1"])
        );
        assert_eq!(
            images("deploy/web *=all:1").unwrap(),
            json!(["all:1", "all:1", "all:1"])
        );
    }

    #[test]
    fn what_is_not_there_is_told() {
        for (text, part) in [
            ("deploy/web", "say which image"),
            ("deploy/web web=", "\"web=\" should be CONTAINER=IMAGE"),
            (
                "deploy/web api=a:1",
                "no container \"api\"; there are init, web, log",
            ),
        ] {
            let error = images(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let error = set(&mut json!({"spec": {"ports": []}}), &[("a", "b")]).unwrap_err();
        assert!(error.to_string().contains("has no containers"), "{error}");
    }
}
