//! `barge logs POD|deployment/NAME`

use std::io::{self, Write};

use anyhow::{Context, Result, bail};
use barge_client::{
    Client,
    v1::{Deployment, Kind, LogsRequest, Pod, Time},
};
use clap::Args;

use crate::{
    args::Namespace,
    context::Connection,
    duration::Span,
    names::{self, Named},
    output::{self, pod_status},
};

#[derive(Debug, Args)]
pub struct Logs {
    /// POD, pod/NAME or deployment/NAME
    what: String,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Only lines not older than this ("5m")
    #[arg(long, value_name = "DURATION")]
    since: Option<Span>,
    /// Only so many lines from the end
    #[arg(long, value_name = "N")]
    tail: Option<u64>,
    /// The container, in a pod that has several
    #[arg(short, long, default_value = "", hide_default_value = true)]
    container: String,
    /// Begin every line with its time
    #[arg(long)]
    timestamps: bool,
    #[command(flatten)]
    namespace: Namespace,
}

pub async fn run(to: &Connection, logs: Logs) -> Result<()> {
    let client = to.client()?;
    let namespace = &logs.namespace.namespace;
    let pod = pod_name(&client, &logs.what, namespace).await?;
    let since = logs.since.map(|span| Time {
        seconds: output::now() - i64::try_from(span.0.as_secs()).unwrap_or(i64::MAX),
        nanos: 0,
    });
    let request = LogsRequest {
        namespace: namespace.clone(),
        pod: pod.clone(),
        container: logs.container,
        follow: logs.follow,
        tail: logs.tail,
        since,
        timestamps: logs.timestamps,
        after: Vec::new(),
    };
    let mut stream = match client.logs(request).await {
        Ok(stream) => stream,
        Err(error) if error.is_not_found() => {
            // The pod, or its container.
            let named = Named {
                kind: barge_proto::kinds::by_name("pod")?,
                name: &pod,
            };
            return match client.find(Kind::Pod, namespace, &pod).await? {
                None => Err(names::not_found(&client, named, namespace).await),
                Some(_) => Err(error.into()),
            };
        }
        Err(error) => return Err(error.into()),
    };
    let mut out = io::stdout();
    while let Some(piece) = stream
        .next()
        .await
        .with_context(|| format!("logs of pod {pod}"))?
    {
        out.write_all(&piece.data)?;
        out.flush()?;
    }
    Ok(())
}

async fn pod_name(client: &Client, what: &str, namespace: &str) -> Result<String> {
    if !what.contains('/') {
        return Ok(what.to_owned());
    }
    let named = names::slashed(what)?;
    match named.kind.kind {
        Kind::Pod => Ok(named.name.to_owned()),
        Kind::Deployment => {
            let Some(object) = client.find(Kind::Deployment, namespace, named.name).await? else {
                return Err(names::not_found(client, named, namespace).await);
            };
            let deployment = Deployment::try_from(object)
                .map_err(|_| anyhow::anyhow!("the manager answered with another kind"))?;
            let mut pods = crate::rollout::pods(client, &deployment).await?;
            // One that runs, for preference.
            pods.sort_by_key(|pod| pod_status(pod) != "Running");
            let names: Vec<_> = pods.iter().filter_map(name).collect();
            match names[..] {
                [] => bail!("deployment \"{}\" has no pods", named.name),
                [only] => Ok(only.to_owned()),
                [first, ..] => {
                    eprintln!("{} pods, these are the logs of {first}", names.len());
                    Ok(first.to_owned())
                }
            }
        }
        _ => bail!(
            "a {} has no logs; pods and deployments have",
            named.kind.singular
        ),
    }
}

fn name(pod: &Pod) -> Option<&str> {
    pod.metadata.as_ref().map(|metadata| metadata.name.as_str())
}
