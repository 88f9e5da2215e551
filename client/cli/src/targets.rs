//! The objects that a command is about: named, selected, all of a kind, or those of manifests.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Result, bail};
use barge_client::{
    Client, Selection,
    v1::{Kind, Object},
};
use barge_proto::kinds::KindInfo;
use clap::Args;

use crate::{
    args::{Namespace, Namespaces, selecting},
    context::Connection,
    names::{self, Named},
    sources,
};

/// Which objects.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// KIND NAME…, KIND/NAME…, or KIND[,KIND] with --selector or --all
    #[arg(
        required_unless_present = "files",
        conflicts_with = "files",
        value_name = "KIND NAME"
    )]
    pub what: Vec<String>,
    /// The objects of a manifest, a folder of manifests, or - for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    pub files: Vec<PathBuf>,
    /// The objects with these labels ("app=web,tier!=db")
    #[arg(short = 'l', long, value_name = "SELECTOR", value_parser = selecting, conflicts_with_all = ["files", "all"])]
    pub selector: Option<String>,
    /// All objects of the kinds, in the namespace
    #[arg(long, conflicts_with = "files")]
    pub all: bool,
    #[command(flatten)]
    pub namespaces: Namespaces,
}

/// Which objects, for commands whose words say also what to do with them.
#[derive(Debug, Clone, Args)]
pub struct Whose {
    /// The objects of a manifest, a folder of manifests, or - for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    /// The objects with these labels ("app=web,tier!=db")
    #[arg(short = 'l', long, value_name = "SELECTOR", value_parser = selecting, conflicts_with_all = ["files", "all"])]
    selector: Option<String>,
    /// All objects of the kinds, in the namespace
    #[arg(long, conflicts_with = "files")]
    all: bool,
    #[command(flatten)]
    namespaces: Namespaces,
}

impl Whose {
    /// With the words that name them, or their kinds.
    pub fn which(&self, what: Vec<String>) -> Result<Which> {
        match (self.files.is_empty(), what.is_empty()) {
            (true, true) => bail!("say which: KIND NAME, KIND/NAME, or -f FILE"),
            (false, false) => bail!(
                "\"{}\" goes not with -f: the file says which",
                what.join(" ")
            ),
            _ => Ok(Which {
                what,
                files: self.files.clone(),
                selector: self.selector.clone(),
                all: self.all,
                namespaces: self.namespaces.clone(),
            }),
        }
    }
}

/// An object that a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub kind: &'static KindInfo,
    /// Empty for kinds without.
    pub namespace: String,
    pub name: String,
    /// Of one that was found, its own: another one of the same name is not meant. Empty for one that was named.
    pub uid: String,
    /// Whether it was found rather than named: then nobody misses it when it is gone.
    pub found: bool,
    /// The uid and name of the Deployment whose revision it is, for a ReplicaSet that was found: only the Deployment changes it.
    pub keeper: Option<(String, String)>,
}

impl Target {
    pub fn named(&self) -> Named<'_> {
        Named {
            kind: self.kind,
            name: &self.name,
        }
    }

    fn of(object: &Object, found: bool) -> Option<Self> {
        Some(Self {
            kind: object.kind().info()?,
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            uid: match found {
                true => object.uid().to_owned(),
                false => String::new(),
            },
            found,
            keeper: keeper(object).filter(|_| found),
        })
    }
}

/// The Deployment that a ReplicaSet is a revision of: its uid and name.
fn keeper(object: &Object) -> Option<(String, String)> {
    if object.kind() != Kind::ReplicaSet {
        return None;
    }
    let mut owners = object.metadata().owner_references.iter();
    let keeper = owners.find(|it| it.controller == Some(true) && it.kind == "Deployment")?;
    Some((keeper.uid.clone(), keeper.name.clone()))
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.kind.qualified(), self.name)
    }
}

impl Which {
    /// Whether the objects are looked up by selector or kind.
    fn selects(&self) -> bool {
        self.all || self.selector.is_some()
    }

    /// The objects that are to be changed. Of those that are found, the revisions of Deployments are left out: a line tells so, unless their
    /// Deployment is to be changed, too.
    pub async fn changeable(&self, to: &Connection) -> Result<Vec<Target>> {
        let targets = self.targets(to).await?;
        let (targets, left) = without_kept(targets);
        for line in left {
            eprintln!("{line}");
        }
        Ok(targets)
    }

    /// The objects. Those of a selector or of `--all` are listed first.
    pub async fn targets(&self, to: &Connection) -> Result<Vec<Target>> {
        if !self.files.is_empty() {
            return self.of_files(to);
        }
        if self.selects() {
            return self.selected(to).await;
        }
        if self.namespaces.all_namespaces {
            bail!("--all-namespaces goes with --selector or --all, not with names");
        }
        let named = names::several(&self.what)?;
        if named.is_empty() {
            bail!(
                "say which {}: names, -l SELECTOR, or --all",
                self.what.join(" ")
            );
        }
        let namespace = self.namespaces.one.of(to)?;
        let target = |one: &Named<'_>| Target {
            kind: one.kind,
            namespace: names::namespace_of(one.kind, &namespace).to_owned(),
            name: one.name.to_owned(),
            uid: String::new(),
            found: false,
            keeper: None,
        };
        Ok(named.iter().map(target).collect())
    }

    fn of_files(&self, to: &Connection) -> Result<Vec<Target>> {
        let located = sources::read_in(&self.files, &self.namespaces.one, to)?;
        let objects = located.iter().map(|one| &one.object);
        Ok(objects
            .filter_map(|object| Target::of(object, false))
            .collect())
    }

    async fn selected(&self, to: &Connection) -> Result<Vec<Target>> {
        let [kinds] = &self.what[..] else {
            bail!(
                "\"{}\": names go neither with --selector nor with --all",
                self.what[1..].join(" ")
            );
        };
        if kinds.contains('/') {
            bail!("\"{kinds}\" is one object: it goes neither with --selector nor with --all");
        }
        let kinds = names::kinds_of(kinds)?;
        let namespace = self.namespaces.of(to)?;
        let client = to.client()?;
        let labels = self.selector.clone().unwrap_or_default();
        let mut targets = Vec::new();
        for kind in kinds {
            let objects = listed(&client, kind, &namespace, &labels).await?;
            targets.extend(objects.iter().filter_map(|it| Target::of(it, true)));
        }
        Ok(targets)
    }
}

/// The targets that are not a Deployment's to change, and what is to be told about the others.
fn without_kept(targets: Vec<Target>) -> (Vec<Target>, Vec<String>) {
    let uids: BTreeSet<_> = targets.iter().map(|target| target.uid.clone()).collect();
    let (mut others, mut left) = (Vec::new(), Vec::new());
    for target in targets {
        match &target.keeper {
            None => others.push(target),
            Some((uid, _)) if uids.contains(uid) => {}
            Some((_, name)) => left.push(format!(
                "{target} left alone: it is a revision of deployment/{name}, which keeps it"
            )),
        }
    }
    (others, left)
}

async fn listed(
    client: &Client,
    kind: &KindInfo,
    namespace: &str,
    labels: &str,
) -> Result<Vec<Object>> {
    let selection = Selection {
        labels: labels.to_owned(),
        ..Selection::of(kind.kind, names::namespace_of(kind, namespace))
    };
    Ok(client.list(&selection).await?.objects)
}

/// The namespace that objects of manifests are in which name none; those that name another than `-n` are refused.
pub fn place(object: &mut Object, namespace: &str, asked: &Namespace) -> Result<(), String> {
    if !object.kind().info().is_some_and(|kind| kind.namespaced) {
        return Ok(());
    }
    let own = object.namespace().to_owned();
    if own.is_empty() {
        if let Some(metadata) = object.metadata_mut() {
            namespace.clone_into(&mut metadata.namespace);
        }
        return Ok(());
    }
    match &asked.namespace {
        Some(asked) if *asked != own => Err(format!(
            "{object} is of namespace \"{own}\", and -n says \"{asked}\": leave out one of them"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use barge_client::v1::{
        ConfigMap, Deployment, Namespace as NamespaceObject, ObjectMeta, OwnerReference, ReplicaSet,
    };

    fn config_map(namespace: &str) -> Object {
        ConfigMap {
            metadata: Some(ObjectMeta {
                name: "a".into(),
                namespace: namespace.into(),
                ..ObjectMeta::default()
            }),
            ..ConfigMap::default()
        }
        .into()
    }

    fn asked(namespace: Option<&str>) -> Namespace {
        Namespace {
            namespace: namespace.map(str::to_owned),
        }
    }

    #[test]
    fn what_is_found_is_meant_itself_and_what_is_named_by_its_name() {
        let mut object = config_map("shop");
        object.metadata_mut().unwrap().uid = "u1".into();
        assert_eq!(Target::of(&object, true).unwrap().uid, "u1");
        assert_eq!(Target::of(&object, false).unwrap().uid, "");
    }

    #[test]
    fn the_revisions_of_deployments_are_left_to_them() {
        let set = |name: &str, deployment: &str| {
            let owner = OwnerReference {
                kind: "Deployment".into(),
                name: deployment.into(),
                uid: format!("uid-of-{deployment}"),
                controller: Some(true),
                ..OwnerReference::default()
            };
            let metadata = ObjectMeta {
                name: name.into(),
                uid: format!("uid-of-{name}"),
                owner_references: match deployment {
                    "" => Vec::new(),
                    _ => vec![owner],
                },
                ..ObjectMeta::default()
            };
            Object::from(ReplicaSet {
                metadata: Some(metadata),
                ..ReplicaSet::default()
            })
        };
        let deployment = Object::from(Deployment {
            metadata: Some(ObjectMeta {
                name: "web".into(),
                uid: "uid-of-web".into(),
                ..ObjectMeta::default()
            }),
            ..Deployment::default()
        });
        let objects = [
            deployment,
            set("web-x", "web"),
            set("api-y", "api"),
            set("own", ""),
        ];
        let found = objects.iter().filter_map(|it| Target::of(it, true));
        let (targets, left) = without_kept(found.collect());
        let names: Vec<_> = targets.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["web", "own"]);
        let [line] = &left[..] else {
            panic!("{left:?}");
        };
        assert!(
            line.contains("replicaset.apps/api-y") && line.contains("deployment/api"),
            "{line}"
        );
        // One that is named is the server's to refuse.
        let named = Target::of(&objects[2], false).unwrap();
        assert_eq!(without_kept(vec![named]).0.len(), 1);
    }

    #[test]
    fn a_namespace_is_filled_in_and_another_one_refused() {
        let mut none = config_map("");
        place(&mut none, "shop", &asked(None)).unwrap();
        assert_eq!(none.namespace(), "shop");
        let mut same = config_map("shop");
        place(&mut same, "shop", &asked(Some("shop"))).unwrap();
        // Of the context: a manifest may name another.
        let mut other = config_map("other");
        place(&mut other, "shop", &asked(None)).unwrap();
        assert_eq!(other.namespace(), "other");
        let error = place(&mut other, "shop", &asked(Some("shop"))).unwrap_err();
        assert!(
            error.contains("\"other\"") && error.contains("-n says \"shop\""),
            "{error}"
        );
        let mut whole = Object::from(NamespaceObject::default());
        place(&mut whole, "shop", &asked(Some("shop"))).unwrap();
        assert_eq!(whole.namespace(), "");
    }
}
