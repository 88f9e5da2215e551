//! `barge config get-contexts|current-context|use-context|set-context|rename-context|delete-context|import`

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use barge_client::{config, files};
use clap::Subcommand;

use crate::{context::Connection, output::Table};

#[derive(Debug, Subcommand)]
pub enum Config {
    /// Show the contexts of the configuration; the current one is marked
    GetContexts,
    /// Show the name of the current context
    CurrentContext,
    /// Use another context from now on
    UseContext {
        /// Its name
        name: String,
    },
    /// Set what commands go by that do not say it themselves
    #[command(after_help = "Example: barge config set-context --current --namespace shop")]
    SetContext {
        /// Its name
        #[arg(required_unless_present = "current", conflicts_with = "current")]
        name: Option<String>,
        /// The context that is in use
        #[arg(long)]
        current: bool,
        /// The namespace of commands without -n; "" goes back to "default"
        #[arg(short, long, value_name = "NS")]
        namespace: String,
    },
    /// Give a context another name
    RenameContext {
        /// The name it has
        old: String,
        /// The name it gets
        new: String,
    },
    /// Forget a context; the credential itself stays valid until it is revoked
    DeleteContext {
        /// Its name
        name: String,
    },
    /// Add the current context of another file, such as a manager's admin.toml, and use it
    Import {
        /// The file
        file: PathBuf,
        /// The name it gets; by default the one it has
        #[arg(long)]
        name: Option<String>,
    },
}

pub fn run(to: &Connection, command: Config) -> Result<()> {
    let path = to.path()?;
    let load = || config::Config::load(&path);
    let done = match command {
        Config::GetContexts => return show(&load()?),
        Config::CurrentContext => load()?.current,
        Config::UseContext { name } => {
            update(&path, |config| {
                config.context(Some(&name))?;
                config.current.clone_from(&name);
                Ok(())
            })?;
            format!("context {name} is in use")
        }
        Config::SetContext {
            name, namespace, ..
        } => {
            let mut named = String::new();
            update(&path, |config| {
                named = config.context(name.as_deref())?.name.clone();
                Ok(config.set_namespace(&named, &namespace)?)
            })?;
            let shown = match namespace.as_str() {
                "" => "default",
                other => other,
            };
            format!("commands in context {named} are about namespace {shown}")
        }
        Config::RenameContext { old, new } => {
            update(&path, |config| Ok(config.rename(&old, &new)?))?;
            format!("context {old} is {new} now")
        }
        Config::DeleteContext { name } => {
            update(&path, |config| {
                config.context(Some(&name))?;
                if config.current == name {
                    bail!(
                        "context {name} is in use: use another one first (barge config use-context)"
                    );
                }
                config.contexts.retain(|context| context.name != name);
                Ok(())
            })?;
            format!("context {name} deleted")
        }
        Config::Import { file, name } => import(&path, &file, name)?,
    };
    writeln!(io::stdout(), "{done}")?;
    Ok(())
}

fn update(path: &Path, change: impl FnOnce(&mut config::Config) -> Result<()>) -> Result<()> {
    config::Config::update(path, |config| change(config).map(|()| true))
}

fn import(path: &Path, file: &Path, name: Option<String>) -> Result<String> {
    let mut added = config::Config::load(file)?.context(None)?.clone();
    if let Some(name) = name {
        added.name = name;
    }
    let name = added.name.clone();
    if path.exists() {
        update(path, |config| Ok(config.add(added)?))?;
    } else {
        let folder = path.parent().context("the configuration has no folder")?;
        files::create_private_dir(folder).with_context(|| format!("make {}", folder.display()))?;
        config::Config::of(added).save(path)?;
    }
    Ok(format!(
        "context {name} added to {} and in use",
        path.display()
    ))
}

fn show(config: &config::Config) -> Result<()> {
    let mut table = Table::new(vec![
        "CURRENT",
        "NAME",
        "CLUSTER",
        "CREDENTIAL",
        "NAMESPACE",
        "MANAGERS",
    ]);
    for context in &config.contexts {
        let current = if context.name == config.current {
            "*"
        } else {
            ""
        };
        table.push(vec![
            current.to_owned(),
            context.name.clone(),
            context.cluster_id.clone(),
            context.describe().to_owned(),
            context.namespace.clone(),
            context.managers.join(","),
        ]);
    }
    Ok(table.show()?)
}
