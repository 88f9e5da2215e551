//! Local connections, each relayed to the pod by a call of its own.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use barge_client::{Client, ClientError, PortStream, v1::PortForwardStart};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep},
};

/// The most that is read at a time, in bytes.
const PIECE: usize = 64 << 10;
/// Before a connection is accepted again, after that failed: mostly for want of file descriptors. And before a node that had no place is asked again.
const PAUSE: Duration = Duration::from_millis(500);

/// How long a connection waits for a place at the pod's node, which others have.
const PATIENCE: Duration = Duration::from_secs(300);

/// Why a connection ended early.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Pod(#[from] ClientError),
    /// The local program is gone: it knows.
    #[error(transparent)]
    Local(#[from] io::Error),
}

/// Accepts connections while there is room for them, and relays each. One that fails is told on standard error and leaves the others.
pub async fn serve(
    listener: TcpListener,
    client: Client,
    start: PortForwardStart,
    room: Arc<Semaphore>,
) -> Infallible {
    let mut relays = JoinSet::new();
    loop {
        // Those that have ended.
        while relays.try_join_next().is_some() {}
        let Ok(permit) = room.clone().acquire_owned().await else {
            // Never closed.
            return std::future::pending().await;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                eprintln!("error: accept a connection: {error}");
                drop(permit);
                sleep(PAUSE).await;
                continue;
            }
        };
        let (client, start) = (client.clone(), start.clone());
        relays.spawn(async move {
            let (pod, port) = (start.pod.clone(), start.port);
            match Box::pin(relay(&client, start, stream)).await {
                Ok(()) => {}
                Err(Broken::Local(error)) => tracing::debug!(%error, "a local connection broke"),
                Err(Broken::Pod(error)) => {
                    eprintln!("error: a connection to port {port} of pod {pod}: {error}");
                }
            }
            drop(permit);
        });
    }
}

/// Relays one connection. Each direction ends by itself: a program that has said all may still listen.
async fn relay(client: &Client, start: PortForwardStart, stream: TcpStream) -> Result<(), Broken> {
    // Small answers are not to wait for each other.
    stream.set_nodelay(true)?;
    let PortStream { input, mut output } = connected(client, start).await?;
    let (mut read, mut write) = stream.into_split();
    let up = async {
        let mut buffer = vec![0; PIECE];
        loop {
            let length = match read.read(&mut buffer).await {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) => return error,
            };
            if input.write(&buffer[..length]).await.is_err() {
                // The other direction tells why.
                return std::future::pending().await;
            }
        }
        let _ = input.end().await;
        std::future::pending().await
    };
    let down = async {
        while let Some(data) = output.next().await? {
            write.write_all(&data).await?;
        }
        write.shutdown().await?;
        // What is on its way to the pod would be lost with the stream.
        output.closed().await?;
        Ok::<(), Broken>(())
    };
    tokio::select! {
        done = down => done,
        error = up => Err(error.into()),
    }
}

/// Connects to the pod, once its node has a place.
async fn connected(client: &Client, start: PortForwardStart) -> Result<PortStream, ClientError> {
    let begun = Instant::now();
    let mut waits = false;
    loop {
        match client.port_forward(start.clone()).await {
            Err(error) if error.reason() == Some("OVERLOADED") && begun.elapsed() < PATIENCE => {
                if !std::mem::replace(&mut waits, true) {
                    eprintln!("a connection waits: {error}");
                }
                sleep(PAUSE).await;
            }
            connected => return connected,
        }
    }
}

#[cfg(test)]
mod tests;
