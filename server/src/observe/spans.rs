//! Traces: a span for every call, sent to a collector by OTLP. Without an endpoint nothing of this is made, and a call costs a look
//! at an empty `Option`.
//!
//! The task that answers a call knows its span. Code in that task can add a child span or pass the context on, without a parameter in every function
//! on the way.

mod calls;
mod context;
mod export;
mod settings;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use barge_client::identity::role_word;
use barge_proto::v1::Role;
pub use calls::{Call, Calls};
pub use context::origin;
use context::{child_of, inject};
pub use export::{Counts, StartError};
use export::{Outlet, Queue};
use futures::future::Either;
use opentelemetry::{
    KeyValue,
    trace::{SpanContext, Tracer, TracerProvider},
};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracer, SdkTracerProvider, Span},
};
pub use settings::Otlp;
use tokio::task::futures::TaskLocalFuture;
use tonic::metadata::MetadataMap;

use crate::net::{ANYONE, Rules};

tokio::task_local! {
    static CURRENT: Arc<Current>;
}

/// The span of the call that a task answers.
#[derive(Debug)]
pub struct Current {
    tracer: SdkTracer,
    context: SpanContext,
    /// Found out on the way.
    role: OnceLock<&'static str>,
}

/// The way of spans to the collector. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Spans(Option<Arc<Running>>);

#[derive(Debug)]
struct Running {
    tracer: SdkTracer,
    outlet: Outlet,
    counts: Counts,
}

impl Spans {
    /// Makes none.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// Sends them from a thread of its own, with the manager that is reached at `advertise` as their origin; off without settings.
    ///
    /// # Errors
    /// The settings do not work on this machine, or the thread cannot be started. A collector that does not answer is no error.
    pub fn start(settings: Option<&Otlp>, advertise: &str) -> Result<Self, StartError> {
        let Some(settings) = settings else {
            return Ok(Self::off());
        };
        let resource = Resource::builder()
            .with_service_name(env!("CARGO_PKG_NAME"))
            .with_attributes([
                KeyValue::new("service.instance.id", advertise.to_owned()),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            ])
            .build();
        let counts = Counts::default();
        let (queue, outlet) = Queue::start(settings, &resource, counts.clone())?;
        let ratio = Box::new(Sampler::TraceIdRatioBased(settings.sample));
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(ratio))
            .with_span_processor(queue)
            .with_resource(resource)
            .build();
        tracing::info!(
            sample = settings.sample,
            "spans of calls are sent to {}",
            settings.endpoint
        );
        Ok(Self(Some(Arc::new(Running {
            tracer: provider.tracer(env!("CARGO_PKG_NAME")),
            outlet,
            counts,
        }))))
    }

    /// Makes spans of calls.
    #[must_use]
    pub fn calls(&self, rules: &Rules) -> Calls {
        match &self.0 {
            None => Calls::off(),
            Some(running) => Calls::new(running.tracer.clone(), rules.clone()),
        }
    }

    /// How many were sent and lost; absent when none are made.
    #[must_use]
    pub fn counts(&self) -> Option<Counts> {
        self.0.as_ref().map(|running| running.counts.clone())
    }

    /// Waits until what was ended is sent, at most `bound`. Spans that end later are lost. Blocks.
    pub fn close(&self, bound: Duration) {
        if let Some(running) = &self.0
            && !running.outlet.close(bound)
        {
            tracing::warn!(
                "the collector of spans did not take the last ones within {} s",
                bound.as_secs()
            );
        }
    }
}

/// Does work for a call; without a span, it is only done.
pub fn within<F: Future>(
    call: Option<&Call>,
    work: F,
) -> Either<TaskLocalFuture<Arc<Current>, F>, F> {
    match call {
        Some(call) => Either::Left(CURRENT.scope(call.current(), work)),
        None => Either::Right(work),
    }
}

/// A part of the work for a call that is traced; the span ends when it is dropped.
#[must_use]
pub fn child(name: &'static str) -> Option<Box<Span>> {
    let begin = |current: &Arc<Current>| {
        let builder = || current.tracer.span_builder(name);
        let parent = child_of(&current.context);
        let sampled = current.context.is_sampled();
        sampled.then(|| Box::new(current.tracer.build_with_context(builder(), &parent)))
    };
    CURRENT.try_with(begin).ok().flatten()
}

/// Notes the caller in the span.
pub fn note_caller(role: Option<Role>) {
    // Whoever was noted first stays; there is nothing to note without a span.
    let _ = CURRENT.try_with(|current| current.role.set(role.map_or(ANYONE, role_word)));
}

/// Tells the manager that a request is sent on to which span it belongs to.
pub fn pass_on(metadata: &mut MetadataMap) {
    // Without a span there is nothing to tell.
    let _ = CURRENT.try_with(|current| inject(&current.context, metadata));
}
