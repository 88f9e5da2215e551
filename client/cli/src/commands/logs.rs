//! `barge logs POD|KIND/NAME` and `barge logs -l SELECTOR`

use std::io::{self, Write};

use anyhow::{Context, Result, ensure};
use barge_client::{
    Client,
    v1::{Kind, LogsRequest, Time},
};
use clap::Args;
use tokio::{sync::mpsc, task::JoinSet};

use crate::{args::Namespace, context::Connection, duration::Span, explain, output};

mod lines;
mod sources;

use lines::Lines;
use sources::{Source, missing};

/// Lines of each of the pods of a selector, where nothing else is said; as kubectl has it.
const SELECTED: u64 = 10;
/// Pieces of all streams that wait for the terminal.
const AHEAD: usize = 16;

const EXAMPLES: &str = "\
Examples:
  barge logs web-1 --tail 100
  barge logs web-1 --previous
  barge logs -f deployment/web --all-pods --prefix
  barge logs -l app=web --all-containers --since-time 2026-01-02T15:04:05Z";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Logs {
    /// POD, or a pod or deployment as KIND NAME or KIND/NAME
    #[arg(
        required_unless_present = "selector",
        conflicts_with = "selector",
        value_name = "POD|KIND NAME"
    )]
    what: Vec<String>,
    /// Of all pods with these labels ("app=web"); the last 10 lines of each where --tail says nothing else
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Of all pods of a deployment, instead of one
    #[arg(long)]
    all_pods: bool,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Only lines not older than this ("5m")
    #[arg(long, value_name = "DURATION", conflicts_with = "since_time")]
    since: Option<Span>,
    /// Only lines not older than this time ("2026-01-02T15:04:05Z")
    #[arg(long, value_name = "TIME", value_parser = time)]
    since_time: Option<Time>,
    /// Only so many lines from the end
    #[arg(long, value_name = "N")]
    tail: Option<u64>,
    /// Of the container's last run that has ended, such as the one that crashed
    #[arg(short, long, conflicts_with = "follow")]
    previous: bool,
    /// The container, in a pod that has several
    #[arg(short, long, default_value = "", hide_default_value = true)]
    container: String,
    /// Of all containers, init containers first
    #[arg(long, conflicts_with = "container")]
    all_containers: bool,
    /// Begin every line with its time
    #[arg(long)]
    timestamps: bool,
    /// Begin every line with its pod and container
    #[arg(long)]
    prefix: bool,
    /// How many streams may be followed at a time
    #[arg(long, value_name = "N", default_value_t = 5)]
    max_log_requests: usize,
    #[command(flatten)]
    namespace: Namespace,
}

fn time(text: &str) -> Result<Time, String> {
    serde_json::from_value(text.into())
        .map_err(|_| format!("\"{text}\" is not a time such as 2026-01-02T15:04:05Z"))
}

pub async fn run(to: &Connection, logs: Logs) -> Result<()> {
    let client = to.client()?;
    let namespace = logs.namespace.of(to)?;
    let sources = sources::of(&client, &logs, &namespace).await?;
    if logs.follow {
        ensure!(
            sources.len() <= logs.max_log_requests,
            "{} streams would be followed at a time, more than {}: choose fewer pods, or raise --max-log-requests",
            sources.len(),
            logs.max_log_requests
        );
    }
    let since = logs.since.map(|span| Time {
        seconds: output::now() - i64::try_from(span.0.as_secs()).unwrap_or(i64::MAX),
        nanos: 0,
    });
    let request = |source: &Source| LogsRequest {
        namespace: namespace.clone(),
        pod: source.pod.clone(),
        container: source.container.clone(),
        follow: logs.follow,
        tail: logs.tail.or(logs.selector.as_ref().map(|_| SELECTED)),
        since: logs.since_time.or(since),
        timestamps: logs.timestamps,
        after: Vec::new(),
        previous: logs.previous,
    };
    let alone = sources.len() == 1 && !logs.prefix;
    let requests = sources.iter().map(|source| {
        let prefix = match logs.prefix {
            true => source.prefix(),
            false => String::new(),
        };
        // One stream by itself is printed as it comes.
        let lines = (!alone).then(|| Lines::new(&prefix));
        (request(source), lines)
    });
    let together = if logs.follow { sources.len() } else { 1 };
    merged(&client, requests, together).await
}

/// Prints streams: so many at a time, in order.
async fn merged(
    client: &Client,
    requests: impl Iterator<Item = (LogsRequest, Option<Lines>)>,
    together: usize,
) -> Result<()> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let reading = async move {
        let mut running = JoinSet::new();
        let mut failures = Vec::new();
        for (request, lines) in requests {
            if running.len() >= together
                && let Some(done) = running.join_next().await
            {
                failures.extend(failed(done));
            }
            running.spawn(read(client.clone(), request, lines, sender.clone()));
        }
        drop(sender);
        while let Some(done) = running.join_next().await {
            failures.extend(failed(done));
        }
        failures
    };
    let printing = print(receiver);
    tokio::pin!(reading, printing);
    tokio::select! {
        // The reader of our output has gone: nothing more is read.
        biased;
        printed = &mut printing => {
            printed?;
            explain::all(reading.await)
        }
        failures = &mut reading => {
            printing.await?;
            explain::all(failures)
        }
    }
}

fn failed(done: Result<Result<()>, tokio::task::JoinError>) -> Option<anyhow::Error> {
    match done {
        Ok(done) => done.err(),
        Err(error) => Some(error.into()),
    }
}

/// Sends a stream on, cut into lines if that is wished; ends early when nobody takes it.
async fn read(
    client: Client,
    request: LogsRequest,
    mut lines: Option<Lines>,
    to: mpsc::Sender<Vec<u8>>,
) -> Result<()> {
    let (namespace, pod) = (request.namespace.clone(), request.pod.clone());
    let mut stream = match client.logs(request).await {
        Ok(stream) => stream,
        Err(error) if error.is_not_found() => {
            // The pod, or its container.
            return match client.find(Kind::Pod, &namespace, &pod).await? {
                None => Err(missing(&client, &namespace, &pod).await),
                Some(_) => Err(error.into()),
            };
        }
        Err(error) => return Err(error).with_context(|| format!("logs of pod {pod}")),
    };
    let outcome = loop {
        let data = match stream.next().await {
            Ok(Some(piece)) => piece.data,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error).with_context(|| format!("logs of pod {pod}")),
        };
        let data = match &mut lines {
            Some(lines) => lines.feed(&data),
            None => data,
        };
        if !data.is_empty() && to.send(data).await.is_err() {
            return Ok(());
        }
    };
    if let Some(lines) = &mut lines {
        let rest = lines.end();
        if !rest.is_empty() {
            // Nobody takes it any more: then it need not be printed.
            let _ = to.send(rest).await;
        }
    }
    outcome
}

async fn print(mut pieces: mpsc::Receiver<Vec<u8>>) -> Result<()> {
    let mut out = io::stdout();
    while let Some(piece) = pieces.recv().await {
        out.write_all(&piece)?;
        out.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_wrong_ones_told() {
        assert_eq!(time("1970-01-01T00:01:00Z").unwrap().seconds, 60);
        let error = time("yesterday").unwrap_err();
        assert!(error.contains("\"yesterday\""), "{error}");
    }
}
