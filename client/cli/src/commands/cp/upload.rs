//! Into a container: an archive is made here while `tar` unpacks it there.

use std::{
    fs::{self, File, Metadata, ReadDir},
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use barge_client::{ExecEvent, ExecOutput, ExecStream};
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;

use super::{
    Inside, Said, finished,
    pipe::{Writer, pipe},
    place::RemotePath,
};
use crate::{commands::exec, explain};

/// Copies a file or a folder.
pub async fn run(inside: &Inside, from: &Path, to: &RemotePath, plainly: bool) -> Result<()> {
    // A link that is named itself is followed.
    let metadata = fs::metadata(from).with_context(|| format!("read {}", from.display()))?;
    let into = is_folder(inside, to).await?;
    let (folder, name) = target(from, &metadata, to, into)?;
    let mut command = vec!["tar", "-xmf", "-", "-C", &folder];
    if plainly {
        command.splice(1..1, ["--no-same-permissions", "--no-same-owner"]);
    }
    let ExecStream { input, mut output } = inside.tar(&command, true).await?;
    let mut said = Said::default();
    let (sender, mut pieces) = pipe();
    let from = from.to_owned();
    let packing = tokio::task::spawn_blocking(move || pack(&from, &name, sender));
    let code = {
        let feed = async {
            while let Some(piece) = pieces.recv().await {
                if input.write(&piece).await.is_err() {
                    break;
                }
            }
            // No more is packed if tar has ended early.
            drop(pieces);
            let packed = packing.await;
            if matches!(packed, Ok(Ok(()))) {
                // If the stream is over, its other half says why.
                let _ = input.end().await;
            }
            packed
        };
        let ended = code(&mut output, &mut said);
        tokio::pin!(feed, ended);
        tokio::select! {
            biased;
            // Before all was sent: it could not unpack it.
            code = &mut ended => code,
            packed = &mut feed => match packed? {
                Ok(()) => ended.await,
                // tar has ended early, and says why.
                Err(error) if explain::is_broken_pipe(&error) => ended.await,
                // The program is ended with its stream: nothing half is taken for whole.
                Err(error) => return Err(error),
            },
        }
    };
    let code = code.context("the stream to tar broke; what was copied is not complete")?;
    finished(&inside.pod, code, &said)
}

/// Whether there is a folder of this name in the container. Where there is no `test`, there is none.
async fn is_folder(inside: &Inside, path: &RemotePath) -> Result<bool> {
    let test = inside.exec(&["test", "-d", &path.whole()], false).await;
    let mut output = match test {
        Ok(stream) => stream.output,
        Err(error) if exec::reason(&error) == Some(exec::PROGRAM_NOT_FOUND) => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok(code(&mut output, &mut Said::default()).await? == 0)
}

async fn code(output: &mut ExecOutput, said: &mut Said) -> Result<i32> {
    loop {
        match output.next().await? {
            ExecEvent::Stdout(_) => {}
            ExecEvent::Stderr(data) => said.hear(&data),
            ExecEvent::Exit(code) => return Ok(code),
        }
    }
}

/// The folder to unpack in, and the name in the archive; an empty one for what is in a folder.
fn target(
    from: &Path,
    metadata: &Metadata,
    to: &RemotePath,
    into: bool,
) -> Result<(String, PathBuf)> {
    let text = from.as_os_str().as_encoded_bytes();
    let contents = metadata.is_dir() && (text.ends_with(b"/.") || from.file_name().is_none());
    if into {
        let name = match contents {
            true => PathBuf::new(),
            false => from.file_name().map(PathBuf::from).unwrap_or_default(),
        };
        return Ok((to.whole(), name));
    }
    ensure!(
        metadata.is_dir() || !to.is_folder(),
        "there is no folder {} in the container",
        to.whole()
    );
    match to.split() {
        Some((folder, name)) => Ok((folder, name.into())),
        None => bail!("there is no folder {} in the container", to.whole()),
    }
}

/// Writes the archive: a folder before what is in it.
fn pack(from: &Path, name: &Path, to: mpsc::Sender<Vec<u8>>) -> Result<()> {
    let mut archive = Builder::new(Writer::new(to));
    // The folders that are being read, from the outermost one.
    let mut folders = Vec::new();
    let metadata = fs::metadata(from).with_context(|| reading(from))?;
    folders.extend(put(&mut archive, from, name, &metadata).with_context(|| reading(from))?);
    while let Some((folder, at)) = folders.last_mut() {
        let Some(entry) = folder.next() else {
            folders.pop();
            continue;
        };
        let entry = entry.with_context(|| format!("read what is in {}", from.display()))?;
        let (path, name) = (entry.path(), at.join(entry.file_name()));
        let inner = fs::symlink_metadata(&path)
            .map_err(anyhow::Error::from)
            .and_then(|metadata| put(&mut archive, &path, &name, &metadata));
        folders.extend(inner.with_context(|| reading(&path))?);
    }
    let mut writer = archive.into_inner()?;
    Ok(io::Write::flush(&mut writer)?)
}

fn reading(path: &Path) -> String {
    format!("read {}", path.display())
}

/// Writes one entry; for a folder, returns what is to be gone through next.
fn put(
    archive: &mut Builder<Writer>,
    path: &Path,
    name: &Path,
    metadata: &Metadata,
) -> Result<Option<(ReadDir, PathBuf)>> {
    let kind = metadata.file_type();
    let mut header = Header::new_gnu();
    header.set_metadata(metadata);
    header.set_size(0);
    if kind.is_dir() {
        // The folder that is unpacked in is there.
        if !name.as_os_str().is_empty() {
            archive.append_data(&mut header, name, io::empty())?;
        }
        return Ok(Some((fs::read_dir(path)?, name.to_owned())));
    }
    if kind.is_file() {
        append(archive, header, name, File::open(path)?, metadata.len())?;
    } else if kind.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        archive.append_link(&mut header, name, fs::read_link(path)?)?;
    } else {
        eprintln!(
            "warning: {} is not copied: it is neither a file nor a folder nor a link",
            path.display()
        );
    }
    Ok(None)
}

/// As many bytes as the header says: what is added to a file meanwhile is left out, and one that has become shorter is an error.
fn append(
    archive: &mut Builder<Writer>,
    mut header: Header,
    name: &Path,
    file: File,
    size: u64,
) -> Result<()> {
    header.set_size(size);
    let mut file = Counted {
        inner: file.take(size),
        read: 0,
    };
    archive.append_data(&mut header, name, &mut file)?;
    ensure!(file.read == size, "it has become shorter while it was read");
    Ok(())
}

struct Counted<R> {
    inner: R,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.read += length as u64;
        Ok(length)
    }
}
