//! Arguments that several commands share.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::{context::Connection, duration::Span};

/// The namespace of a command on one namespace.
#[derive(Debug, Clone, Args)]
pub struct Namespace {
    /// The namespace; by default the context's (barge config set-context), then "default"
    #[arg(short, long, value_name = "NS", value_parser = named)]
    pub namespace: Option<String>,
}

/// A namespace as `-n` names it. Of a shell variable that is not set it would be empty, which the API takes for all namespaces.
fn named(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("no namespace is named: leave -n out for the context's".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

/// A selector as `-l` states it. A blank one, as of a shell variable that is not set, would select everything.
pub fn selecting(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("selects nothing in particular: say labels, such as app=web".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

impl Namespace {
    /// The one that was asked for, else the context's, else "default".
    pub fn of(&self, to: &Connection) -> Result<String> {
        match &self.namespace {
            Some(asked) => Ok(asked.clone()),
            None => to.namespace(),
        }
    }
}

/// The namespace of a command that can look at all.
#[derive(Debug, Clone, Args)]
pub struct Namespaces {
    #[command(flatten)]
    pub one: Namespace,
    /// All namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

impl Namespaces {
    /// As the API takes it: empty means all.
    pub fn of(&self, to: &Connection) -> Result<String> {
        match self.all_namespaces {
            true => Ok(String::new()),
            false => self.one.of(to),
        }
    }
}

/// How long to wait.
#[derive(Debug, Clone, Args)]
pub struct Patience {
    /// How long to wait ("90s", "2m", "1h")
    #[arg(long, default_value = "2m", value_name = "DURATION")]
    pub timeout: Span,
}

/// Where objects are written.
#[derive(Debug, Clone, Args)]
pub struct Manifests {
    /// A manifest, a folder of manifests, or - for standard input
    #[arg(
        short = 'f',
        long = "filename",
        required = true,
        value_name = "FILE|DIR|-"
    )]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub namespace: Namespace,
}

/// Changing nothing.
#[derive(Debug, Clone, Copy, Args)]
pub struct DryRun {
    /// Change nothing: only read and validate here, or have the cluster answer as if
    #[arg(long, value_enum, value_name = "WHERE")]
    pub dry_run: Option<Where>,
}

/// Where a dry run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Where {
    Client,
    Server,
}

/// In whose name fields are set.
#[derive(Debug, Clone, Args)]
pub struct Manager {
    /// In whose name fields are set; what this name applied before and leaves out now goes, what others set stays
    #[arg(long, default_value = "barge", value_name = "NAME")]
    pub field_manager: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::Cli;
    use clap::Parser as _;

    /// What is said of a command line that is refused before anything is asked of a cluster.
    fn refused(line: &[&str]) -> String {
        let words = ["barge"].iter().chain(line);
        match Cli::try_parse_from(words) {
            Ok(_) => panic!("{line:?} is taken"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_a_variable_that_is_not_set_leaves_does_not_mean_everything() {
        let commands: &[&[&str]] = &[
            &["delete", "pods"],
            &["label", "deployments", "a=b"],
            &["annotate", "deployments", "a=b"],
            &["set", "image", "deployments", "*=nginx:2"],
            &["wait", "pods", "--for=delete"],
            &["get", "pods"],
            &["logs", "web"],
        ];
        for command in commands {
            for nothing in ["", " "] {
                let error = refused(&[command, &["-n", nothing][..]].concat());
                assert!(error.contains("no namespace is named"), "{error}");
                if !["get", "logs"].contains(&command[0]) {
                    let error = refused(&[command, &["-l", nothing][..]].concat());
                    assert!(error.contains("such as app=web"), "{error}");
                }
            }
        }
        let taken = ["barge", "delete", "pods", "--all", "-n", "shop"];
        assert!(Cli::try_parse_from(taken).is_ok());
    }

    #[test]
    fn only_all_namespaces_means_all() {
        let to = Cli::try_parse_from(["barge", "--config", "/nonexistent/config", "version"]);
        let to = to.unwrap().connection;
        let of = |namespace: Option<&str>, all_namespaces| Namespaces {
            one: Namespace {
                namespace: namespace.map(str::to_owned),
            },
            all_namespaces,
        };
        assert_eq!(of(Some("shop"), false).of(&to).unwrap(), "shop");
        assert_eq!(of(None, false).of(&to).unwrap(), "default");
        assert_eq!(of(Some("shop"), true).of(&to).unwrap(), "");
    }
}
