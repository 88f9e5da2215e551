//! The connection to containerd.

use std::{path::Path, time::Duration};

use containerd_client::{
    Client as Services,
    tonic::{
        Request,
        metadata::{Ascii, MetadataValue, errors::InvalidMetadataValue},
        transport::{Channel, Endpoint},
    },
};
use hyper_util::rt::TokioIo;

/// For what only asks.
const LOOK: Duration = Duration::from_secs(15);

/// Clients of containerd's services that know their namespace. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    change: Duration,
    namespace: MetadataValue<Ascii>,
}

impl Client {
    /// Connects at the first request, and again whenever containerd was away. What changes something may take as long as `change`.
    pub fn new(
        socket: &Path,
        namespace: &str,
        change: Duration,
    ) -> Result<Self, InvalidMetadataValue> {
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
            change,
            namespace: namespace.parse()?,
        })
    }

    /// containerd's services.
    pub fn services(&self) -> Services {
        Services::from(self.channel.clone())
    }

    /// A request in our namespace that changes something. It fails when there is no answer in time.
    pub fn request<T>(&self, message: T) -> Request<T> {
        self.within(self.change, message)
    }

    /// A request in our namespace that only asks.
    pub fn look<T>(&self, message: T) -> Request<T> {
        self.within(LOOK, message)
    }

    fn within<T>(&self, deadline: Duration, message: T) -> Request<T> {
        let mut request = self.lasting(message);
        request.set_timeout(deadline);
        request
    }

    /// A request in our namespace that takes as long as it takes: who waits for a container's end waits for days.
    pub fn lasting<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let namespace = self.namespace.clone();
        request
            .metadata_mut()
            .insert("containerd-namespace", namespace);
        request
    }

    /// A request in our namespace whose results are kept from garbage collection by a lease. It belongs to a pull, which has its own
    /// patience.
    pub fn leased<T>(&self, lease: &MetadataValue<Ascii>, message: T) -> Request<T> {
        let mut request = self.lasting(message);
        request
            .metadata_mut()
            .insert("containerd-lease", lease.clone());
        request
    }
}
