//! `barge cp SRC DST`: `tar` in the container, through exec.

use anyhow::{Result, anyhow, bail};
use barge_client::{Client, ExecStream, v1::ExecStart};
use clap::Args;

use super::exec;
use crate::{args::Namespace, context::Connection};

mod download;
mod pipe;
mod place;
mod tree;
mod unpack;
mod upload;

use place::{Place, Remote};

const EXAMPLES: &str = "\
Examples:
  barge cp ./site web-1:/srv/www
  barge cp web-1:/var/log/app.log ./app.log
  barge cp shop/db-1:/etc/postgresql ./etc -c postgres
  barge cp ./conf/. web-1:/etc/app

As cp -r does: onto an existing folder means into it, otherwise DST is the new name; SRC/. means what is in SRC. The container needs a tar.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Cp {
    /// PATH, POD:PATH or NAMESPACE/POD:PATH
    #[arg(value_name = "SRC")]
    from: Place,
    /// PATH, POD:PATH or NAMESPACE/POD:PATH; one of both is in a pod
    #[arg(value_name = "DST")]
    to: Place,
    /// The container, in a pod that has several
    #[arg(short, long, default_value = "", hide_default_value = true)]
    container: String,
    /// Into a container: do not keep owners and permissions
    #[arg(long)]
    no_preserve: bool,
    #[command(flatten)]
    namespace: Namespace,
}

pub async fn run(to: &Connection, cp: Cp) -> Result<()> {
    let pod = |remote: &Remote| -> Result<_> {
        Ok(Inside {
            client: to.client()?,
            namespace: match &remote.namespace {
                Some(namespace) => namespace.clone(),
                None => cp.namespace.of(to)?,
            },
            pod: remote.pod.clone(),
            container: cp.container.clone(),
        })
    };
    match (&cp.from, &cp.to) {
        (Place::Here(from), Place::There(to)) => {
            Box::pin(upload::run(&pod(to)?, from, &to.path, cp.no_preserve)).await
        }
        (Place::There(from), Place::Here(to)) => {
            Box::pin(download::run(&pod(from)?, &from.path, to)).await
        }
        (Place::Here(_), Place::Here(_)) => {
            bail!("one of both has to be in a pod, as POD:PATH; `cp` copies on this machine")
        }
        (Place::There(_), Place::There(_)) => {
            bail!(
                "one of both has to be on this machine: copy out of the one pod, then into the other"
            )
        }
    }
}

/// Where programs are run.
#[derive(Debug)]
struct Inside {
    client: Client,
    namespace: String,
    pod: String,
    container: String,
}

impl Inside {
    async fn exec(&self, command: &[&str], stdin: bool) -> Result<ExecStream> {
        let start = ExecStart {
            namespace: self.namespace.clone(),
            pod: self.pod.clone(),
            container: self.container.clone(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            stdin,
            tty: false,
            size: None,
        };
        exec::started(&self.client, start).await
    }

    async fn tar(&self, command: &[&str], stdin: bool) -> Result<ExecStream> {
        match self.exec(command, stdin).await {
            Err(error) if exec::reason(&error) == Some(exec::PROGRAM_NOT_FOUND) => {
                Err(no_tar(&self.pod, &format!("{error:#}")))
            }
            done => done,
        }
    }
}

fn no_tar(pod: &str, message: &str) -> anyhow::Error {
    anyhow!(
        "cp runs tar in the container, and there is none ({message}). Add tar to the image, or copy a single file: `barge exec {pod} -- cat PATH > FILE` \
         out of it, `barge exec -i {pod} -- sh -c 'cat > PATH' < FILE` into it"
    )
}

/// What `tar` in the container said and how it ended, as an error if it did not do its work.
fn finished(pod: &str, code: i32, said: &Said) -> Result<()> {
    match code {
        0 => Ok(()),
        // A shell's words for a program that is not there.
        126 | 127 => Err(no_tar(pod, &said.text())),
        code => Err(anyhow!(
            "tar in pod {pod} ended with code {code}: {}",
            said.text()
        )),
    }
}

/// The first part of what a program writes to its standard error.
#[derive(Debug, Default)]
struct Said(Vec<u8>);

impl Said {
    const MOST: usize = 4096;

    fn hear(&mut self, data: &[u8]) {
        let room = Self::MOST.saturating_sub(self.0.len()).min(data.len());
        self.0.extend_from_slice(&data[..room]);
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).trim().to_owned()
    }
}

#[cfg(test)]
mod tests;
