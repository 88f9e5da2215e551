//! Out of a container: `tar` makes an archive there while it is unpacked here.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use barge_client::ExecEvent;

use super::{
    Inside, Said, finished,
    pipe::pipe,
    place::{RemotePath, plain},
    unpack::{Destination, unpack},
};

/// Copies a file or a folder.
pub async fn run(inside: &Inside, from: &RemotePath, to: &Path) -> Result<()> {
    let split = from.split();
    let asked = split.as_ref().map(|(_, name)| (*name).to_owned());
    let destination = destination(asked.as_deref(), to);
    let (folder, name) = match &split {
        Some((folder, name)) => (folder.clone(), plain(name)),
        None => (from.whole(), ".".to_owned()),
    };
    let stream = inside
        .tar(&["tar", "cf", "-", "-C", &folder, &name], false)
        .await?;
    let (sender, pieces) = pipe();
    let unpacking = tokio::task::spawn_blocking(move || {
        unpack(pieces, asked.as_deref(), &destination, |path, reason| {
            eprintln!("error: {} is not copied: {reason}", path.display());
        })
    });
    let mut output = stream.output;
    let mut said = Said::default();
    let code = loop {
        let event = output.next().await;
        match event.context("the stream from tar broke; what was copied is not complete")? {
            ExecEvent::Stdout(data) => {
                if sender.send(data).await.is_err() {
                    // It cannot be unpacked: the thread says why.
                    break None;
                }
            }
            ExecEvent::Stderr(data) => said.hear(&data),
            ExecEvent::Exit(code) => break Some(code),
        }
    };
    drop(sender);
    let unpacked = unpacking.await?;
    if let Some(code) = code {
        finished(&inside.pod, code, &said)?;
    }
    match unpacked? {
        0 => Ok(()),
        1 => bail!("one entry was not copied"),
        refused => bail!("{refused} entries were not copied"),
    }
}

/// As `cp` has it: into a folder that is there, else under the new name.
fn destination(asked: Option<&str>, to: &Path) -> Destination {
    let is_folder = to.as_os_str().as_encoded_bytes().ends_with(b"/");
    let there = fs::metadata(to).is_ok_and(|metadata| metadata.is_dir());
    match (to.file_name(), there) {
        (Some(name), false) => Destination {
            base: match to.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
                _ => ".".into(),
            },
            name: Some(name.to_owned()),
            is_folder,
        },
        _ => Destination {
            base: to.to_owned(),
            name: asked.map(Into::into),
            is_folder: false,
        },
    }
}
