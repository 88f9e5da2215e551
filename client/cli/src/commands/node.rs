//! `barge node lost NAME --confirm`

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Result, bail};
use barge_client::{
    ApplyOptions, Selection,
    v1::{Kind, Node, NodeSpec, ObjectMeta, Taint, object},
};
use barge_proto::kinds;
use clap::{Args, Subcommand};

use crate::{
    context::Connection,
    names::{self, Named},
    output,
};

/// In whose name the taint is set: the manifests of others do not take it away.
const MANAGER: &str = "barge-node-lost";
/// The taint that says that a machine is off; the leader removes it when the node is back.
const OUT_OF_SERVICE: &str = "node.barge.dev/out-of-service";
/// What happened to nothing yet: a person has to agree first.
const NOT_CONFIRMED: u8 = 2;

#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Say that the machine of a silent node is off, so that its pods are replaced whatever holds that up
    Lost(Lost),
}

#[derive(Debug, Args)]
pub struct Lost {
    /// The node
    name: String,
    /// Without it nothing is changed: what would happen is shown, and the exit code is 2
    #[arg(long)]
    confirm: bool,
}

pub async fn run(to: &Connection, command: NodeCommand) -> Result<ExitCode> {
    let NodeCommand::Lost(lost) = command;
    let client = to.client()?;
    let name = &lost.name;
    let Some(found) = client.find(Kind::Node, "", name).await? else {
        let kind = kinds::by_name("node")?;
        return Err(names::not_found(&client, Named { kind, name }, "").await);
    };
    if let Some(object::Kind::Node(node)) = &found.kind
        && output::is_ready(node)
    {
        bail!(
            "node {name} is heard: it is not lost; only the machine of a silent node can be given up"
        );
    }
    let on_node = Selection {
        fields: format!("spec.nodeName={name}"),
        ..Selection::of(Kind::Pod, "")
    };
    let pods = client.list(&on_node).await?.objects.len();
    if !lost.confirm {
        writeln!(
            io::stdout(),
            "node {name} is silent, and {pods} pods are bound to it. If its machine is certainly off, `barge node lost {name} \
             --confirm` has them removed, and those of Deployments made anew elsewhere. If it still runs, they run twice until it \
             is heard again. Nothing was changed."
        )?;
        return Ok(ExitCode::from(NOT_CONFIRMED));
    }
    let options = ApplyOptions {
        field_manager: MANAGER.to_owned(),
        omit_objects: true,
        ..ApplyOptions::default()
    };
    client.apply(vec![off(name).into()], &options).await?;
    writeln!(
        io::stdout(),
        "node/{name} is given up: its {pods} pods are removed, and those of Deployments made anew elsewhere"
    )?;
    Ok(ExitCode::SUCCESS)
}

fn off(name: &str) -> Node {
    Node {
        metadata: Some(ObjectMeta {
            name: name.to_owned(),
            ..ObjectMeta::default()
        }),
        spec: Some(NodeSpec {
            taints: vec![Taint {
                key: OUT_OF_SERVICE.to_owned(),
                effect: "NoExecute".to_owned(),
                ..Taint::default()
            }],
            ..NodeSpec::default()
        }),
        ..Node::default()
    }
}
