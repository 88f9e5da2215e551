//! `barge auth can-i|whoami`

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Result, bail};
use barge_client::v1::{AccessReviewRequest, PolicyRule};
use barge_proto::kinds;
use clap::{Args, Subcommand};

use crate::{args::Namespaces, context::Connection, output::Table};

/// The API group of the cluster itself.
const BARGE: &str = "barge.dev";
/// What has a group and is no kind.
const OTHERS: &[(&str, &str)] = &[
    ("cluster", BARGE),
    ("credentials", BARGE),
    ("managers", BARGE),
    ("tokenreviews", BARGE),
    ("tokens", BARGE),
    ("groups", ""),
    ("users", ""),
];

#[derive(Debug, Subcommand)]
pub enum Auth {
    /// Ask whether you may do something; prints yes or no, and exits with 0 or 1
    CanI(CanI),
    /// Show who the managers take you for
    Whoami,
}

#[derive(Debug, Args)]
pub struct CanI {
    /// What you want to do (get, list, watch, create, patch, delete, …; '*' for everything)
    #[arg(value_name = "VERB", required_unless_present = "list")]
    verb: Option<String>,
    /// With what, and with which (pods, deployments/web, tokens.barge.dev; '*' for everything)
    #[arg(value_name = "RESOURCE[/NAME]", required_unless_present = "list")]
    resource: Option<String>,
    /// A part of it, such as log of pods or scale of deployments
    #[arg(long, default_value = "", value_name = "PART")]
    subresource: String,
    /// Show all that you may
    #[arg(long, conflicts_with_all = ["verb", "resource", "subresource"])]
    list: bool,
    #[command(flatten)]
    namespaces: Namespaces,
}

pub async fn run(to: &Connection, auth: Auth) -> Result<ExitCode> {
    let client = to.client()?;
    match auth {
        Auth::Whoami => {
            let who = client.who_am_i().await?;
            let mut out = io::stdout();
            writeln!(out, "User:        {}", who.user)?;
            writeln!(out, "Groups:      {}", who.groups.join(", "))?;
            writeln!(out, "Credential:  {} ({})", who.credential, who.uid)?;
            Ok(ExitCode::SUCCESS)
        }
        Auth::CanI(CanI {
            list: true,
            namespaces,
            ..
        }) => {
            show(&client.rules(&namespaces.of(to)?).await?)?;
            Ok(ExitCode::SUCCESS)
        }
        Auth::CanI(can) => {
            let asked = asked(&can, &can.namespaces.of(to)?)?;
            let answer = client.may(&asked).await?;
            writeln!(
                io::stdout(),
                "{}",
                if answer.allowed { "yes" } else { "no" }
            )?;
            Ok(match answer.allowed {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            })
        }
    }
}

fn asked(can: &CanI, namespace: &str) -> Result<AccessReviewRequest> {
    let (Some(verb), Some(what)) = (&can.verb, &can.resource) else {
        bail!("say what: VERB RESOURCE[/NAME], or --list");
    };
    let (resource, name) = what.split_once('/').unwrap_or((what, ""));
    let (group, resource, in_namespace) = resolved(resource)?;
    let namespace = match (in_namespace, resource.as_str()) {
        (true, _) => namespace,
        // As the managers see it, a namespace is in itself.
        (false, "namespaces") => name,
        (false, _) => "",
    };
    Ok(AccessReviewRequest {
        verb: verb.clone(),
        group,
        resource,
        subresource: can.subresource.clone(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

/// Group and plural of a resource, and whether it is in namespaces.
fn resolved(typed: &str) -> Result<(String, String, bool)> {
    let owned =
        |group: &str, resource: &str, inside| Ok((group.to_owned(), resource.to_owned(), inside));
    if typed == "*" {
        return owned("*", "*", true);
    }
    if let Ok(info) = kinds::by_name(typed) {
        return owned(info.group(), &info.plural, info.namespaced);
    }
    let known = OTHERS.iter().find(|(resource, group)| {
        typed == *resource || typed.strip_prefix(resource) == Some(format!(".{group}").as_str())
    });
    match known {
        Some((resource, group)) => owned(group, resource, false),
        None => {
            let others: Vec<_> = OTHERS.iter().map(|(resource, _)| *resource).collect();
            let kinds: Vec<_> = kinds::KINDS.iter().map(|info| &*info.plural).collect();
            bail!(
                "unknown resource \"{typed}\"; there are {}, {}",
                kinds.join(", "),
                others.join(", ")
            )
        }
    }
}

fn show(rules: &[PolicyRule]) -> Result<()> {
    let mut table = Table::new(vec!["RESOURCES", "NAMES", "VERBS"]);
    let mut rows: Vec<_> = rules.iter().flat_map(rows).collect();
    rows.sort();
    rows.dedup();
    for row in rows {
        table.push(row.to_vec());
    }
    Ok(table.show()?)
}

/// One line for each resource, with its group.
fn rows(rule: &PolicyRule) -> impl Iterator<Item = [String; 3]> + '_ {
    rule.api_groups.iter().flat_map(move |group| {
        rule.resources.iter().map(move |resource| {
            let named = match group.as_str() {
                "" => resource.clone(),
                group => format!("{resource}.{group}"),
            };
            [named, rule.resource_names.join(","), rule.verbs.join(",")]
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_found_by_what_people_type() {
        for (typed, group, resource, inside) in [
            ("deploy", "apps", "deployments", true),
            ("deployments.apps", "apps", "deployments", true),
            ("sa", "", "serviceaccounts", true),
            ("nodes", "", "nodes", false),
            ("tokens", BARGE, "tokens", false),
            ("tokens.barge.dev", BARGE, "tokens", false),
            ("users", "", "users", false),
            ("*", "*", "*", true),
        ] {
            let expected = (group.to_owned(), resource.to_owned(), inside);
            assert_eq!(resolved(typed).unwrap(), expected, "{typed}");
        }
        assert!(resolved("widgets").is_err());
    }
}
