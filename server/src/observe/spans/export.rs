//! From requests to the collector: a bounded queue, and a thread of its own that empties it. Requests never wait for it.

mod health;

use std::{io, sync::mpsc, time::Duration};

use health::{Health, Said};
use opentelemetry::Context;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanExporter as _, SpanProcessor},
};
use prometheus_client::metrics::counter::Counter;
use tokio::{
    runtime,
    sync::mpsc::{Receiver, Sender, channel},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::{ClientTlsConfig, Endpoint};

use super::Otlp;

/// Spans on their way; beyond, they are lost and counted.
const QUEUE: usize = 8192;
/// Spans of one request to the collector.
const BATCH: usize = 512;
/// Spans wait so long for further ones, so that the thread is not woken for each.
const GATHER: Duration = Duration::from_millis(250);
/// How long a batch is tried for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What became of spans. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// The collector has taken them.
    pub exported: Counter,
    /// The queue was full, or the collector did not take them.
    pub dropped: Counter,
}

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The endpoint, or the roots of this machine.
    #[error("--otlp-endpoint {endpoint}: {}", because(.source))]
    Endpoint {
        /// Where spans should go.
        endpoint: String,
        /// What is wrong.
        source: tonic::transport::Error,
    },
    /// The environment's variables for OTLP.
    #[error("the exporter of spans: {0}")]
    Exporter(#[from] ExporterBuildError),
    /// The thread.
    #[error("start the exporter of spans: {0}")]
    Thread(#[from] io::Error),
}

impl StartError {
    /// The exit code of a process that ends with this error: 2 for settings, otherwise 1.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Thread(_) => 1,
            _ => 2,
        }
    }
}

/// tonic's own sentence ends before the reason.
fn because(error: &tonic::transport::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Where spans go when they end.
#[derive(Debug)]
pub struct Queue {
    spans: Sender<SpanData>,
    counts: Counts,
}

/// The thread's end of it.
#[derive(Debug)]
pub struct Outlet {
    closing: CancellationToken,
    /// Ends with the thread. Behind a lock only because a receiver is one party's.
    ended: std::sync::Mutex<mpsc::Receiver<()>>,
}

impl Queue {
    /// Starts the thread.
    ///
    /// # Errors
    /// The settings do not work here, or the thread cannot be started.
    pub fn start(
        settings: &Otlp,
        resource: &Resource,
        counts: Counts,
    ) -> Result<(Self, Outlet), StartError> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut exporter = {
            // The channel lives where it is made.
            let _entered = runtime.enter();
            exporter(settings)?
        };
        exporter.set_resource(resource);
        let (spans, queue) = channel(QUEUE);
        let (ending, ended) = mpsc::channel();
        let closing = CancellationToken::new();
        let (closed, counted) = (closing.clone(), counts.clone());
        std::thread::Builder::new()
            .name("otlp".to_owned())
            .spawn(move || {
                runtime.block_on(empty(&exporter, queue, &closed, &counted));
                drop(ending);
            })?;
        let outlet = Outlet {
            closing,
            ended: std::sync::Mutex::new(ended),
        };
        Ok((Self { spans, counts }, outlet))
    }
}

impl Outlet {
    /// Ends the thread when everything is sent; false when that takes longer than `bound`. Blocks.
    pub fn close(&self, bound: Duration) -> bool {
        self.closing.cancel();
        let ended = self.ended.lock();
        let ended = ended.unwrap_or_else(std::sync::PoisonError::into_inner);
        !matches!(
            ended.recv_timeout(bound),
            Err(mpsc::RecvTimeoutError::Timeout)
        )
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.counts.dropped.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    /// [`Outlet::close`] does that.
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

fn exporter(settings: &Otlp) -> Result<SpanExporter, StartError> {
    let wrong = |source| StartError::Endpoint {
        endpoint: settings.endpoint.clone(),
        source,
    };
    let mut endpoint = Endpoint::from_shared(settings.endpoint.clone())
        .map_err(wrong)?
        .connect_timeout(PATIENCE)
        .timeout(PATIENCE);
    if settings.is_tls() {
        let roots = ClientTlsConfig::new().with_native_roots();
        endpoint = endpoint.tls_config(roots).map_err(wrong)?;
    }
    Ok(SpanExporter::builder()
        .with_tonic()
        .with_channel(endpoint.connect_lazy())
        .with_timeout(PATIENCE)
        .build()?)
}

/// Sends what comes, until it is closed and empty.
async fn empty(
    exporter: &SpanExporter,
    mut queue: Receiver<SpanData>,
    closing: &CancellationToken,
    counts: &Counts,
) {
    let mut health = Health::default();
    while let Some(first) = next(&mut queue, closing).await {
        // Whichever comes first: it is of no interest.
        let _ = timeout(GATHER, closing.cancelled()).await;
        let mut batch = vec![first];
        loop {
            while batch.len() < BATCH
                && let Ok(span) = queue.try_recv()
            {
                batch.push(span);
            }
            if batch.is_empty() {
                break;
            }
            let size = batch.len() as u64;
            let sent = exporter.export(std::mem::take(&mut batch)).await;
            match &sent {
                Ok(()) => counts.exported.inc_by(size),
                Err(_) => counts.dropped.inc_by(size),
            };
            match (health.after(sent.is_err(), counts.dropped.get()), sent) {
                (Some(Said::Losing), Err(error)) => {
                    tracing::warn!(%error, "the collector of spans is away: they are lost until it is back");
                }
                (Some(Said::Losing), Ok(())) => {
                    tracing::warn!("the collector of spans cannot keep up: some are lost");
                }
                (Some(Said::Again { lost }), _) => {
                    tracing::info!(lost, "the collector of spans takes all again");
                }
                (None, _) => {}
            }
        }
    }
}

async fn next(queue: &mut Receiver<SpanData>, closing: &CancellationToken) -> Option<SpanData> {
    tokio::select! {
        biased;
        span = queue.recv() => span,
        () = closing.cancelled() => {
            queue.close();
            queue.recv().await
        }
    }
}
