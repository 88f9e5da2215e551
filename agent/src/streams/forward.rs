//! Connections to ports of pods.

use std::{io, sync::Arc, time::Duration};

use barge_proto::v1::{ForwardOptions, TunnelChunk};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tonic::Streaming;

use super::{input, running};
use crate::{desired::Desired, runtime::Runtime};

/// For the connection to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// Bytes in a chunk.
const PIECE: usize = 32 * 1024;

/// Connects and passes on what either side says, until both have said all or one has gone. The error is a sentence.
pub async fn run(
    runtime: &dyn Runtime,
    desired: Arc<Desired>,
    options: &ForwardOptions,
    chunks: &mpsc::Sender<TunnelChunk>,
    back: &mut Streaming<TunnelChunk>,
) -> Result<(), String> {
    let mut stream = tokio::select! {
        stream = connect(runtime, &desired, options) => stream?,
        () = chunks.closed() => return Ok(()),
    };
    let begun = TunnelChunk {
        begun: true,
        ..Default::default()
    };
    if chunks.send(begun).await.is_err() {
        return Ok(());
    }
    // What is small is not held back: people type.
    let _ = stream.set_nodelay(true);
    let (mut from, mut to) = stream.split();
    let out = async {
        let mut piece = vec![0; PIECE];
        loop {
            let bytes = from.read(&mut piece).await?;
            let chunk = TunnelChunk {
                data: piece[..bytes].to_vec(),
                end: bytes == 0,
                ..Default::default()
            };
            if chunks.send(chunk).await.is_err() || bytes == 0 {
                return io::Result::Ok(());
            }
        }
    };
    let (gone, mut waiting) = input::ahead(back);
    let into = async {
        while let Some(chunk) = waiting.recv().await {
            to.write_all(&chunk.data).await?;
            if chunk.end {
                to.shutdown().await?;
                break;
            }
            if !input::dealt_with(chunks).await {
                break;
            }
        }
        io::Result::Ok(())
    };
    let both = async { tokio::try_join!(out, into) };
    let ended: io::Result<()> = tokio::select! {
        ended = both => ended.map(drop),
        () = gone => Ok(()),
        () = chunks.closed() => Ok(()),
    };
    ended.map_err(|error| format!("the connection to port {} broke: {error}", options.port))
}

async fn connect(
    runtime: &dyn Runtime,
    desired: &Desired,
    options: &ForwardOptions,
) -> Result<TcpStream, String> {
    let pod = running::pod(desired, &options.pod_uid)?;
    let name = running::name_of(&pod);
    let port = u16::try_from(options.port).ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| format!("port {} is none: 1 to 65535", options.port))?;
    match timeout(CONNECT, runtime.connect(&options.pod_uid, port)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Err(format!(
            "nothing listens on port {port} of pod {name}: connection refused"
        )),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Err(format!(
            "pod {name} has no network at the moment: it has not been started yet, or has ended"
        )),
        Ok(Err(error)) => Err(format!(
            "cannot connect to port {port} of pod {name}: {error}"
        )),
        Err(_) => Err(format!(
            "cannot connect to port {port} of pod {name}: no answer within {CONNECT:?}"
        )),
    }
}
