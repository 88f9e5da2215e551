//! The carrier's socket. Its thread answers at once, whatever the disks do.

use std::{cell::RefCell, fs, io, os::unix::fs::PermissionsExt, rc::Rc, time::Duration};

use barge_client::supervisor::Supervisor;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    protocol::{Envelope, LONGEST, Reply, Request, VERSION},
    registry::Registry,
};
use crate::{files, runtime::Paths};

/// How long an answer waits for a container's output to settle; control has more patience.
const SETTLE: Duration = Duration::from_secs(5);

/// Serves until told to go. The lock of the data folder is held.
pub async fn serve(paths: Paths, supervisor: &Supervisor) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let registry = Rc::new(RefCell::new(Registry::recover(paths.clone())?));
    let socket = paths.carrier_socket();
    files::remove_if_there(&socket)?;
    let listener = UnixListener::bind(&socket)?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
    tracing::info!(attached = registry.borrow().len(), "carrying");
    supervisor.ready("carrying");

    let supervised = supervisor.is_there();
    let done = CancellationToken::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            () = done.cancelled() => break,
            _ = terminate.recv() => break,
        };
        let (registry, done) = (Rc::clone(&registry), done.clone());
        tokio::task::spawn_local(async move {
            if let Err(error) = converse(stream, &registry, supervised, &done).await {
                tracing::warn!(%error, "a connection of control broke");
            }
        });
    }
    supervisor.stopping();
    files::remove_if_there(&socket)?;
    drop(listener);
    let leaving = registry.borrow_mut().leave();
    leaving.await;
    Ok(())
}

async fn converse(
    stream: UnixStream,
    registry: &RefCell<Registry>,
    supervised: bool,
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
            supervised,
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
            let id = attachment.id.clone();
            let failed = |error: String| format!("cannot attach {id}: {error}");
            let worker = registry.borrow_mut().attach(attachment);
            let worker = worker.map_err(|error| failed(error.to_string()))?;
            worker.opened().await.map_err(failed)?;
            Ok(false)
        }
        Request::Detach { id } => {
            let failed = |error: String| format!("cannot detach {id}: {error}");
            let worker = registry.borrow_mut().detach(&id);
            let worker = worker.map_err(|error| failed(error.to_string()))?;
            worker.ended().await.map_err(failed)?;
            Ok(false)
        }
        Request::Settle { id } => {
            let worker = registry.borrow().worker(&id);
            let Some(worker) = worker else {
                return Ok(false);
            };
            let failed = |why: String| format!("the output of {id} is not all in its log: {why}");
            let settled = timeout(SETTLE, worker.settled()).await;
            settled
                .unwrap_or_else(|_| Err("something writes still, or the disk hangs".to_owned()))
                .map_err(failed)?;
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
