//! The carrier's socket.

use std::{cell::RefCell, fs, io, os::unix::fs::PermissionsExt, rc::Rc};

use fs4::FileExt;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};
use tokio_util::sync::CancellationToken;

use super::{
    protocol::{Envelope, LONGEST, Reply, Request, VERSION},
    registry::Registry,
};
use crate::{files, runtime::Paths};

/// Serves until told to go.
pub async fn serve(paths: Paths) -> io::Result<()> {
    fs::create_dir_all(paths.run())?;
    // Held until this process ends, however it ends: there is never a second carrier for one folder.
    let lock = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(paths.carrier_lock())?;
    if FileExt::try_lock(&lock).is_err() {
        tracing::info!("another carrier is running");
        return Ok(());
    }
    let registry = Rc::new(RefCell::new(Registry::recover(paths.clone())?));
    let socket = paths.carrier_socket();
    files::remove_if_there(&socket)?;
    let listener = UnixListener::bind(&socket)?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
    tracing::info!(attached = registry.borrow().len(), "carrying");

    let done = CancellationToken::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            () = done.cancelled() => break,
        };
        let (registry, done) = (Rc::clone(&registry), done.clone());
        tokio::task::spawn_local(async move {
            if let Err(error) = converse(stream, &registry, &done).await {
                tracing::warn!(%error, "a connection of control broke");
            }
        });
    }
    files::remove_if_there(&socket)
}

async fn converse(
    stream: UnixStream,
    registry: &RefCell<Registry>,
    done: &CancellationToken,
) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader.take(LONGEST));
    let mut line = Vec::new();
    loop {
        line.clear();
        reader.get_mut().set_limit(LONGEST);
        if reader.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let answer = match serde_json::from_slice::<Envelope>(&line) {
            Ok(envelope) => handle(envelope.request, registry).await,
            Err(error) => Err(format!("not understood: {error}")),
        };
        let leaving = matches!(answer, Ok(true));
        let mut reply = serde_json::to_vec(&Reply {
            version: VERSION,
            build: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            attached: registry.borrow().len(),
            error: answer.err(),
        })?;
        reply.push(b'\n');
        writer.write_all(&reply).await?;
        if leaving {
            done.cancel();
            return Ok(());
        }
    }
}

/// Answers whether the carrier ends.
async fn handle(request: Request, registry: &RefCell<Registry>) -> Result<bool, String> {
    match request {
        Request::Ping => Ok(false),
        Request::Attach(attachment) => {
            let attached = registry.borrow_mut().attach(&attachment);
            attached.map_err(|error| format!("cannot attach {}: {error}", attachment.id))?;
            Ok(false)
        }
        Request::Detach { id } => {
            let detaching = registry.borrow_mut().detach(&id);
            detaching
                .await
                .map_err(|error| format!("cannot detach {id}: {error}"))?;
            Ok(false)
        }
        Request::Shutdown => match registry.borrow().len() {
            0 => Ok(true),
            attached => Err(format!(
                "the output of {attached} containers is still carried"
            )),
        },
        Request::Leave => Ok(true),
    }
}
