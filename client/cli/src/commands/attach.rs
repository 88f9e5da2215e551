//! `barge attach POD|KIND/NAME`

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use barge_client::v1::AttachRequest;
use clap::Args;

use crate::{
    args::Namespace,
    context::Connection,
    pods,
    session::{self, Ended, Printer},
};

const EXAMPLES: &str = "\
Examples:
  barge attach web-1
  barge attach deployment/web -c app

What the container wrote before is shown by `barge logs`. Ctrl-C ends barge alone: the container runs on.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Attach {
    /// POD, or KIND/NAME: a running pod of a deployment or a service
    #[arg(value_name = "POD|KIND/NAME")]
    pod: String,
    /// The container, in a pod that has several
    #[arg(short, long, default_value = "", hide_default_value = true)]
    container: String,
    /// kubectl's: refused with the way out.
    #[arg(short = 'i', long, hide = true)]
    stdin: bool,
    /// As above.
    #[arg(short, long, hide = true)]
    tty: bool,
    #[command(flatten)]
    namespace: Namespace,
}

pub async fn run(to: &Connection, attach: Attach) -> Result<ExitCode> {
    if attach.stdin || attach.tty {
        bail!(
            "a container's own program has no input: barge attach shows its output only; `barge exec -it {} -- sh` runs a program with a terminal beside it",
            attach.pod
        );
    }
    let client = to.client()?;
    let namespace = attach.namespace.of(to)?;
    let pod = pods::named(&client, &namespace, &attach.pod).await?;
    let request = AttachRequest {
        namespace: namespace.clone(),
        pod: pod.clone(),
        container: attach.container,
    };
    let output = match client.attach(request).await {
        Ok(output) => output,
        Err(error) => return Err(pods::explained(&client, &namespace, &pod, error).await),
    };
    let printer = Printer::standard().context("print what the container writes")?;
    let lost =
        "the stream broke; the container runs on, and `barge logs` shows what it wrote meanwhile";
    tokio::select! {
        code = session::listen(output, printer, lost) => Ok(Ended::Program(code?).into()),
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("listen for signals")?;
            eprintln!("detached: the container of pod {pod} runs on");
            Ok(ExitCode::SUCCESS)
        }
    }
}
