//! Programs that people run in containers.
//!
//! The manager's chunks go to the program, the program's outputs become chunks, and each waits for the other side: nothing is kept but one piece of each
//! output and the few chunks that a manager may have on their way. When the manager's half ends, or nobody takes chunks any more, the client has gone, and the
//! program is ended.

use std::{sync::Arc, time::Duration};

use barge_proto::v1::{ExecOptions, TunnelChunk};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::{input, running};
use crate::{
    desired::Desired,
    runtime::{
        Control, PROGRAM_NOT_EXECUTABLE, PROGRAM_NOT_FOUND, Program, Running, Runtime,
        RuntimeError, TerminalSize,
    },
};

/// Bytes of an output in a chunk.
const PIECE: usize = 32 * 1024;
/// After the program's end, a process that it has left may hold on to its outputs. What comes is taken while it comes without such a pause, in which the
/// shim answered …
const REST: Duration = Duration::from_secs(1);
/// … up to so many bytes, which is more than pipes hold.
const MOST_REST: usize = 2 << 20;
/// For the shim to answer about that, and between two questions.
const SILENCE: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// For what the shim copied while it answered.
const LAST: Duration = Duration::from_millis(100);
/// As the shell says of a program that is not there, and of one that is none.
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

/// What became of a program.
pub enum End {
    /// It ended with this exit code.
    Code(i32),
    /// It was not run, or its end is not known: a sentence, and the exit code that a shell has for that.
    Failed(String, Option<i32>),
    /// The client has gone, and the program was ended.
    Gone,
}

impl From<RuntimeError> for End {
    fn from(error: RuntimeError) -> Self {
        let code = match error.reason {
            PROGRAM_NOT_FOUND => Some(NOT_FOUND),
            PROGRAM_NOT_EXECUTABLE => Some(NOT_EXECUTABLE),
            _ => None,
        };
        Self::Failed(error.message, code)
    }
}

/// Runs a program, to its end or the client's, whichever comes first. `stop` is as good as the client's.
pub async fn run(
    runtime: &dyn Runtime,
    desired: Arc<Desired>,
    options: &ExecOptions,
    chunks: &mpsc::Sender<TunnelChunk>,
    back: &mut Streaming<TunnelChunk>,
    stop: &CancellationToken,
) -> End {
    let (client, waiting) = input::ahead(back);
    tokio::pin!(client);
    let nobody = CancellationToken::new();
    let running = {
        let begun = begin(runtime, &desired, options, &nobody);
        tokio::pin!(begun);
        let gone = async {
            tokio::select! {
                () = &mut client => {}
                () = chunks.closed() => {}
            }
        };
        tokio::select! {
            begun = &mut begun => begun,
            () = gone => {
                // It takes its place among the streams until it has ended, or is known not to begin.
                nobody.cancel();
                if let Ok(running) = begun.await {
                    running.control.end().await;
                }
                return End::Gone;
            }
            () = stop.cancelled() => return End::Gone,
        }
    };
    let running = match running {
        Ok(running) => running,
        Err(end) => return end,
    };
    let Running {
        stdin,
        stdout,
        stderr,
        control,
    } = running;
    let end = {
        let take = take(&*control, stdin, options.tty, waiting, chunks);
        let serve = serve(&*control, (stdout, stderr), take, chunks);
        tokio::select! {
            end = serve => end,
            () = client => End::Gone,
            () = chunks.closed() => End::Gone,
            () = stop.cancelled() => End::Gone,
        }
    };
    control.end().await;
    end
}

async fn begin(
    runtime: &dyn Runtime,
    desired: &Desired,
    options: &ExecOptions,
    nobody: &CancellationToken,
) -> Result<Running, End> {
    let failed = |why| End::Failed(why, None);
    if options.command.first().is_none_or(String::is_empty) {
        return Err(failed("no program is named".to_owned()));
    }
    let pod = running::pod(desired, &options.pod_uid).map_err(failed)?;
    let container = running::container(runtime, &pod, &options.pod_uid, &options.container).await;
    let container = container.map_err(failed)?;
    let program = Program {
        command: options.command.clone(),
        stdin: options.stdin,
        tty: options.tty,
        size: options.size.as_ref().map(size),
    };
    Ok(runtime.attend(&container.id, &program, nobody).await?)
}

fn size(size: &barge_proto::v1::TerminalSize) -> TerminalSize {
    TerminalSize {
        columns: size.columns,
        rows: size.rows,
    }
}

type Output = Box<dyn AsyncRead + Send + Sync + Unpin>;
type Input = Box<dyn AsyncWrite + Send + Sync + Unpin>;

async fn serve(
    control: &dyn Control,
    (stdout, stderr): (Output, Option<Output>),
    take: impl Future<Output = ()>,
    chunks: &mpsc::Sender<TunnelChunk>,
) -> End {
    let begun = TunnelChunk {
        begun: true,
        ..Default::default()
    };
    if chunks.send(begun).await.is_err() {
        return End::Gone;
    }
    let ended = CancellationToken::new();
    let outputs = async {
        let stderr = async {
            match stderr {
                Some(stderr) => copy(control, stderr, 2, chunks, &ended).await,
                None => Ok(()),
            }
        };
        let (stdout, stderr) = tokio::join!(copy(control, stdout, 1, chunks, &ended), stderr);
        stdout.and(stderr)
    };
    let to_the_end = async {
        let code = control.wait().await;
        ended.cancel();
        code
    };
    let take = async {
        take.await;
        std::future::pending::<std::convert::Infallible>().await
    };
    tokio::select! {
        (code, copied) = async { tokio::join!(to_the_end, outputs) } => match (code, copied) {
            (Ok(code), Ok(())) => End::Code(code),
            (Ok(code), Err(Silent)) => End::Failed(
                format!(
                    "the program ended with exit code {code}, but the rest of its output may be missing: the container's shim does not answer for {} s",
                    SILENCE.as_secs()
                ),
                None,
            ),
            (Err(error), _) => error.into(),
        },
        never = take => match never {},
    }
}

/// Nobody knows whether there is more of an output.
struct Silent;

/// Sends an output until its end. Once the program has ended, what it left in pipes is taken, and no more.
///
/// The end of the output comes by itself when no process of the container holds it any more and the shim has copied all. Whether a process still holds it,
/// or the shim is slow, cannot be told by the pipe. So the end of a silence counts only when the shim was well in it.
async fn copy(
    control: &dyn Control,
    mut output: Output,
    channel: u32,
    chunks: &mpsc::Sender<TunnelChunk>,
    ended: &CancellationToken,
) -> Result<(), Silent> {
    let mut piece = vec![0; PIECE];
    let mut rest = MOST_REST;
    loop {
        let read = match ended.is_cancelled() {
            true if rest == 0 => return Ok(()),
            true => tokio::select! {
                biased;
                read = output.read(&mut piece) => read,
                silence = timeout(SILENCE, silence(control)) => {
                    return silence.map_err(|_| Silent);
                }
            },
            false => tokio::select! {
                read = output.read(&mut piece) => read,
                () = ended.cancelled() => continue,
            },
        };
        let bytes @ 1.. = read.unwrap_or(0) else {
            return Ok(());
        };
        if ended.is_cancelled() {
            rest = rest.saturating_sub(bytes);
        }
        let chunk = TunnelChunk {
            data: piece[..bytes].to_vec(),
            channel,
            ..Default::default()
        };
        if chunks.send(chunk).await.is_err() {
            return Ok(());
        }
    }
}

/// Returns when the shim has had the time to copy all that there is: it answered before a pause and after it.
async fn silence(control: &dyn Control) {
    for pause in [REST, LAST] {
        while let Err(error) = control.copier_answers().await {
            tracing::debug!(%error, "a program's output may go on: its shim does not answer");
            sleep(ASK_AGAIN).await;
        }
        sleep(pause).await;
    }
}

/// Does what the manager's chunks say. A program that does not read its input holds up all that comes behind it.
async fn take(
    control: &dyn Control,
    stdin: Option<Input>,
    tty: bool,
    mut waiting: mpsc::Receiver<TunnelChunk>,
    chunks: &mpsc::Sender<TunnelChunk>,
) {
    let mut stdin = stdin;
    while let Some(chunk) = waiting.recv().await {
        if !chunk.data.is_empty()
            && let Some(input) = &mut stdin
            && input.write_all(&chunk.data).await.is_err()
        {
            // The program has closed it, or ended: what else comes for it is dropped.
            stdin = None;
        }
        let done = async {
            if let Some(new) = &chunk.size {
                control.resize(size(new)).await?;
            }
            if chunk.signal != 0 {
                control.signal(chunk.signal).await?;
            }
            // A terminal has no end: its input's end would be a hang-up.
            if chunk.end && !tty {
                stdin = None;
                control.close_stdin().await?;
            }
            Ok::<_, RuntimeError>(())
        };
        if let Err(error) = done.await {
            tracing::debug!(%error, "what a client wants of its program is not done");
        }
        if !input::dealt_with(chunks).await {
            return;
        }
    }
}
