//! The node's network: which configuration pods get, and the bridge it hangs on.

use std::path::PathBuf;

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::LinkBridge;
use sha2::{Digest, Sha256};

use super::{
    Options, RuntimeError,
    cni::{Bridge, NetworkConfig, generate, load},
    error::reason,
};
use crate::files;

/// Writes the generated configuration for a range of pod addresses and makes its bridge; does nothing when the user
/// has a configuration of their own.
pub async fn ensure(options: &Options, pod_cidr: &str) -> Result<(), RuntimeError> {
    let range: IpNet = pod_cidr
        .parse()
        .map_err(|_| not_ready(format!("the node's pod range \"{pod_cidr}\" is not one")))?;
    let cni = options.paths.cni();
    let config = generate(&Bridge {
        name: &options.bridge,
        range,
        addresses: &cni.join("addresses"),
    });
    let text = serde_json::to_vec_pretty(&config).map_err(|error| not_ready(error.to_string()))?;
    let settings = options.clone();
    let written = files::blocking(move || {
        let (file, reserve) = (generated(&settings), settings.paths.reserve());
        reserve.with(|| std::fs::create_dir_all(&cni))?;
        if files::read_if_there(&file).ok().flatten().as_deref() != Some(&text) {
            reserve.write_atomic(&file, &text)?;
        }
        Ok(own(&settings).is_some())
    });
    let has_own = written.await.map_err(|error| {
        let file = generated(options);
        not_ready(format!("cannot write {}: {error}", file.display()))
    })?;
    if has_own {
        return Ok(());
    }
    make_bridge(&options.bridge, range).await.map_err(|error| {
        not_ready(format!(
            "cannot make the bridge {}: {error}",
            options.bridge
        ))
    })
}

/// The configuration that new pods get.
pub async fn current(options: &Options) -> Result<NetworkConfig, RuntimeError> {
    let options = options.clone();
    let read = files::reading(move || Ok(read(&options))).await;
    read.map_err(|error| not_ready(error.to_string()))?
}

fn read(options: &Options) -> Result<NetworkConfig, RuntimeError> {
    if let Some(config) = own(options) {
        return config.map_err(|error| not_ready(error.to_string()));
    }
    let file = generated(options);
    let bytes = files::read_if_there(&file).map_err(|error| not_ready(error.to_string()))?;
    let bytes =
        bytes.ok_or_else(|| not_ready("the node has no range of pod addresses yet".to_owned()))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| not_ready(format!("{}: {error}", file.display())))
}

fn generated(options: &Options) -> PathBuf {
    options.paths.cni().join("barge.conflist")
}

/// The user's own configuration; `None` when they have none.
fn own(options: &Options) -> Option<Result<NetworkConfig, super::cni::CniError>> {
    let folder = options.cni_conf_dir.as_ref()?;
    match load(folder) {
        Err(super::cni::CniError::NoConfiguration(_)) => None,
        Err(super::cni::CniError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            None
        }
        loaded => Some(loaded),
    }
}

/// Makes the bridge with an address of its own: otherwise it takes the lowest of its ports', and pods lose their
/// gateway for a while each time a pod with a lower one comes or goes.
async fn make_bridge(name: &str, range: IpNet) -> Result<(), rtnetlink::Error> {
    let (connection, handle, _) = rtnetlink::new_connection()
        .map_err(|error| rtnetlink::Error::NamespaceError(error.to_string()))?;
    let connection = tokio::spawn(connection);
    let mut found = handle.link().get().match_name(name.to_owned()).execute();
    let result = match found.try_next().await {
        Ok(Some(_)) => Ok(()),
        _ => {
            let digest = Sha256::digest(range.to_string().as_bytes());
            // Locally administered, not multicast.
            let address = vec![0x02, 0xba, digest[0], digest[1], digest[2], digest[3]];
            let bridge = LinkBridge::new(name).address(address).build();
            handle.link().add(bridge).execute().await
        }
    };
    connection.abort();
    match result {
        Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code() == -libc_eexist() => {
            Ok(())
        }
        result => result,
    }
}

/// Made by somebody else in between.
fn libc_eexist() -> i32 {
    nix::errno::Errno::EEXIST as i32
}

fn not_ready(message: String) -> RuntimeError {
    RuntimeError::passing(reason::NETWORK_NOT_READY, message)
}
