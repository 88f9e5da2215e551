//! The connection to containerd.

use std::path::Path;

use containerd_client::{
    Client as Services,
    tonic::{
        Request,
        metadata::{Ascii, MetadataValue, errors::InvalidMetadataValue},
        transport::{Channel, Endpoint},
    },
};
use hyper_util::rt::TokioIo;

/// Clients of containerd's services that know their namespace. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    namespace: MetadataValue<Ascii>,
}

impl Client {
    /// Connects at the first request, and again whenever containerd was away.
    pub fn new(socket: &Path, namespace: &str) -> Result<Self, InvalidMetadataValue> {
        let socket = socket.to_owned();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move {
                Ok::<_, std::io::Error>(TokioIo::new(
                    tokio::net::UnixStream::connect(socket).await?,
                ))
            }
        });
        // The connector does not look at the address.
        let channel =
            Endpoint::from_static("http://containerd").connect_with_connector_lazy(connector);
        Ok(Self {
            channel,
            namespace: namespace.parse()?,
        })
    }

    /// containerd's services.
    pub fn services(&self) -> Services {
        Services::from(self.channel.clone())
    }

    /// A request in our namespace.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let namespace = self.namespace.clone();
        request
            .metadata_mut()
            .insert("containerd-namespace", namespace);
        request
    }

    /// A request in our namespace whose results are kept from garbage collection by a lease.
    pub fn leased<T>(&self, lease: &MetadataValue<Ascii>, message: T) -> Request<T> {
        let mut request = self.request(message);
        request
            .metadata_mut()
            .insert("containerd-lease", lease.clone());
        request
    }
}
