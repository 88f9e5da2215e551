//! A gRPC channel to one manager, over a TLS configuration of [`crate::tls`].

use std::{error::Error, io, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use crate::tls::SERVER_NAME;

/// What the other side may send of one message stream before it is read, in bytes.
pub const STREAM_WINDOW: u32 = 1 << 20;
/// Of all streams of a connection. HTTP/2 also measures by it how many small messages may wait to be read; with the windows that
/// grow by need, a hundred and fifty were enough for the connection to be closed.
pub const CONNECTION_WINDOW: u32 = 8 << 20;

/// The largest message that is accepted: a page of large objects.
pub(crate) const MESSAGE_BYTES: usize = 64 << 20;

/// How patient a channel is.
#[derive(Debug, Clone)]
pub struct ChannelOptions {
    /// For the TCP connection and the TLS handshake together. Default 3 s.
    pub connect_timeout: Duration,
    /// An idle connection is pinged this often. Default 5 s.
    pub keep_alive_interval: Duration,
    /// A connection whose ping is not answered for this long is given up. Default 5 s.
    pub keep_alive_timeout: Duration,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            keep_alive_interval: Duration::from_secs(5),
            keep_alive_timeout: Duration::from_secs(5),
        }
    }
}

/// A channel to the manager at `address` (`host:port`). It connects with the first call, and again with the first call
/// after a connection broke; a call that meets no connection fails with UNAVAILABLE.
///
/// # Errors
/// The address is not `host:port`.
pub fn channel(
    address: &str,
    tls: Arc<ClientConfig>,
    options: &ChannelOptions,
) -> Result<Channel, AddressError> {
    let refused = || AddressError(address.to_owned());
    let (host, port) = address.rsplit_once(':').ok_or_else(refused)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(refused());
    }
    // The scheme that tonic sees is http because TLS is the connector's; what travels is TLS only.
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| refused())?
        .http2_keep_alive_interval(options.keep_alive_interval)
        .keep_alive_timeout(options.keep_alive_timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let connector = TlsConnector::from(tls);
    let address: Arc<str> = address.into();
    let limit = options.connect_timeout;
    Ok(
        endpoint.connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
            let (connector, address) = (connector.clone(), address.clone());
            async move {
                match timeout(limit, connect(&connector, &address)).await {
                    Ok(connected) => connected.map(TokioIo::new),
                    Err(_) => Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!("no answer within {} ms", limit.as_millis()),
                    )),
                }
            }
        })),
    )
}

async fn connect(connector: &TlsConnector, address: &str) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
    connector.connect(name, tcp).await
}

/// The header in which a manager names all managers, with every answer to a caller of its cluster: `host:port`, separated by commas.
pub const MANAGERS_HEADER: &str = "barge-managers";

/// A channel that sends a bearer token with every request, where there is one.
pub type ApiChannel = InterceptedService<Channel, Bearer>;

/// The `authorization` header of a bearer token; absent where a certificate is shown.
#[derive(Debug, Clone, Default)]
pub struct Bearer(pub Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", header.clone());
        }
        Ok(request)
    }
}

/// The innermost cause of an error: what the operating system or the handshake said, below the layers of transport.
#[must_use]
pub fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = inner(cause) {
        cause = next;
    }
    cause.to_string()
}

/// The error below an error: some of them carry one that they do not name as their source.
pub(crate) fn inner<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    if let Some(io) = error.downcast_ref::<io::Error>() {
        return io.get_ref().map(|inner| inner as &(dyn Error + 'static));
    }
    if let Some(rustls::Error::Other(rustls::OtherError(inner))) = error.downcast_ref() {
        return Some(inner.as_ref());
    }
    error.source()
}

/// The address of a manager is not `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not the address of a manager: host:port is expected")]
pub struct AddressError(pub String);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls;

    #[tokio::test]
    async fn refuses_what_is_no_address() {
        let tls = tls::pinned_config([0; 32]).unwrap();
        for bad in ["", "host", ":7101", "host:", "host:99999", "a b:1"] {
            assert!(
                channel(bad, tls.clone(), &ChannelOptions::default()).is_err(),
                "{bad}"
            );
        }
        for good in ["10.0.0.1:7101", "[::1]:7101", "manager-1:7101"] {
            assert!(
                channel(good, tls.clone(), &ChannelOptions::default()).is_ok(),
                "{good}"
            );
        }
    }
}
