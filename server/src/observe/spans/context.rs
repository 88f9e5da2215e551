//! Which span a request belongs to, on its way in and out: the W3C's `traceparent` and `tracestate`.

use http::HeaderMap;
use opentelemetry::{
    Context,
    propagation::{Extractor, Injector, TextMapPropagator},
    trace::{SpanContext, TraceContextExt},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::metadata::{MetadataKey, MetadataMap};

/// The span that a request was made for; nothing when it does not say so, or not well.
#[must_use]
pub fn origin(headers: &HeaderMap) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Incoming(headers))
}

/// What a child of a span is begun with.
pub fn child_of(span: &SpanContext) -> Context {
    Context::new().with_remote_span_context(span.clone())
}

/// Writes down what a request is made for.
pub fn inject(span: &SpanContext, metadata: &mut MetadataMap) {
    TraceContextPropagator::new().inject_context(&child_of(span), &mut Outgoing(metadata));
}

struct Incoming<'a>(&'a HeaderMap);

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}

struct Outgoing<'a>(&'a mut MetadataMap);

impl Injector for Outgoing<'_> {
    fn set(&mut self, key: &str, value: String) {
        // There is no header for "no state".
        if value.is_empty() {
            return;
        }
        if let (Ok(key), Ok(value)) = (MetadataKey::from_bytes(key.as_bytes()), value.parse()) {
            self.0.insert(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(parent: &str, state: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", parent.parse().unwrap());
        if let Some(state) = state {
            headers.insert("tracestate", state.parse().unwrap());
        }
        headers
    }

    #[test]
    fn what_came_in_goes_on() {
        let context = origin(&headers(PARENT, Some("vendor=1")));
        let span = context.span().span_context().clone();
        assert!(span.is_remote() && span.is_sampled());
        let mut metadata = MetadataMap::new();
        inject(&span, &mut metadata);
        assert_eq!(metadata.get("traceparent").unwrap(), PARENT);
        assert_eq!(metadata.get("tracestate").unwrap(), "vendor=1");
    }

    #[test]
    fn that_a_trace_is_not_kept_goes_on_too() {
        let skipped = PARENT.replace("-01", "-00");
        let span = origin(&headers(&skipped, None))
            .span()
            .span_context()
            .clone();
        let mut metadata = MetadataMap::new();
        inject(&span, &mut metadata);
        assert_eq!(metadata.get("traceparent").unwrap(), skipped.as_str());
        assert!(metadata.get("tracestate").is_none());
    }

    #[test]
    fn what_is_malformed_is_as_if_it_was_not_there() {
        assert!(!origin(&HeaderMap::new()).has_active_span());
        for bad in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        ] {
            assert!(!origin(&headers(bad, None)).has_active_span(), "{bad}");
        }
    }
}
