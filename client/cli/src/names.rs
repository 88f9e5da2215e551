//! Objects as people name them (`deployment/web`), and names close to one that does not exist.

use anyhow::{Result, bail};
use barge_client::{
    Client,
    v1::{Kind, ListRequest, Object},
};
use barge_proto::kinds::{self, KindInfo};

/// A kind and a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named<'a> {
    pub kind: &'static KindInfo,
    pub name: &'a str,
}

/// What stands for the kinds that run things, and for Services.
const ALL: &str = "all";
/// The groups whose namespaced kinds make pods.
const WORKLOADS: &[&str] = &["apps", "batch"];

/// Reads `KIND/NAME`.
fn slashed(text: &str) -> Result<Named<'_>> {
    match text.split_once('/') {
        Some((kind, name)) if !name.is_empty() && !name.contains('/') => Ok(Named {
            kind: kinds::by_name(kind)?,
            name,
        }),
        _ => bail!("\"{text}\" should be KIND/NAME, such as deployment/web"),
    }
}

/// Reads `KIND[,KIND] NAME…` or `KIND/NAME…`: all of the kinds that stand first, or each with its own. Kinds alone name nothing.
pub fn several(words: &[String]) -> Result<Vec<Named<'_>>> {
    let Some(first) = words.first() else {
        bail!("say what: KIND NAME, or KIND/NAME");
    };
    if first.contains('/') {
        return words.iter().map(|word| slashed(word)).collect();
    }
    let kinds = kinds_of(first)?;
    let names = &words[1..];
    if let Some(slashed) = names.iter().find(|name| name.contains('/')) {
        bail!("\"{slashed}\" has a kind of its own: write KIND/NAME for every object");
    }
    let named = |kind| names.iter().map(move |name| Named { kind, name });
    Ok(kinds.into_iter().flat_map(named).collect())
}

/// Reads `KIND NAME` or `KIND/NAME`: exactly one object.
pub fn one(words: &[String]) -> Result<Named<'_>> {
    match several(words)?[..] {
        [one] => Ok(one),
        _ => bail!(
            "\"{}\" should be one object: KIND NAME, or KIND/NAME",
            words.join(" ")
        ),
    }
}

/// Reads `KIND[,KIND]`, each once; `all` is pods, services and the kinds that make pods.
pub fn kinds_of(text: &str) -> Result<Vec<&'static KindInfo>> {
    let mut found: Vec<&KindInfo> = Vec::new();
    for word in text.split(',') {
        let more = match word {
            ALL => all_kinds(),
            word => vec![kinds::by_name(word)?],
        };
        for kind in more {
            if !found.contains(&kind) {
                found.push(kind);
            }
        }
    }
    Ok(found)
}

fn all_kinds() -> Vec<&'static KindInfo> {
    let first = [Kind::Pod, Kind::Service];
    let workloads = kinds::KINDS
        .iter()
        .filter(|kind| kind.namespaced && WORKLOADS.contains(&kind.group()));
    let first = first.into_iter().filter_map(Kind::info);
    first.chain(workloads).collect()
}

/// The namespace as the API takes it for a kind.
pub fn namespace_of<'a>(kind: &KindInfo, namespace: &'a str) -> &'a str {
    if kind.namespaced { namespace } else { "" }
}

/// The error for an object that does not exist: with names like it, or the namespaces that have one.
pub async fn not_found(client: &Client, named: Named<'_>, namespace: &str) -> anyhow::Error {
    let Named { kind, name } = named;
    let place = match kind.namespaced {
        true => format!(" in namespace \"{namespace}\""),
        false => String::new(),
    };
    let mut text = format!("{} \"{name}\" not found{place}", kind.plural);
    // The error stands without the help.
    let same = page(client, kind, "", &format!("metadata.name={name}")).await;
    if let Some(other) = same.first() {
        let elsewhere = other.namespace();
        text.push_str(&format!(
            "; there is one in namespace \"{elsewhere}\" (-n {elsewhere})"
        ));
        return anyhow::Error::msg(text);
    }
    let here = page(client, kind, namespace_of(kind, namespace), "").await;
    let near = similar(name, here.iter().map(Object::name));
    if !near.is_empty() {
        text.push_str(&format!("; similar: {}", near.join(", ")));
    }
    anyhow::Error::msg(text)
}

/// The first page of a list: help with a wrong name is not worth all objects of a cluster. Nothing when there is none to be had.
async fn page(client: &Client, kind: &KindInfo, namespace: &str, fields: &str) -> Vec<Object> {
    let request = ListRequest {
        kind: kind.kind.into(),
        namespace: namespace.to_owned(),
        field_selector: fields.to_owned(),
        ..ListRequest::default()
    };
    let page = client.list_page(request).await;
    page.map(|page| page.objects).unwrap_or_default()
}

/// At most three names like `wanted`, the nearest first.
fn similar<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let allowed = 1 + wanted.chars().count() / 4;
    let mut near: Vec<_> = names
        .filter_map(|name| {
            let distance = distance(wanted, name);
            let begins = wanted.len() >= 2 && name.starts_with(wanted);
            (distance <= allowed || begins).then_some((distance, name))
        })
        .collect();
    near.sort_unstable();
    near.truncate(3);
    near.into_iter().map(|(_, name)| name).collect()
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The kinds that have replicas.
pub fn scalable(kind: &KindInfo) -> Result<()> {
    match kind.parts.contains(&"scale") {
        true => Ok(()),
        false => bail!("a {} has no replicas; a deployment has", kind.singular),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_near_names() {
        let names = ["nginx-deployment", "my-app", "redis"];
        let near = |wanted| similar(wanted, names.into_iter());
        assert_eq!(near("nginx-deploymnet"), ["nginx-deployment"]);
        assert_eq!(near("my-ap"), ["my-app"]);
        assert_eq!(near("nginx"), ["nginx-deployment"]);
        assert!(near("postgres").is_empty());
    }

    #[test]
    fn reads_kinds_and_names() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let read = |text: &str| {
            several(&words(text)).map(|all| {
                all.iter()
                    .map(|one| format!("{}:{}", one.kind.plural, one.name))
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(
            read("deploy a b").unwrap(),
            ["deployments:a", "deployments:b"]
        );
        assert_eq!(read("pod/a svc/b").unwrap(), ["pods:a", "services:b"]);
        assert_eq!(read("pod,svc a").unwrap(), ["pods:a", "services:a"]);
        assert!(read("pods").unwrap().is_empty());
        assert!(read("pod a/b").is_err());
        assert!(read("pod/a/b").is_err());
        assert!(read("deploy/ a").is_err());
        assert!(read("gizmo a").is_err());
    }
    #[test]
    fn one_object_is_named_either_way() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for text in ["deploy web", "deployment/web"] {
            let words = words(text);
            let named = one(&words).unwrap();
            assert_eq!((&*named.kind.plural, named.name), ("deployments", "web"));
        }
        for text in ["deploy", "deploy a b", "deploy/a deploy/b"] {
            let error = one(&words(text)).unwrap_err().to_string();
            assert!(error.contains("one object"), "{error}");
        }
    }

    #[test]
    fn all_is_what_runs_and_what_leads_there() {
        let plurals = |text| {
            let kinds = kinds_of(text).unwrap().into_iter();
            kinds
                .map(|kind| kind.plural.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(plurals("all")[..3], ["pods", "services", "deployments"]);
        assert_eq!(plurals("po,svc,pods"), ["pods", "services"]);
        assert!(plurals("all,cm").contains(&"configmaps".to_owned()));
        assert!(!plurals("all").contains(&"secrets".to_owned()));
    }
}
