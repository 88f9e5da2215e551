//! Where spans go, and how many: checked before anything starts.

use http::Uri;

use crate::net::split_address;

/// Where spans go, and how many.
#[derive(Debug, Clone, PartialEq)]
pub struct Otlp {
    /// `http://host:port` or `https://host:port`
    pub endpoint: String,
    /// The part of the traces that begin here and are kept, from 0 to 1.
    pub sample: f64,
}

impl Otlp {
    /// Checks the settings; absent without an endpoint.
    ///
    /// # Errors
    /// One sentence on what does not work.
    pub fn new(endpoint: Option<String>, sample: Option<f64>) -> Result<Option<Self>, String> {
        if let Some(wrong) = sample.filter(|sample| !(0.0..=1.0).contains(sample)) {
            return Err(format!(
                "--otlp-sample {wrong}: a number from 0 to 1 is expected"
            ));
        }
        match endpoint {
            Some(endpoint) if is_endpoint(&endpoint) => Ok(Some(Self {
                endpoint,
                sample: sample.unwrap_or(1.0),
            })),
            Some(endpoint) => Err(format!(
                "--otlp-endpoint {endpoint}: http://host:port or https://host:port is expected"
            )),
            None if sample.is_some() => {
                Err("--otlp-sample is of no use without --otlp-endpoint".to_owned())
            }
            None => Ok(None),
        }
    }

    /// Whether the collector is reached over TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.endpoint.starts_with("https:")
    }
}

fn is_endpoint(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else {
        return false;
    };
    let address = uri.authority().map(|authority| authority.as_str());
    matches!(uri.scheme_str(), Some("http" | "https"))
        && address.is_some_and(|it| !it.contains('@') && split_address(it).is_some())
        && uri.path_and_query().is_none_or(|path| path == "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_scheme_a_host_and_a_port() {
        for good in [
            "http://127.0.0.1:4317",
            "https://collector.example:4317/",
            "http://[::1]:4317",
        ] {
            assert!(is_endpoint(good), "{good}");
        }
        for bad in [
            "",
            "collector:4317",
            "127.0.0.1:4317",
            "http://collector",
            "http://collector:0",
            "grpc://collector:4317",
            "http://collector:4317/v1/traces",
            "http://user:secret@collector:4317",
            "http://a b:4317",
        ] {
            assert!(!is_endpoint(bad), "{bad}");
        }
    }

    #[test]
    fn everything_is_kept_unless_something_else_is_said() {
        let of = |sample| Otlp::new(Some("http://c:4317".to_owned()), sample);
        assert_eq!(of(None).unwrap().unwrap().sample, 1.0);
        assert_eq!(of(Some(0.01)).unwrap().unwrap().sample, 0.01);
        for wrong in [-0.1, 1.5, f64::NAN] {
            assert!(of(Some(wrong)).unwrap_err().contains("from 0 to 1"));
        }
        assert_eq!(Otlp::new(None, None), Ok(None));
        assert!(Otlp::new(None, Some(0.5)).is_err());
    }
}
