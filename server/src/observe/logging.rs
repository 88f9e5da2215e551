//! The log on standard error, and changing its level while the process runs. A separate thread writes it, so no other thread waits for
//! the reader of standard error, which may stand still.

use std::{
    io::{IsTerminal, stderr},
    sync::{Arc, Mutex, PoisonError},
};

use clap::ValueEnum;
use serde::Deserialize;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

/// openraft tells at INFO what it does step by step; what matters of it is told by us.
const DEFAULT: &str = "info,openraft=error";

/// Lines that wait for their reader; beyond, the newest are dropped.
const WAITING: usize = 4096;

/// How lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Changes what is written. Cheap to clone.
#[derive(Clone)]
pub struct Logging {
    handle: reload::Handle<EnvFilter, Registry>,
    now: Arc<Mutex<String>>,
    /// The last one to go has what waits written.
    _writer: Arc<WorkerGuard>,
}

impl Logging {
    /// Begins to write what `$BARGE_LOG` asks for, by default what people should know.
    ///
    /// # Errors
    /// Something writes already.
    pub fn start(format: LogFormat) -> Result<Self, tracing_subscriber::util::TryInitError> {
        let asked = std::env::var("BARGE_LOG").unwrap_or_else(|_| DEFAULT.to_owned());
        let filter = EnvFilter::builder().parse_lossy(&asked);
        let (filter, handle) = reload::Layer::new(filter);
        let (writer, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(WAITING)
            .thread_name("barge-log")
            .finish(stderr());
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(writer)
            .with_ansi(stderr().is_terminal());
        let registry = tracing_subscriber::registry().with(filter);
        match format {
            LogFormat::Text => registry.with(lines).try_init()?,
            LogFormat::Json => registry.with(lines.json()).try_init()?,
        }
        Ok(Self {
            handle,
            now: Arc::new(Mutex::new(asked)),
            _writer: Arc::new(guard),
        })
    }

    /// Writes what `filter` asks for from now on (as `$BARGE_LOG`: "debug", "info,crate::raft=debug"); empty means the default. Returns
    /// what was asked for before.
    ///
    /// # Errors
    /// One sentence on what is wrong with the filter; nothing was changed.
    pub fn set(&self, filter: &str) -> Result<String, String> {
        let asked = if filter.is_empty() { DEFAULT } else { filter };
        let parsed = EnvFilter::builder()
            .parse(asked)
            .map_err(|error| format!("{asked:?} is no filter: {error}"))?;
        self.handle
            .reload(parsed)
            .map_err(|error| format!("the filter cannot be changed: {error}"))?;
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::replace(&mut now, asked.to_owned()))
    }
}
